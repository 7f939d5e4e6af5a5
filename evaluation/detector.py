"""What a small detector learns from the same rows in the same minutes: something to compare a fine-tuned reasoner with.

    python -m evaluation.detector cells/test --data cells/rows --minutes 60 --output cells/detector.jsonl
    python -m evaluation.score --suite detection cells/test --replies cells/detector.jsonl --name detector --by text

It is torchvision's Faster R-CNN with a MobileNetV3 (`fasterrcnn_mobilenet_v3_large_320_fpn`) from random weights, for
the classes that the rows of `vision_reasoner.training.prepare` ask for by name. It learns from views of the pictures
that are mirrored and in another light, all but some pictures that are kept aside. These decide for each class from
which score on a box counts. The data set's requests that name no such class are answered with nothing.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.runner.samples import Sample, Samples
from evaluation.suites import SUITES
from evaluation.truth import stored_image
from vision_reasoner.cli import is_quiet, make_parser, run_command
from vision_reasoner.data.rows import check_row, check_single_classes, load_rows
from vision_reasoner.data.solutions import read_solution
from vision_reasoner.data.sources import open_source
from vision_reasoner.data.tables import encoded
from vision_reasoner.errors import DataError, UsageError, VisionReasonerError, one_line
from vision_reasoner.files import atomic_write, check_writable
from vision_reasoner.images import load_image
from vision_reasoner.matching import f1_score, match_boxes
from vision_reasoner.models.devices import denormals_flushed
from vision_reasoner.models.engine import frame_image
from vision_reasoner.prompts import normalize_query

ARCHITECTURE = "fasterrcnn_mobilenet_v3_large_320_fpn"
MOST_BOXES = 100  # in a picture
ASIDE = 20  # pictures at most, a tenth of them at most: for the scores from which on boxes count
WARMUP_STEPS = 50
DECAY_SHARE = 0.6  # of the time: the learning rate falls linearly in this last part of it
LIGHT = (0.75, 1.3), (-0.1, 0.1)  # contrast, brightness
BAR = "{l_bar}{bar}| {n:.1f}/{total} min {postfix}"
THRESHOLDS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Picture:
    """A square image with its boxes, pixel edges in xyxy, and for each the number of its class from 1 on."""

    image: Image.Image
    boxes: list[list[float]]
    labels: list[int]


Found = dict[int, list[tuple[float, list[float]]]]
"""By class, the score and the box of each object."""


def read_pictures(source: str) -> tuple[list[Picture], list[str]]:
    """The pictures of rows, and the names of the classes that they ask for, of which the first has number 1.

    Raises:
        DataError: it is no table of rows in one frame, or one asks for several classes at once.
    """
    pictures: dict[bytes | Path, Picture] = {}
    names: dict[str, int] = {}
    ids: dict[str, str] = {}
    sides: set[int] = set()
    for row in encoded(load_rows(source)):
        sides.add(check_row(row))
        if len(sides) > 1:
            raise DataError(f"{source}: row {row['id']!r} is in another frame than the rows before; prepare them alike")
        stored = stored_image(row, "image")
        name = normalize_query(row["problem"]).strip()
        ids.setdefault(name, row["id"])
        key = hashlib.sha256(stored).digest() if isinstance(stored, bytes) else stored
        if key not in pictures:
            pictures[key] = Picture(load_image(stored), [], [])
        picture, label = pictures[key], names.setdefault(name, len(names) + 1)
        for x1, y1, x2, y2 in read_solution(row["solution"], model_size=picture.image.size).boxes.tolist():
            picture.boxes.append([x1, y1, x2 + 1, y2 + 1])
            picture.labels.append(label)
    check_single_classes(ids)
    return list(pictures.values()), list(names)


class Detector:
    """The detector and its training."""

    def __init__(self, n_classes: int, frame_side: int, lr: float, seed: int) -> None:
        import torch
        from torchvision.models import detection

        torch.manual_seed(seed)
        self.random, self.side = Random(seed), frame_side
        make = getattr(detection, ARCHITECTURE)
        self.model = make(
            weights=None, weights_backbone=None, num_classes=n_classes + 1, box_detections_per_img=MOST_BOXES
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=1e-4)
        self.lr, self.thresholds = lr, dict.fromkeys(range(1, n_classes + 1), 0.5)

    def train(self, pictures: Sequence[Picture], minutes: float, batch_size: int) -> int:
        """Train for some minutes of the clock; returns the number of steps."""
        start, step = time.monotonic(), 0
        with denormals_flushed(), tqdm(total=round(minutes, 1), unit="min", bar_format=BAR, disable=is_quiet()) as bar:
            while (spent := (time.monotonic() - start) / 60 / minutes) < 1:
                scale = min(1, (step + 1) / WARMUP_STEPS, (1 - spent) / DECAY_SHARE)
                loss = self._step(pictures, batch_size, scale)
                step += 1
                bar.n = round(spent * minutes, 1)
                bar.set_postfix_str(f"step {step}, loss {loss:.3f}")
        self.model.eval()
        return step

    def _step(self, pictures: Sequence[Picture], batch_size: int, scale: float) -> float:
        """One step with `scale` times the learning rate; returns the loss."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * scale
        views = [self.view(p) for p in self.random.sample(pictures, min(batch_size, len(pictures)))]
        loss = sum(self.model([view for view, _ in views], [target for _, target in views]).values())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        return float(loss)

    def view(self, picture: Picture) -> tuple[Any, dict[str, Any]]:
        """A picture mirrored and in another light, and its target."""
        import torch

        pixels = np.asarray(picture.image, np.float32) / 255
        boxes = np.array(picture.boxes, np.float32).reshape(-1, 4)
        for axis in (0, 1):
            if self.random.random() < 0.5:
                pixels = np.flip(pixels, 1 - axis)
                boxes[:, [axis, axis + 2]] = self.side - boxes[:, [axis + 2, axis]]
        pixels = np.clip((pixels - 0.5) * self.random.uniform(*LIGHT[0]) + 0.5 + self.random.uniform(*LIGHT[1]), 0, 1)
        labels = torch.tensor(picture.labels, dtype=torch.int64)
        return _tensor(pixels), {"boxes": torch.from_numpy(boxes), "labels": labels}

    def find(self, image: Image.Image) -> Found:
        """All objects of a square image in the frame, whatever their score."""
        import torch

        with torch.inference_mode():
            output = self.model([_tensor(np.asarray(image, np.float32) / 255)])[0]
        found: Found = {label: [] for label in self.thresholds}
        for box, label, score in zip(*(output[name].tolist() for name in ("boxes", "labels", "scores")), strict=True):
            found[label].append((score, box))
        return found

    def choose_thresholds(self, pictures: Sequence[Picture]) -> None:
        """Set the score from which on a box counts, for each class the one with the highest F1 on some pictures.

        A class that none of them has, or whose boxes are all wrong, keeps the one it has.
        """
        found = [self.find(picture.image) for picture in pictures]

        def f1(label: int, threshold: float) -> float:
            sums = np.zeros(3, int)
            for picture, objects in zip(pictures, found, strict=True):
                boxes = [box for score, box in objects[label] if score >= threshold]
                true = [box for box, of in zip(picture.boxes, picture.labels, strict=True) if of == label]
                sums += (len(match_boxes(boxes, true)), len(boxes), len(true))
            return float(np.nan_to_num(f1_score(*sums)))

        for label in self.thresholds:
            best = float(max(THRESHOLDS, key=lambda threshold: f1(label, threshold)))
            if f1(label, best):
                self.thresholds[label] = best

    def answer(self, image: Image.Image, label: int) -> list[dict[str, Any]]:
        """The objects of a class in an image of any size, as `evaluation.score` reads them."""
        found = self.find(frame_image(image, (self.side, self.side)))[label]
        scale = np.array([image.width, image.height] * 2) / self.side
        boxes = [(score, np.round(box * scale).astype(int)) for score, box in found if score >= self.thresholds[label]]
        return [
            {"box": box.tolist(), "likelihood": math.log(score)}
            for score, box in boxes
            if box[0] < box[2] and box[1] < box[3]
        ]


