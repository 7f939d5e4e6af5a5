"""What GRPO can train: the reasoner or the router, each with its rows, rewards and held-out figures.

The training itself, the same for both, is in `trainer`.
"""

import argparse
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from vision_reasoner.data.rows import ControlToken, checked_image, load_rows, target_of
from vision_reasoner.data.solutions import Target, read_solution, solution_of
from vision_reasoner.data.tables import Row, encoded
from vision_reasoner.errors import CheckpointError, DataError
from vision_reasoner.files import parse_jsonl_line
from vision_reasoner.geometry import Box, Point, Size, rescale
from vision_reasoner.matching import Boxes, f1_score, match_boxes
from vision_reasoner.models.checkpoints import BUNDLED, Part, in_pretrained, locate, path_of
from vision_reasoner.models.engine import frame_image
from vision_reasoner.models.local import TransformersEngine
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.models.router import CATEGORY_NAMES, Router, read_category
from vision_reasoner.parsing import parse_reply
from vision_reasoner.prompts import VISION_REASONER, router_messages
from vision_reasoner.results import Status, Task
from vision_reasoner.training.grpo.rewards import Reward, compute_reward, trl_rewards
from vision_reasoner.training.prepare import SCENE_OBJECTS, SceneImage

if TYPE_CHECKING:
    import datasets

Scores = dict[str, float]

ENDLESS = 1_000_000  # rows of a source that makes them as they are asked for
HELD_OUT_SEED = -1  # of scenes and requests made up for evaluation; training's seeds are not negative
FIRST_SCENE_SEED = 5_000_000  # so that scenes which `prepare` made to evaluate on are none that are trained on
NO_TARGET_SHARE = 0.3  # of the scenes that are evaluated on, whatever is trained on
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


@dataclass(frozen=True)
class Rows:
    """Rows that are made or read when they are asked for.

    Attributes:
        n: how many there are.
        at: row number i; with `id`, `problem`, `kind`, the conversation `prompt`, and what rewards and scores need:
            for the reasoner `image` (in the frame of `table_rows`) and `solution`, for the router `category`.
    """

    n: int
    at: Callable[[int], Row]


@dataclass(frozen=True)
class Policy:
    """A model to train, with everything that depends on its task.

    Attributes:
        part: what it is; the name of the folder that its checkpoint is written to.
        folder: the checkpoint it comes from.
        model: the transformers model, on the CPU.
        processing: its processor or tokenizer, set up as TRL wants it.
        train: what is trained on.
        held_out: what is evaluated on.
        rewards: TRL's reward functions; their sum is the reward.
        score: scores of greedy replies, for each row "reward" and whatever else is to be reported.
        suppress_tokens: token ids that are never sampled.
        skips_thinking: whether `suppress_tokens` also goes into the checkpoint, which then answers without thinking.
    """

    part: Part
    folder: Path
    model: Any
    processing: Any
    train: Rows
    held_out: Rows
    rewards: list[Callable[..., list[float]]]
    score: Callable[[Sequence[Row]], list[Scores]]
    suppress_tokens: list[int]
    skips_thinking: bool = False


def load_policy(settings: argparse.Namespace) -> Policy:
    """Load the model, rows and rewards that `settings` (see `grpo.build_parser`) ask for.

    Raises:
        CheckpointError: the checkpoint is missing or of another kind.
        DataError: the data cannot be trained on.
    """
    return load_reasoner(settings) if settings.what == "reasoner" else _router(settings)


def _checkpoint(settings: argparse.Namespace, part: Part) -> Path:
    """The folder to begin with: the one given, or with the preset "tiny" the bundled one."""
    path = settings.model_path
    if path is None:
        path = in_pretrained(BUNDLED)
        if path is None:
            raise CheckpointError(f"{BUNDLED} is not here; give --model_path")
    inside = path_of(path) / part  # of a bundle
    return locate(inside if inside.is_dir() else path, part)


def _dtype(settings: argparse.Namespace) -> str:
    """Trained weights are float32, or steps of 1e-6 are lost in rounding; frozen ones under LoRA can be bfloat16."""
    return "bfloat16" if settings.lora and torch.cuda.is_available() else "float32"


