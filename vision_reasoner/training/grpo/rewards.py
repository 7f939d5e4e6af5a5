"""The rewards of reinforcement learning: 0 to 7 for a reply to a request for objects.

Four parts (VisionReasoner, arXiv 2505.12081): think_format up to 1, answer_format 2, accuracy 3, non_repeat 1.
The answer is read as strictly as the original reads it, without the repairs of `parse_reply`: one malformed object
costs the accuracy of all, and an answer that is not JSON gets nothing. Training thus favors answers that need no
repair. `parsing.split_answer` finds the answer in a reply, as at inference.

Departures from the original:

- the distance thresholds scale with the frame;
- where nothing is to be found, the empty answer has the highest reward (`compat="upstream"` undoes this);
- answer tags inside the thinking do not count;
- coordinates must be finite numbers, not only the right number of values.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_reasoner.data.solutions import Candidate, Objects, read_objects, read_solution
from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.matching import best_assignment_score, box_hits
from vision_reasoner.parsing import ANSWER_AFTER_THINKING, split_answer

THRESHOLD_SIDE = 840  # the distances below are pixels of a frame of this side; other frames are measured in it
BOX_DISTANCE = 10.0  # mean of the four |differences|
POINT_DISTANCE = 30.0
MAX_OBJECTS = 120  # of the answer and of the truth; what follows is left out of the accuracy
MAX_REPEATS = 1  # sentences that stood in the reply before
ANSWER_FORMAT, ACCURACY = 2.0, 3.0  # their full marks

FRAME = (THRESHOLD_SIDE, THRESHOLD_SIDE)

Compat = Literal["upstream"] | None


class Reward(NamedTuple):
    """The reward of one reply, by part."""

    think_format: float
    answer_format: float
    accuracy: float
    non_repeat: float

    @property
    def total(self) -> float:
        """The sum of the parts, from 0 to 7."""
        return self.think_format + self.answer_format + self.accuracy + self.non_repeat


def compute_reward(reply: str, solution: str, *, model_size: Size = FRAME, compat: Compat = None) -> Reward:
    """The reward of a reply, by part. No reply makes it raise, and its time grows with the reply's length.

    Args:
        reply: the reply as the model wrote it.
        solution: the row's solution, JSON: a list of {"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}, may be empty.
        model_size: (width, height) of the frame that both are in.
        compat: "upstream" treats an empty solution as the original does: a made-up box earns 4, the right answer 2.

    Raises:
        DataError: the solution cannot be used; see `read_solution`.
        UsageError: there is no such `compat`.

    >>> solution = '[{"bbox_2d": [10, 10, 49, 49], "point_2d": [30, 30]}]'
    >>> compute_reward(f"<think>There it is.</think><answer>{solution}</answer>", solution, model_size=(280, 280))
    Reward(think_format=1.0, answer_format=2.0, accuracy=3.0, non_repeat=1.0)
    >>> compute_reward("<think>There is none.</think><answer>[]</answer>", "[]").total
    7.0
    """
    if compat not in (None, "upstream"):
        raise UsageError(f"no compat {compat!r} for rewards: give None or 'upstream'")
    truth = read_solution(solution, model_size=model_size)
    candidates = read_answer(reply)
    if candidates == [] and len(truth.boxes) == 0 and compat is None:
        answer_format, accuracy = ANSWER_FORMAT, ACCURACY
    else:
        answer_format = score_answer_format(candidates)
        accuracy = score_accuracy(candidates, truth, model_size=model_size)
    return Reward(score_think_format(reply), answer_format, accuracy, score_non_repeat(reply))


def score_think_format(reply: str) -> float:
    """1 if the whole reply is `<think>…</think>`, white space, `<answer>…</answer>`, else 0."""
    if not (reply.startswith("<think>") and reply.endswith("</answer>")):
        return 0.0
    joint = ANSWER_AFTER_THINKING.search(reply, len("<think>"))
    return float(joint is not None and joint.end() <= len(reply) - len("</answer>"))


def score_non_repeat(reply: str) -> float:
    """1, or 0 as soon as two sentences stood in the reply before; a full stop ends a sentence, in numbers too."""
    sentences = [sentence for sentence in map(str.strip, reply.split(".")) if sentence]
    return float(len(sentences) - len(set(sentences)) <= MAX_REPEATS)


def score_answer_format(candidates: Sequence[Candidate] | None) -> float:
    """1 for a well-formed box and 1 for a well-formed point, mean over the objects; 0 where there are none."""
    if not candidates:
        return 0.0
    return sum((box is not None) + (point is not None) for box, point in candidates) / len(candidates)


def score_accuracy(candidates: Sequence[Candidate] | None, truth: Objects, *, model_size: Size) -> float:
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
    wanted = Objects(truth.boxes[:MAX_OBJECTS], truth.points[:MAX_OBJECTS])
    scores = pair_scores(predicted, wanted, model_size=model_size)
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
    from scipy.spatial.distance import cdist

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
    return read_objects(answer.strip()) if answer is not None and closed else None


# --- for TRL ----------------------------------------------------------------------------------------------------------
def think_format(completions: Sequence[Any], solution: Sequence[str], **columns: Any) -> list[float]:
    """`Reward.think_format` of each reply, as TRL calls a reward function.

    Args:
        completions: conversations, the reply's text in the first message.
        solution: the column of the rows, one for each reply.
        **columns: model_size and compat as for `compute_reward`; the other columns of the rows play no role.

    >>> think_format([[{"content": "<think>None.</think><answer>[]</answer>"}], [{"content": "[]"}]], ["[]"] * 2)
    [1.0, 0.0]
    """
    return [reward.think_format for reward in _rewards(completions, solution, **columns)]


def answer_format(completions: Sequence[Any], solution: Sequence[str], **columns: Any) -> list[float]:
    """`Reward.answer_format` of each reply; arguments as for `think_format`.

    >>> solution = '[{"bbox_2d": [10, 10, 49, 49], "point_2d": [30, 30]}]'
    >>> answer_format([[{"content": '<answer>[{"bbox_2d": [10, 10, 49, 49]}]</answer>'}]], [solution])
    [1.0]
    """
    return [reward.answer_format for reward in _rewards(completions, solution, **columns)]


def accuracy(completions: Sequence[Any], solution: Sequence[str], **columns: Any) -> list[float]:
    """`Reward.accuracy` of each reply; arguments as for `think_format`.

    >>> solution = '[{"bbox_2d": [10, 10, 49, 49], "point_2d": [30, 30]}]'
    >>> accuracy([[{"content": f"<answer>{solution}</answer>"}]], [solution])
    [3.0]
    """
    return [reward.accuracy for reward in _rewards(completions, solution, **columns)]


def non_repeat(completions: Sequence[Any], solution: Sequence[str], **columns: Any) -> list[float]:
    """`Reward.non_repeat` of each reply; arguments as for `think_format`.

    >>> non_repeat([[{"content": "A cat. A cat. A cat."}], [{"content": "A cat. A dog."}]], ["[]"] * 2)
    [0.0, 1.0]
    """
    return [reward.non_repeat for reward in _rewards(completions, solution, **columns)]


def _rewards(
    completions: Sequence[Any],
    solutions: Sequence[str],
    /,
    *,
    model_size: Size = FRAME,
    compat: Compat = None,
    **_columns: Any,
) -> Iterator[Reward]:
    for messages, solution in zip(completions, solutions, strict=True):
        yield compute_reward(messages[0]["content"], solution, model_size=model_size, compat=compat)


_FUNCTIONS: dict[str, Callable[..., list[float]]] = {
    "think_format": think_format,
    "answer_format": answer_format,
    "accuracy": accuracy,
    "non_repeat": non_repeat,
}


def trl_rewards(
    *, model_size: Size = FRAME, compat: Compat = None, parts: Sequence[str] = Reward._fields
) -> list[Callable[..., list[float]]]:
    """The reward functions above, with their settings, for TRL's `reward_funcs`; TRL adds them up.

        GRPOTrainer(..., reward_funcs=trl_rewards(model_size=(280, 280)))

    Args:
        model_size: as for `compute_reward`.
        compat: as for `compute_reward`.
        parts: fields of `Reward`, for training without some of them.

    Returns:
        Functions that can be pickled. Each has its part's name, under which TRL logs it.

    >>> [function.__name__ for function in trl_rewards(parts=["accuracy", "non_repeat"])]
    ['accuracy', 'non_repeat']
    """
    unknown = [part for part in parts if part not in _FUNCTIONS]
    if unknown:
        raise UsageError(f"no reward {unknown[0]!r}: choose from {', '.join(_FUNCTIONS)}")
    functions: list[Callable[..., list[float]]] = []
    for part in parts:
        function = partial(_FUNCTIONS[part], model_size=model_size, compat=compat)
        function.__name__ = part  # type: ignore[attr-defined]
        functions.append(function)
    return functions
