"""The rewards of reinforcement learning: what a reply to a request for objects is worth, from 0 to 7.

Four parts with names (VisionReasoner, arXiv 2505.12081): think_format 1, answer_format 2, accuracy 3, non_repeat 1.
They read the answer as strictly as the original does, not as `parse_reply` does: one object that is not well-formed
costs the accuracy of all, and an answer that is not JSON is worth nothing, so that training pushes towards answers
that need no repair. Where the answer stands in a reply is for `parsing.split_answer` to say, as when a model is used.

Departures from the original: thresholds follow the frame; where nothing is to be found, the empty answer is worth
most (`compat="upstream"` takes this back); an answer's tags inside the thinking do not count; coordinates must be
finite numbers, not only so many values.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.matching import best_assignment_score, box_hits
from vision_reasoner.parsing import ANSWER_AFTER_THINKING, are_numbers, split_answer

THRESHOLD_SIDE = 840  # the distances below are pixels of a frame of this side; other frames are measured in it
BOX_DISTANCE = 10.0  # mean of the four |differences|
POINT_DISTANCE = 30.0
MAX_OBJECTS = 120  # of the answer and of the truth; what follows is left out of the accuracy
MAX_REPEATS = 1  # sentences that stood in the reply before
ANSWER_FORMAT, ACCURACY = 2.0, 3.0  # their full marks

Compat = Literal["upstream"] | None
Candidate = tuple[list[float] | None, list[float] | None]
"""An object of an answer: its box and its point, None where that is missing or not well-formed."""


class Reward(NamedTuple):
    """What one reply is worth, part by part."""

    think_format: float
    answer_format: float
    accuracy: float
    non_repeat: float

    @property
    def total(self) -> float:
        """The sum of the parts, from 0 to 7."""
        return self.think_format + self.answer_format + self.accuracy + self.non_repeat


@dataclass(frozen=True, eq=False)
class Objects:
    """Boxes with a point each.

    Attributes:
        boxes: (N, 4) float64, xyxy, in pixels of the model's frame; x2 and y2 are the last pixels inside.
        points: (N, 2) float64, x and y in the same frame.
    """

    boxes: NDArray[np.float64]
    points: NDArray[np.float64]


def compute_reward(
    reply: str, solution: str, *, model_size: Size = (THRESHOLD_SIDE, THRESHOLD_SIDE), compat: Compat = None
) -> Reward:
    """What a reply is worth. No reply makes it raise, and its time grows with the reply's length.

    Args:
        reply: the reply as the model wrote it.
        solution: the row's solution, JSON: a list of {"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}, may be empty.
        model_size: (width, height) of the frame that both are in.
        compat: "upstream" treats an empty solution as the original does: a made-up box earns 4, the right answer 2.

    Raises:
        DataError: the solution cannot be used; see `read_solution`.
        UsageError: there is no such `compat`.
    """
    if compat not in (None, "upstream"):
        raise UsageError(f"no compat {compat!r} for rewards: give None or 'upstream'")
    truth = read_solution(solution, model_size=model_size)
    candidates = read_answer(reply)
    if candidates == [] and len(truth.boxes) == 0 and compat is None:
        format_reward, accuracy_reward = ANSWER_FORMAT, ACCURACY
    else:
        format_reward = answer_format(candidates)
        accuracy_reward = accuracy(candidates, truth, model_size=model_size)
    return Reward(think_format(reply), format_reward, accuracy_reward, non_repeat(reply))


def think_format(reply: str) -> float:
    """1 if the whole reply is `<think>…</think>`, white space, `<answer>…</answer>`, else 0."""
    if not (reply.startswith("<think>") and reply.endswith("</answer>")):
        return 0.0
    joint = ANSWER_AFTER_THINKING.search(reply, len("<think>"))
    return float(joint is not None and joint.end() <= len(reply) - len("</answer>"))


def non_repeat(reply: str) -> float:
    """1, or 0 as soon as two sentences stood in the reply before; a full stop ends a sentence, in numbers too."""
    sentences = [sentence for sentence in map(str.strip, reply.split(".")) if sentence]
    return float(len(sentences) - len(set(sentences)) <= MAX_REPEATS)


def answer_format(candidates: Sequence[Candidate] | None) -> float:
    """1 for a well-formed box and 1 for a well-formed point, mean over the objects; 0 where there are none."""
    if not candidates:
        return 0.0
    return sum((box is not None) + (point is not None) for box, point in candidates) / len(candidates)


def accuracy(candidates: Sequence[Candidate] | None, truth: Objects, *, model_size: Size) -> float:
    """The best one-to-one matching's sum of `pair_scores`, divided by the larger number of objects: 0 to 3.

    0 without an answer, without objects on either side, and if any object lacks a well-formed box or point.
    """
    if not candidates or len(truth.boxes) == 0:
        return 0.0
    boxes = [box for box, _ in candidates if box is not None]
    points = [point for _, point in candidates if point is not None]
    if not len(boxes) == len(points) == len(candidates):
        return 0.0
    predicted = Objects(np.array(boxes[:MAX_OBJECTS]), np.array(points[:MAX_OBJECTS]))
    scores = pair_scores(predicted, truth, model_size=model_size)
    return best_assignment_score(scores) / max(scores.shape)


def pair_scores(predicted: Objects, truth: Objects, *, model_size: Size) -> NDArray[np.int64]:
    """How well each predicted object fits each true one.

    One point each for an inclusive-pixel IoU above `matching.MIN_IOU`, for boxes nearer than BOX_DISTANCE, and for
    points nearer than POINT_DISTANCE if the predicted point also lies in its own predicted box.

    Args:
        predicted: N objects in the frame of `model_size`.
        truth: M objects in the same frame.
        model_size: (width, height) of the frame.

    Returns:
        (N, M), 0 to 3.
    """
    x1, y1, x2, y2 = predicted.boxes.T
    x, y = predicted.points.T
    inside = (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)
    scale = THRESHOLD_SIDE / np.array([*model_size, *model_size])
    with np.errstate(over="ignore", invalid="ignore"):  # a reply may hold coordinates such as 1e300
        overlaps = box_hits(predicted.boxes, truth.boxes, inclusive=True, strict=True)
        near_boxes = cdist(predicted.boxes * scale, truth.boxes * scale, "cityblock") < 4 * BOX_DISTANCE
        near_points = cdist(predicted.points * scale[:2], truth.points * scale[:2]) < POINT_DISTANCE
    return overlaps.astype(np.int64) + near_boxes + (near_points & inside[:, None])


def read_answer(reply: str) -> list[Candidate] | None:
    """The objects between the answer's tags; None unless there is a JSON list between two tags."""
    _, answer, _, closed = split_answer(reply)
    return _read_list(answer.strip()) if answer is not None and closed else None