# --- the reasoner -----------------------------------------------------------------------------------------------------
def load_reasoner(settings: argparse.Namespace) -> Policy:
    """The reasoner, as `load_policy` gives it."""
    folder = _checkpoint(settings, "reasoner")
    engine = TransformersEngine.from_pretrained(
        folder, "reasoner", device="cpu", dtype=_dtype(settings), attn_implementation="sdpa"
    )
    processor, model, reasoner = engine.processor, engine.model, Reasoner(engine)
    processor.image_processor.do_resize = False  # rows come in the frame, as `Reasoner.ask` frames images
    processor.tokenizer.padding_side = "left"
    if settings.freeze:
        for name, weights in model.named_parameters():
            weights.requires_grad_((settings.freeze == "vision") != ("visual" in name))
    size = (engine.frame_side, engine.frame_side)
    if settings.data:
        train, held_out = table_rows(settings.data, settings.eval_data, settings.eval_n, size, engine.control_token)
    else:
        shares = settings.no_target_share, settings.rehearsed_share
        train = Rows(ENDLESS, lambda i: scene_row(settings.seed, i, size, *shares))
        held_out = Rows(settings.eval_n, lambda i: scene_row(HELD_OUT_SEED, i, size, NO_TARGET_SHARE))

    def score(rows: Sequence[Row]) -> list[Scores]:
        replies = reasoner.ask(
            [row["image"] for row in rows],
            [row["problem"] for row in rows],
            tasks=[Task.SEGMENTATION] * len(rows),
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.num_generations * settings.micro_batch,
        )
        return [reply_scores(reply.text, row, size) for reply, row in zip(replies, rows, strict=True)]

    vocabulary = processor.tokenizer.get_vocab()
    suppress = {vocabulary[token] for token in VISION_TOKENS if token in vocabulary}
    if "thinking" in settings.without:
        suppress = set(range(model.config.get_text_config().vocab_size)) - answer_tokens(processor.tokenizer, size[0])
        model.generation_config.suppress_tokens = sorted(suppress)
    return Policy(
        part="reasoner",
        folder=folder,
        model=model,
        processing=processor,
        train=train,
        held_out=held_out,
        rewards=trl_rewards(model_size=size, parts=[part for part in Reward._fields if part not in settings.without]),
        score=score,
        suppress_tokens=sorted(suppress),
        skips_thinking="thinking" in settings.without,
    )


def reasoner_row(id: str, kind: str, problem: str, solution: str, image: Image.Image, size: Size) -> Row:
    """A row as TRL takes it: it puts `image` before the text of the conversation's turn.

    Args:
        id: as in the table.
        kind: what figures are reported by.
        problem: the request as the user gives it.
        solution: JSON text, in pixels of the frame.
        image: an image of any size.
        size: (width, height) of the model's frame.
    """
    return {
        "id": id,
        "kind": kind,
        "problem": problem,
        "solution": solution,
        "prompt": [{"role": "user", "content": VISION_REASONER.text_for(problem)}],
        "image": frame_image(image, size),
    }


def scene_row(seed: int, number: int, size: Size, no_target_share: float, rehearsed_share: float = 0.0) -> Row:
    """A request to find, segment or count objects in a new scene, in a wording of the training set.

    The drawings are those that the supervised stages leave to reinforcement learning, except in a share of the scenes.

    Args:
        seed: of the rows.
        number: of the row among them.
        size: (width, height) of the model's frame.
        no_target_share: of requests for what is not there, besides those that are among the other kinds.
        rehearsed_share: of scenes with the drawings of the supervised stages.
    """
    from vision_reasoner.scenes.requests import RequestContext, absent, random_requests

    for attempt in itertools.count(number, ENDLESS):  # nearly always the first
        drawings = "train" if Random(f"drawings {seed} {attempt}").random() < rehearsed_share else "rewarded"
        scene = SceneImage(FIRST_SCENE_SEED + seed, attempt, drawings, SCENE_OBJECTS).scene()
        rng = Random(f"grpo {seed} {attempt}")
        for request in (
            [absent(RequestContext(scene, rng))] if rng.random() < no_target_share else random_requests(scene, rng, 4)
        ):
            if request is None or request.task is Task.VQA:
                continue
            targets = [target_of(scene.objects[i].mask, size) for i in request.targets]
            seen = [target for target in targets if target is not None]
            if len(seen) == len(targets):
                image = Image.fromarray(scene.image)
                id = f"{seed}-{attempt}"
                return reasoner_row(id, request.kind, request.query, solution_of(seen), image, size)
    raise AssertionError  # the loop is endless