def reply(detector: Detector, sample: Sample, labels: Mapping[str, int]) -> dict[str, Any]:
    """What the detector says of a sample, as `evaluation.score` reads it; of one that cannot be used, why."""
    label = labels.get(normalize_query(sample.query).strip())
    try:
        if sample.problem is not None:
            raise DataError(sample.problem)
        return {"id": sample.id, "instances": [] if label is None else detector.answer(load_image(sample.image), label)}
    except VisionReasonerError as error:
        return {"id": sample.id, "error": one_line(error)}


def _tensor(pixels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.detector", __doc__)
    add = parser.add_argument
    add("dataset", help="detection set to answer, as `evaluation.prepare` makes it")
    add(
        "--data",
        required=True,
        metavar="PATH",
        help="rows to train on: `vision_reasoner.training.prepare --group_share 0`",
    )
    add("--output", type=Path, required=True, metavar="FILE", help="JSON lines of replies for `evaluation.score`")
    add("--minutes", type=float, default=60.0, help="of training; default: %(default)s")
    add("--lr", type=float, default=5e-4, help="learning rate at its peak; default: %(default)s")
    add("--batch_size", type=int, default=4, metavar="N", help="pictures in a step; default: %(default)s")
    add("--seed", type=int, default=1, help="of weights, order and views; default: %(default)s")
    add("--threads", type=int, default=0, metavar="N", help="processor cores to use; default: all")
    return parser


def run(settings: argparse.Namespace) -> int:
    """Train and answer."""
    if not (settings.minutes > 0 and settings.batch_size > 0 and settings.lr > 0):
        raise UsageError("--minutes, --batch_size and --lr must be more than 0")
    check_writable(settings.output)
    import torch

    if settings.threads:
        torch.set_num_threads(settings.threads)
    pictures, names = read_pictures(settings.data)
    samples = Samples(SUITES["detection"], open_source(settings.dataset))
    Random(settings.seed).shuffle(pictures)
    n_aside = min(ASIDE, len(pictures) // 10)
    if not n_aside:
        raise DataError(f"{settings.data}: {len(pictures)} pictures are too few to keep some aside; ten are needed")
    detector = Detector(len(names), pictures[0].image.width, settings.lr, settings.seed)
    steps = detector.train(pictures[n_aside:], settings.minutes, settings.batch_size)
    detector.choose_thresholds(pictures[:n_aside])
    labels = {name: label for label, name in enumerate(names, 1)}
    lines = [json.dumps(reply(detector, samples[i], labels)) for i in range(samples.source.n)]
    atomic_write(settings.output, lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    chosen = ", ".join(f"{name} {detector.thresholds[label]:.2f}" for name, label in labels.items())
    print(f"{steps} steps; a box counts from these scores on: {chosen}")
    print(f"written: {settings.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit codes as of the library's command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
