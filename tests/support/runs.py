"""Runs for tests, as the runner leaves them, without a model: a small data set, and answers made up by a function."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from evaluation.runner.ranking import annotations_of
from evaluation.runner.records import INSTANCES, PLACES, SAMPLES, begin, write_json
from evaluation.runner.samples import Sample, Samples
from evaluation.runner.schema import Manifest
from evaluation.runner.workers import record_of
from evaluation.suites import SUITES
from vision_reasoner.data.sources import open_source
from vision_reasoner.files import append_jsonl
from vision_reasoner.geometry import Box, Point
from vision_reasoner.masks import Mask, decode_mask, encode_mask
from vision_reasoner.results import Instance, Prediction, Status, Task

SIZE = (96, 64)  # (width, height) of every image
Answer = Callable[[Sample], Prediction | Exception]


def disc(i: int) -> Mask:
    """The target of sample i: a disc, every time elsewhere; nothing for every fifth."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return ((x - 20 - (7 * i) % 50) ** 2 + (y - 30) ** 2 < 15**2) & (i % 5 != 4)


def make_data(folder: Path, suite: str, n: int = 10) -> Path:
    """A data set of `n` rows in JSON lines with images beside it; two rows share an image."""
    folder.mkdir(parents=True)
    lines = []
    for i in range(n):
        mask = disc(i)
        pixels = np.full((SIZE[1], SIZE[0], 3), (40, 70 + i, 160), dtype=np.uint8)
        pixels[mask] = (250, 200, 40)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        box = [int(v) for v in Image.fromarray(mask).getbbox() or (5, 5, 20, 20)]
        request = {"vqa": "question"}.get(suite, "text")
        row: dict[str, Any] = {"image": f"{i}.png", request: f"sample {i} of them", "image_id": f"p{i}", "ann_id": "1"}
        truths: dict[str, dict[str, Any]] = {
            "segmentation": {"mask": encode_mask(mask)},
            "detection": {"bbox": [box], "cat_id": 1 + i % 2},
            "counting": {"count": i % 4},
            "vqa": {"answers": [f"answer {i}"]},
        }
        lines.append(row | truths[suite])
    lines[1] |= {"image": "0.png", "image_id": "p0", "ann_id": "2"}
    if suite == "segmentation":
        lines[1]["mask"] = encode_mask(disc(0))
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "test.jsonl"


def right(sample: Sample, **changes: Any) -> Prediction:
    """The true answer, with other values for what is named."""
    truth, instances, answer = sample.truth, [], None
    if "mask" in truth:
        task = Task.SEGMENTATION
        mask = decode_mask(truth["mask"])
        if box := Image.fromarray(mask).getbbox():
            instances = [Instance(Box(*box), Point(*_inside(mask)), mask, 0.9)]
    elif "boxes" in truth:
        task = Task.DETECTION
        instances = [Instance(Box(*box), likelihood=-0.1 * sample.index) for box in truth["boxes"]]
    elif "count" in truth:
        task = Task.COUNTING
        instances = [Instance(Box(8 * k, 4, 8 * k + 6, 20), Point(8 * k + 3, 10)) for k in range(truth["count"])]
    else:
        task, answer = Task.VQA, truth["answers"][0]
    values: dict[str, Any] = {
        "thinking": f"I look at image {sample.index}.",
        "reply": f"<think>I look at image {sample.index}.</think><answer>…</answer>",
        "status": Status.OK if instances or answer else Status.NONE,
        "instances": instances,
        "answer": answer,
        "timings": {"prefill": 0.1, "decode": 0.2 + 0.01 * sample.index},
    }
    return Prediction(SIZE, sample.query, task, **{**values, **changes})


def _inside(mask: Mask) -> tuple[int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns[len(columns) // 2]), int(rows[len(rows) // 2])


def manifest_of(samples: Samples, **changes: Any) -> Manifest:
    """The manifest of a run on all samples, with other values for what is named."""
    source = samples.source
    manifest = {
        "suite": samples.suite.name,
        "n": source.n,
        "data": {
            "name": "toys",
            "split": "test",
            "fingerprint": source.fingerprint,
            "rows": source.n,
            "columns": samples.columns,
            "annotations": None,
        },
        "checkpoint": {"reasoner": {"name": "Toy", "digest": "0" * 64}},
        "model": "vision_reasoner",
        "prompt": "0" * 64,
        "settings": {"compat": "none", "device": "cpu", "dtype": "float32"},
        "versions": {"torch": "2.15.0"},
        PLACES: {"data": source.path, "config": None},
        **changes,
    }
    return cast("Manifest", manifest)


def write_run(folder: Path, suite_name: str, data: Path, answer: Answer = right, **manifest: Any) -> Path:
    """The folder of a finished run on a data set, without metrics.json and report.html."""
    suite, source = SUITES[suite_name], open_source(data)
    samples = Samples(suite, source)
    folder.mkdir(parents=True)
    begin(folder, manifest_of(samples, **manifest))
    if suite.ranked:
        write_json(folder / INSTANCES, annotations_of(samples).to_json())
    order = sorted(range(source.n), key=lambda i: -i)  # as batches by length do, not as in the data set
    with (folder / SAMPLES).open("ab") as lines:
        append_jsonl(lines, [record_of(samples[i], suite.task, answer(samples[i])) for i in order])
    return folder
