"""What a checkpoint can do on scenes it never saw: the table of the model card, through the public `predict_batch`.

    python -m vision_reasoner.training.measure --n 500                     # the bundled checkpoint
    python -m vision_reasoner.training.measure --n 500 --split unseen_style

Scenes come from seeds that training does not use, requests from the held-out wordings. Intervals are 95 %, by bootstrap
over pictures.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from vision_reasoner.geometry import Box, pairwise_iou
from vision_reasoner.model import VisionReasoner
from vision_reasoner.results import Mask, Prediction, Task
from vision_reasoner.training import requests as asking
from vision_reasoner.training.art import load_sprites
from vision_reasoner.training.requests import Maker, Request, View
from vision_reasoner.training.scenes import Scene, random_scene

SEED = 9_000_000_000  # far from every stage's

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


@dataclass
class Asked:
    """A scene with one request, made for one row."""

    scene: Scene
    request: Request
    scores: dict[str, float] = field(default_factory=dict)


def truth_boxes(scene: Scene, request: Request) -> list[Box]:
    """Boxes of the targets as edges, for they are kept as inclusive pixels."""
    return [Box(b.x1, b.y1, b.x2 + 1, b.y2 + 1) for b in (scene.objects[i].box for i in request.targets)]


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
    if not wanted or not given:
        return {"acc": float(not wanted and not given), "f1": float(not wanted and not given)}
    hit = pairwise_iou(given, wanted) >= 0.5
    rows, columns = linear_sum_assignment(~hit)
    return {"acc": float(hit[0].any()), "f1": 2 * float(hit[rows, columns].sum()) / (len(wanted) + len(given))}


def score_mask(scene: Scene, request: Request, found: Prediction) -> dict[str, float]:
    """Intersection over union with the targets' union."""
    wanted = truth_mask(scene, request)
    given = np.zeros_like(wanted) if found.mask is None else found.mask
    union = int((wanted | given).sum())
    return {"giou": 1.0 if union == 0 else float((wanted & given).sum() / union)}


def score_none(_scene: Scene, _request: Request, found: Prediction) -> dict[str, float]:
    """Whether nothing was answered with an empty list."""
    return {"empty": float(found.status == "none")}


def score_answer(_scene: Scene, request: Request, found: Prediction) -> dict[str, float]:
    """Exact match, but for case and a full stop."""
    assert request.answer is not None
    given = (found.answer or "").strip().rstrip(".").lower()
    return {"exact": float(given == request.answer.text.lower())}


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


def interval(values: list[float], draws: int = 2000) -> tuple[float, float, float]:
    """Mean and the 95 % bootstrap interval of it."""
    v = np.array(values)
    means = v[np.random.default_rng(0).integers(0, len(v), (draws, len(v)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(v.mean()), float(low), float(high)


def measure(model: VisionReasoner, row: Row, n: int, split: str, batch_size: int) -> list[dict[str, Any]]:
    """The figures of one row."""
    scores: dict[str, list[float]] = {}
    batch: list[Asked] = []
    bar = tqdm(total=n, desc=row.name)
    for k, asked in enumerate(make_requests(row, n, split), 1):
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
    figures = []
    for name, values in scores.items():
        mean, low, high = interval(values)
        figures.append(
            {
                "row": row.name,
                "split": split,
                "metric": name,
                "n": n,
                "mean": round(mean, 4),
                "low": round(low, 4),
                "high": round(high, 4),
            }
        )
    return figures


def _task_for(row: Row, request: Request) -> Task:
    """Masks are made only where they are scored."""
    if row.score is score_mask:
        return Task.SEGMENTATION
    return Task.DETECTION if request.task is Task.SEGMENTATION else request.task


def segmenter_given_truth(model: VisionReasoner, n: int, split: str) -> dict[str, Any]:
    """Mean mask IoU per object where the segmenter is given the true boxes and points."""
    sprites, values = load_sprites(split), []
    for i in tqdm(range(n), desc="segmenter"):
        scene = random_scene(sprites, random.Random(SEED - i), max_objects=12)
        model.segmenter.set_image(Image.fromarray(scene.picture))
        boxes = [(o.box.x1, o.box.y1, o.box.x2 + 1, o.box.y2 + 1) for o in scene.objects]
        masks = [m for m, _ in model.segmenter.iter_masks(boxes, [o.point for o in scene.objects])]
        values.append(
            float(np.mean([(m & o.mask).sum() / (m | o.mask).sum() for m, o in zip(masks, scene.objects, strict=True)]))
        )
    mean, low, high = interval(values)
    return {
        "row": "segmenter, true boxes and points",
        "split": split,
        "metric": "iou",
        "n": n,
        "mean": round(mean, 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", help="folder with reasoner, router and segmenter; the bundled one without it")
    parser.add_argument("--n", type=int, default=500, help="scenes per row (%(default)s)")
    parser.add_argument(
        "--split",
        choices=("train", "held_out", "unseen_style"),
        default="train",
        help="drawings: those trained on, others of the same styles, or another style",
    )
    parser.add_argument("--rows", nargs="*", choices=[r.name for r in ROWS] + ["segmenter"], help="only these rows")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--output", type=Path, help="append the figures to this JSONL file")
    args = parser.parse_args(argv)
    model = VisionReasoner.from_pretrained(args.model_path, batch_size=args.batch_size)
    figures = []
    for row in ROWS:
        if not args.rows or row.name in args.rows:
            figures += measure(model, row, args.n, args.split, args.batch_size)
    if not args.rows or "segmenter" in args.rows:
        figures.append(segmenter_given_truth(model, args.n, args.split))
    print("| | n | mean | 95 % interval |\n| --- | --- | --- | --- |")
    for f in figures:
        print(f"| {f['row']}, {f['metric']} | {f['n']} | {f['mean']:.3f} | {f['low']:.3f} – {f['high']:.3f} |")
    if args.output:
        with args.output.open("a") as file:
            file.writelines(json.dumps(f) + "\n" for f in figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
