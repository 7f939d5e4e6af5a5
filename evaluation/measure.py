"""What a bundle can do on scenes it never saw: the table of the model card, through the public `VisionReasoner`.

    python -m evaluation.measure --n 500                     # the bundled checkpoint
    python -m evaluation.measure --n 500 --split unseen_style
    python -m evaluation.measure --output before.jsonl
    python -m evaluation.measure --model_path runs/mine --against before.jsonl   # what was gained, scene by scene

Scenes come from seeds that training does not use, requests from the held-out wordings. Figures and their 95 % intervals
are those of `metrics`, means over scenes; a difference is the mean of the scenes' differences. Needs the `train` extra
and the drawings.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.metrics import boxes, segmentation, text
from evaluation.metrics.bootstrap import interval
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import DataError
from vision_reasoner.files import add_lines, parse_line
from vision_reasoner.geometry import Box
from vision_reasoner.masks import Mask
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.router import read_category
from vision_reasoner.results import Prediction, Task
from vision_reasoner.scenes import requests as asking
from vision_reasoner.scenes.art import SPLITS, load_sprites
from vision_reasoner.scenes.requests import Maker, Request, View
from vision_reasoner.scenes.scene import Scene, random_scene

Figure = dict[str, Any]
"""A line of the table: what it is of (see `what`), "mean", "low" and "high", and the scenes' "values"."""

SEED = 9_100_000_000  # far from every stage's

REFERRING: tuple[Maker, ...] = (
    asking.by_colour,
    asking.by_size,
    asking.by_place,
    asking.by_relation,
    asking.by_between,
    asking.by_several,
    asking.by_purpose,
)
QUESTIONS: tuple[Maker, ...] = (
    asking.ask_name,
    asking.ask_colour,
    asking.ask_there,
    asking.ask_what,
    asking.ask_side,
)


@dataclass(frozen=True)
class Row:
    """One line of the table: which requests, and from a prediction to its scores."""

    name: str
    makers: tuple[Maker, ...]
    kinds: tuple[str, ...]
    score: Callable[[Scene, Request, Prediction], dict[str, float]]


@dataclass(frozen=True)
class Asked:
    """A scene with one request, made for one row."""

    scene: Scene
    request: Request


def truth_boxes(scene: Scene, request: Request) -> list[Box]:
    """Boxes of the targets."""
    return [scene.objects[i].box for i in request.targets]


def truth_mask(scene: Scene, request: Request) -> Mask:
    """The union of the targets' masks, (H, W) bool."""
    mask = np.zeros(scene.picture.shape[:2], bool)
    for i in request.targets:
        mask |= scene.objects[i].mask
    return mask


def score_count(_scene: Scene, request: Request, found: Prediction) -> dict[str, float]:
    """Whether the count is exact."""
    return {"exact": float(found.count == len(request.targets))}


def score_boxes(scene: Scene, request: Request, found: Prediction) -> dict[str, float]:
    """Whether the first box hits a target, and F1 of all under one-to-one matching; both at IoU 0.5."""
    wanted, given = truth_boxes(scene, request), [i.box for i in found.instances]
    sums = np.array([len(boxes.match_boxes(given, wanted)), len(given), len(wanted)])
    return {"acc": float(boxes.first_box_hit(given, wanted)), "f1": float(boxes.f1(sums))}


def score_mask(scene: Scene, request: Request, found: Prediction) -> dict[str, float]:
    """Intersection over union with the targets' union."""
    given = [] if found.mask is None else [found.mask]
    return {"giou": segmentation.score(given, [truth_mask(scene, request)])["iou"]}


def score_none(_scene: Scene, _request: Request, found: Prediction) -> dict[str, float]:
    """Whether nothing was answered with an empty list."""
    return {"empty": float(found.status == "none")}