def table_rows(
    source: str,
    held_out: str | None,
    n_held_out: int,
    size: Size | None,
    control_token: ControlToken | None = None,
) -> tuple[Rows, Rows]:
    """Rows to train on and rows to evaluate on.

    Args:
        source: of rows to train on, see `rows.load_rows`; its split "train".
        held_out: of rows to evaluate on, likewise, of its split "test"; None: some images of `source`, with all
            their rows, are left out for it.
        n_held_out: at most so many to evaluate on (or as many more as the last image has).
        size: (width, height) of the model's frame; rows in another one are brought to it. None: they keep their own.
        control_token: see `rows.load_rows`.

    Raises:
        DataError: they cannot be trained on, or there are too few.
    """
    table = encoded(load_rows(source, control_token=control_token))
    if held_out is not None:
        other = encoded(load_rows(held_out, "test", control_token=control_token))
        return _rows_of(table, range(len(table)), size), _rows_of(other, range(min(n_held_out, len(other))), size)
    n_held_out = min(n_held_out, len(table) // 5)
    if n_held_out == 0:
        raise DataError(f"{source}: {len(table)} rows are too few to leave some out for evaluation; give --eval_data")
    by_image: dict[bytes, list[int]] = {}
    for i, row in enumerate(table.select_columns(["image"])):
        cell = row["image"] or {}  # `check_row` says so when it is looked at
        image = cell.get("bytes") or str(cell.get("path")).encode()
        by_image.setdefault(hashlib.sha256(image).digest(), []).append(i)
    aside: list[int] = []
    kept: list[int] = []
    for found in Random(0).sample(list(by_image.values()), len(by_image)):
        (aside if len(aside) < n_held_out else kept).extend(found)
    if not kept:
        raise DataError(f"{source}: too few pictures to leave some out for evaluation; give --eval_data")
    return _rows_of(table, kept, size), _rows_of(table, aside, size)


def _rows_of(table: "datasets.Dataset", order: Sequence[int], size: Size | None) -> Rows:
    def at(i: int) -> Row:
        row = table[order[i]]
        image = checked_image(row)
        targets = read_solution(row["solution"], model_size=image.size)
        frame = size or image.size
        moved = [
            _in_frame(box, point, image.size, frame)
            for box, point in zip(targets.boxes.tolist(), targets.points.tolist(), strict=True)
        ]
        solution = solution_of(moved)
        kind = ("none", "one", "several")[min(len(moved), 2)]
        return reasoner_row(row["id"], kind, row["problem"], solution, image, frame)

    return Rows(len(order), at)


def _in_frame(box: Sequence[float], point: Sequence[float], size: Size, frame: Size) -> Target:
    """An object of a row of `size` in a frame; a box is of its first and last pixels, a point of one pixel."""
    if size == frame:  # as it is, even where it names the side of the frame
        numbers = rescale([*box, *point], from_size=size, to_size=frame)
        return Target(Box.from_inclusive(*numbers[:4]), Point(*numbers[4:]))
    x1, y1, x2, y2 = rescale([*box[:2], box[2] + 1, box[3] + 1], from_size=size, to_size=frame)
    x1, y1 = min(x1, frame[0] - 1), min(y1, frame[1] - 1)
    x2, y2 = min(max(x2, x1 + 1), frame[0]), min(max(y2, y1 + 1), frame[1])  # at least a pixel is left of it
    x, y = rescale([v + 0.5 for v in point], from_size=size, to_size=frame, truncate=True)
    return Target(Box(x1, y1, x2, y2), Point(min(x, frame[0] - 1), min(y, frame[1] - 1)))


def reply_scores(reply: str, row: Row, size: Size) -> Scores:
    """How good a greedy reply is: the reward and its parts, F1 of the boxes, whether their number is right.

    F1 is `box_f1`, with true boxes as edges, as evaluation has them. F1 and count are also given under the row's kind.
    """
    reward = compute_reward(reply, row["solution"], model_size=size)
    parsed = parse_reply(reply, model_size=size, image_size=size)
    boxes = [instance.box for instance in parsed.instances]
    solution = read_solution(row["solution"], model_size=size).boxes
    truth = [Box.from_inclusive(*box) for box in solution.astype(int).tolist()]
    f1, count = box_f1(boxes, truth), float(len(boxes) == len(truth))
    if not boxes and parsed.status is not Status.NONE:  # has not said that there is nothing
        f1 = count = 0.0
    scores = {"reward": reward.total, "f1": f1, "count": count}
    scores |= {f"rewards/{part}": value for part, value in reward._asdict().items()}
    return scores | {f"f1/{row['kind']}": f1, f"count/{row['kind']}": count}


def box_f1(boxes: Boxes, truth: Boxes) -> float:
    """F1 of predicted and true boxes under evaluation's rule (`matching.match_boxes`); 1 where there are none at all.

    A hit is an IoU of at least 0.5 of boxes as edges, the better pairs first. Version 0.1.0 counted last pixels as
    inside and matched as many pairs as possible, so that its logs differ where an IoU is close to 0.5 or boxes overlap.

    Args:
        boxes: (N, 4), xyxy edges, in the same frame as `truth`.
        truth: (M, 4).
    """
    n, m = len(np.asarray(boxes)), len(np.asarray(truth))
    return float(f1_score(len(match_boxes(boxes, truth)), n, m)) if n or m else 1.0


def answer_tokens(tokenizer: Any, side: int) -> set[int]:
    """The tokens that answers without thinking are made of, in a frame of `side` pixels, and those that end a reply."""
    replies = ["<think></think><answer>[]</answer>"]
    for n in range(side + 1):
        objects = f'{{"bbox_2d": [{n},{n},{n},{n}], "point_2d": [{n},{n}]}}'
        replies.append(f"<think></think><answer>[{objects}, {objects}]</answer>")
    return {token for ids in tokenizer(replies)["input_ids"] for token in ids} | {tokenizer.eos_token_id}


# --- the router -------------------------------------------------------------------------------------------------------
def _router(settings: argparse.Namespace) -> Policy:
    folder = _checkpoint(settings, "router")
    engine = TransformersEngine.from_pretrained(
        folder, "router", device="cpu", dtype=_dtype(settings), attn_implementation="sdpa"
    )
    router = Router(engine)
    engine.tokenizer.padding_side = "left"
    if settings.data:
        requests = read_requests(Path(settings.data))
        n_held_out = min(settings.eval_n, len(requests) // 5)
        Random(0).shuffle(requests)
        train = Rows(len(requests) - n_held_out, lambda i: router_row(str(i), *requests[n_held_out + i]))
        held_out = Rows(n_held_out, lambda i: router_row(str(i), *requests[i]))
    else:
        from vision_reasoner.training.tiny.router_requests import random_request

        train = Rows(ENDLESS, lambda i: router_row(str(i), *random_request(Random(f"grpo {settings.seed} {i}"))))
        held_out = Rows(
            settings.eval_n, lambda i: router_row(str(i), *random_request(Random(f"grpo {HELD_OUT_SEED} {i}")))
        )

    def score(rows: Sequence[Row]) -> list[Scores]:
        scores = []
        for row, route in zip(rows, router.route_batch([row["problem"] for row in rows]), strict=True):
            right = float(read_category(route.reply) == row["category"])
            scores.append({"reward": right, f"right/{row['kind']}": right})
        return scores

    return Policy(
        part="router",
        folder=folder,
        model=engine.model,
        processing=engine.tokenizer,
        train=train,
        held_out=held_out,
        rewards=[right_category],
        score=score,
        suppress_tokens=[],
    )


def router_row(id: str, query: str, category: int) -> Row:
    """A request and its category (1 to 4) as TRL takes it."""
    return {"id": id, "kind": str(category), "problem": query, "category": category, "prompt": router_messages(query)}


def right_category(completions: Sequence[Any], category: Sequence[int], **_columns: Any) -> list[float]:
    """TRL's reward function of the router: 1 where the category after #### is the right one.

    >>> right_category([[{"content": "#### 2"}], [{"content": "2"}]], [2, 2])
    [1.0, 0.0]
    """
    return [
        float(read_category(messages[0]["content"]) == right)
        for messages, right in zip(completions, category, strict=True)
    ]


def read_requests(file: Path) -> list[tuple[str, int]]:
    """Requests and their categories from lines of JSON, {"query": ..., "category": 1 to 4}.

    Raises:
        DataError: the file or a line cannot be used.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); give a file of JSON lines") from error
    requests = []
    for number, line in enumerate(lines, start=1):
        record = parse_jsonl_line(line.encode())
        query, category = (None, None) if record is None else (record.get("query"), record.get("category"))
        whole = isinstance(category, int) and not isinstance(category, bool)
        if not isinstance(query, str) or not query.strip() or not whole or category not in CATEGORY_NAMES:
            raise DataError(f'{file}: line {number} is not {{"query": "...", "category": 1 to 4}}; correct it')
        requests.append((query, category))
    if len(requests) < 10:
        raise DataError(f"{file}: {len(requests)} requests are too few to train on and evaluate")
    return requests