def read_solution(solution: str, *, model_size: Size) -> Objects:
    """The objects of a row's solution, at most MAX_OBJECTS, as arrays that cannot be written to.

    Raises:
        DataError: it is no text of a JSON list; an object lacks a box of four or a point of two finite numbers;
            corners are out of order; something lies outside the frame of `model_size`.
    """
    if not isinstance(solution, str):
        raise _bad_solution(solution, "it is no JSON text")
    return _read_solution(solution, model_size)


@lru_cache(maxsize=256)  # the replies of a group share their solution
def _read_solution(solution: str, model_size: Size) -> Objects:
    candidates = _read_list(solution)
    if candidates is None:
        raise _bad_solution(solution, "it is no JSON list (for nothing to be found: [])")
    width, height = model_size
    for number, (box, point) in enumerate(candidates, start=1):
        if box is None or point is None:
            missing = "bbox_2d of four" if box is None else "point_2d of two"
            raise _bad_solution(solution, f"object {number} has no {missing} finite numbers")
        (x1, y1, x2, y2), (x, y) = box, point
        if x1 > x2 or y1 > y2:
            raise _bad_solution(solution, f"the corners of object {number} are not in the order x1, y1, x2, y2")
        if min(x1, y1, x, y) < 0 or max(x2, x) > width or max(y2, y) > height:
            raise _bad_solution(solution, f"object {number} leaves the frame of {width}x{height}")
    kept = candidates[:MAX_OBJECTS]
    objects = Objects(
        np.array([box for box, _ in kept], np.float64).reshape(-1, 4),
        np.array([point for _, point in kept], np.float64).reshape(-1, 2),
    )
    objects.boxes.flags.writeable = objects.points.flags.writeable = False
    return objects


def trl_rewards(
    *,
    model_size: Size = (THRESHOLD_SIDE, THRESHOLD_SIDE),
    compat: Compat = None,
    parts: Sequence[str] = Reward._fields,
) -> list[Callable[..., list[float]]]:
    """Reward functions for TRL's `reward_funcs`, one for each part, so that TRL logs each under its name.

        GRPOTrainer(..., reward_funcs=trl_rewards(model_size=(280, 280)))

    Each takes conversational completions and the column `solution` and ignores all other columns; TRL adds them up.

    Args:
        model_size: as for `compute_reward`.
        compat: as for `compute_reward`.
        parts: fields of `Reward`, for training without some of them.
    """
    unknown = [part for part in parts if part not in Reward._fields]
    if unknown:
        raise UsageError(f"no reward {unknown[0]!r}: choose from {', '.join(Reward._fields)}")

    def function_for(part: str) -> Callable[..., list[float]]:
        def reward(completions: Sequence[Any], solution: Sequence[str], **_columns: Any) -> list[float]:
            return [
                getattr(compute_reward(messages[0]["content"], truth, model_size=model_size, compat=compat), part)
                for messages, truth in zip(completions, solution, strict=True)
            ]

        reward.__name__ = part
        return reward

    return [function_for(part) for part in parts]


def _read_list(text: str) -> list[Candidate] | None:
    try:
        items = json.loads(text, parse_int=float)  # numbers of any length, too
    except (ValueError, RecursionError):
        return None
    if not isinstance(items, list):
        return None
    return [(_numbers(item, "bbox_2d", 4), _numbers(item, "point_2d", 2)) for item in items]


def _numbers(item: object, key: str, length: int) -> list[float] | None:
    value = item.get(key) if isinstance(item, dict) else None
    return value if are_numbers(value, length) else None


def _bad_solution(solution: object, why: str) -> DataError:
    return DataError(f"the solution {str(solution)[:100]!r} cannot be used: {why}; prepare this row again")