def score_answer(_scene: Scene, request: Request, found: Prediction) -> dict[str, float]:
    """Exact match, but for case and a full stop."""
    assert request.answer is not None
    return {"exact": text.exact_match(found.answer or "", [request.answer.text])}


ROWS = (
    Row("counting", (asking.counting,), ("count",), score_count),
    Row("detection by name", (asking.by_name,), ("name",), score_boxes),
    Row(
        "referring and reasoning segmentation",
        REFERRING,
        ("colour", "size", "place", "relation", "several", "purpose"),
        score_mask,
    ),
    Row("purpose alone", (asking.by_purpose,), ("purpose",), score_mask),
    Row("nothing there", (asking.absent,), ("absent",), score_none),
    Row("questions", QUESTIONS, ("vqa_sign", "vqa_colour", "vqa_there", "vqa_what", "vqa_side"), score_answer),
    Row("sign reading alone", (asking.ask_name,), ("vqa_sign",), score_answer),
)


def make_requests(row: Row, n: int, split: str, seed: int = SEED, pixels: int = 640 * 480) -> Iterable[Asked]:
    """`n` scenes of a row, 1 to 12 objects, a request each, wordings held out."""
    sprites = load_sprites(split)
    made = i = 0
    while made < n:
        rng = random.Random(seed + 1_000_003 * (1 + ROWS.index(row)) + i)
        i += 1
        scene = random_scene(sprites, rng, max_objects=12, pixels=pixels)
        request = rng.choice(row.makers)(View(scene, rng, held_out=True))
        if request is not None and request.kind in row.kinds:
            made += 1
            yield Asked(scene, request)


def figure(row: str, split: str, metric: str, seed: int, values: Sequence[float]) -> Figure:
    """A line of the table: the mean of independent values, and its 95 % interval."""
    mean, low, high = (round(v, 4) for v in interval(values, range(len(values))))
    of = {"row": row, "split": split, "metric": metric, "seed": seed, "n": len(values)}
    return {**of, "mean": mean, "low": low, "high": high, "values": [round(float(v), 4) for v in values]}


def read_figures(file: Path) -> dict[tuple[Any, ...], Figure]:
    """What `--output` wrote, by what it is of.

    Raises:
        DataError: the file cannot be read, is empty, or holds something else.
    """
    try:
        records = [record for record in map(parse_line, file.read_bytes().splitlines()) if record is not None]
        figures = {what(record): record for record in records if len(record["values"]) == record["n"]}
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); give what --output wrote") from error
    except (TypeError, KeyError):
        figures = {}
    if not figures:
        raise DataError(f"{file}: no figures that `python -m evaluation.measure --output` wrote; measure again")
    return figures


def what(f: Figure) -> tuple[Any, ...]:
    """What a figure is of: figures that agree in it were measured on the same scenes."""
    return tuple(f[name] for name in ("row", "split", "metric", "seed", "n"))


def difference(before: Figure, after: Figure) -> str:
    """The mean gain of a scene with its 95 % interval."""
    gains = np.subtract(after["values"], before["values"])
    mean, low, high = interval(gains, range(len(gains)))
    return f"{mean:+.3f} ({low:+.3f} – {high:+.3f})"


def measure(model: VisionReasoner, row: Row, n: int, split: str, seed: int, batch_size: int) -> list[Figure]:
    """The figures of one row."""
    scores: dict[str, list[float]] = {}
    batch: list[Asked] = []
    bar = tqdm(total=n, desc=row.name)
    for k, asked in enumerate(make_requests(row, n, split, seed), 1):
        batch.append(asked)
        if len(batch) == batch_size or k == n:
            pairs = [(Image.fromarray(a.scene.picture), a.request.query) for a in batch]
            found = model.predict_batch(pairs, task=[_task_for(row, a.request) for a in batch])
            for a, prediction in zip(batch, found, strict=True):
                for name, value in row.score(a.scene, a.request, prediction).items():
                    scores.setdefault(name, []).append(value)
            bar.update(len(batch))
            batch = []
    bar.close()
    return [figure(row.name, split, name, seed, values) for name, values in scores.items()]


def _task_for(row: Row, request: Request) -> Task:
    """Masks are made only where they are scored."""
    if row.score is score_mask:
        return Task.SEGMENTATION
    return Task.DETECTION if request.task is Task.SEGMENTATION else request.task


def segmenter_given_truth(model: VisionReasoner, n: int, split: str, seed: int) -> Figure:
    """Mean mask IoU per object where the segmenter is given the true boxes and points."""
    sprites, values = load_sprites(split), []
    for i in tqdm(range(n), desc="segmenter"):
        scene = random_scene(sprites, random.Random(seed - i), max_objects=12)
        features = model.segmenter.encode(Image.fromarray(scene.picture))
        prompts = [o.box for o in scene.objects]
        masks = [m for m, _ in model.segmenter.masks(features, prompts, [o.point for o in scene.objects])]
        found = zip(masks, scene.objects, strict=True)
        values.append(float(np.mean([segmentation.score([m], [o.mask])["iou"] for m, o in found])))
    return figure("segmenter, true boxes and points", split, "iou", seed, values)


def router_alone(model: VisionReasoner, n: int, split: str, seed: int) -> Figure:
    """The share of requests that the router gives the right category."""
    from vision_reasoner.training.tiny.router import CATEGORY_OF, held_out_requests

    asked = held_out_requests(n, seed)
    routes = model.router.route_batch([request.query for request in asked])
    right = [read_category(route.reply) == CATEGORY_OF[r.task] for route, r in zip(routes, asked, strict=True)]
    return figure("router, held-out wordings", split, "right", seed, right)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.measure", __doc__)
    add = parser.add_argument
    add("--model_path", help="folder with reasoner, router and segmenter; default: as of inference.py")
    add("--n", type=int, default=500, help="scenes per row (%(default)s)")
    add(
        "--split",
        choices=SPLITS,
        default="train",
        help="drawings: those that the supervised stages saw, those for reinforcement learning, others of the first "
        "styles, or another style; default: %(default)s",
    )
    add("--rows", nargs="*", choices=[r.name for r in ROWS] + ["segmenter", "router"], help="only these rows")
    add("--seed", type=int, default=SEED, help="of the scenes (%(default)s, the model card's)")
    add("--batch_size", type=int, default=16)
    add("--output", type=Path, help="append the figures to this JSONL file")
    add("--against", type=Path, metavar="FILE", help="figures of another checkpoint (--output) to compare with")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    known = {} if arguments.against is None else read_figures(arguments.against)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    model = VisionReasoner.from_pretrained(arguments.model_path, batch_size=arguments.batch_size)
    n, split, seed, wanted = arguments.n, arguments.split, arguments.seed, arguments.rows
    figures: list[Figure] = []

    def keep(found: list[Figure]) -> None:
        figures.extend(found)
        if arguments.output:
            with arguments.output.open("ab") as stream:
                add_lines(stream, found)

    for row in ROWS:
        if not wanted or row.name in wanted:
            keep(measure(model, row, n, split, seed, arguments.batch_size))
    for name, part in (("segmenter", segmenter_given_truth), ("router", router_alone)):
        if not wanted or name in wanted:
            keep([part(model, n, split, seed)])
    table = [["", "n", "mean", "95 % interval"], ["---"] * 4]
    for f in figures:
        table.append(
            [f"{f['row']}, {f['metric']}", f"{f['n']}", f"{f['mean']:.3f}", f"{f['low']:.3f} – {f['high']:.3f}"]
        )
    if known:
        gains = [difference(known[what(f)], f) if what(f) in known else "not in --against" for f in figures]
        table = [[*cells, last] for cells, last in zip(table, ["gained (95 %)", "---", *gains], strict=True)]
    for cells in table:
        print("|", " | ".join(cells), "|")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit codes as of the library's command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
