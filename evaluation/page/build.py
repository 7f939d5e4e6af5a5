"""report.html: a run as one page that needs no network, with its figures, distributions and images.

What is shown is gathered here into one JSON value; how it looks and behaves is all in page.html, which draws itself
from that value. Texts of data sets and models are only ever data there: no `<` of theirs reaches the file as such, the
page sets them as text nodes, and its policy lets no script run but its own.
"""

import base64
import hashlib
import io
import json
import logging
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from evaluation.page.confidence import confidence_plots
from evaluation.runner.records import METRICS, PAGE, PLACES, read_json, read_manifest, read_records
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Manifest, Metrics, Record
from evaluation.suite import Scores, Suite, found_count, scores_of
from evaluation.suites import suite_of
from vision_reasoner.data.sources import IMAGE_COLUMNS, open_source
from vision_reasoner.errors import DataError, ImageError
from vision_reasoner.files import atomic_write
from vision_reasoner.images import load_image
from vision_reasoner.masks import Mask, RunLengths, decode_mask, encode_mask
from vision_reasoner.results import Status

logger = logging.getLogger(__name__)

ImageOf = Callable[[int], Image.Image | None]
"""From a sample's number to its image, None where there is none."""

TEMPLATE = Path(__file__).with_name("page.html")
IN_GALLERY = 2000  # images; of more samples some are left out, for a browser has to hold the page
ALL_PIXELS = 90_000_000  # of all thumbnails together: some 15 MB of page for photographs
MOST_PIXELS, LEAST_PIXELS = 160_000, 30_000  # of one: 460x345 and 200x150
MAX_WEBP_SIDE = 16_383  # pixels
MASK_SIDE = 384  # the longer side of the masks that are drawn over thumbnails
COUNTS = 12  # the last row and column of the count confusion are this many and more
STATUSES = (*(str(status) for status in Status), "error")


def write_page(folder: Path, out: Path | None = None, *, most: int = IN_GALLERY) -> Path:
    """Write a run's page. Its images are left out where the data set is no longer there, or has changed.

    Args:
        folder: of a finished run, with its metrics.json.
        out: the file to write; report.html in the folder by default.
        most: how many samples the gallery holds.

    Returns:
        The file.

    Raises:
        DataError: a file of the run is missing or damaged.
        UsageError: the page cannot be written.
    """
    manifest, metrics = read_manifest(folder), cast("Metrics", read_json(folder / METRICS))
    records = sorted(read_records(folder), key=lambda record: record["index"])
    suite = suite_of(manifest)
    scores = [None if record["error"] is not None else scores_of(suite, record) for record in records]
    remarks = []
    try:
        image_of = _open_images(manifest)
    except DataError as error:
        remarks.append(f"The images are left out: {error}")
        logger.warning("%s: the page has no images (%s)", folder, error)
        image_of = None
    data = page_data(manifest, metrics, records, scores, image_of, remarks=remarks, most=most)
    text = render(data)
    out = folder / PAGE if out is None else out
    atomic_write(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def _open_images(manifest: Manifest) -> ImageOf:
    """The images of the run's data set, from where it was; without a network.

    Raises:
        DataError: it is not there, or not the same any more.
    """
    data, places = manifest["data"], manifest[PLACES]
    suite = suite_of(manifest).with_columns(data["columns"])
    names = [suite.column(name) for name in IMAGE_COLUMNS]
    source = open_source(
        places["data"], split=data["split"], config=places["config"], image_columns=names, offline=True
    )
    if source.fingerprint != data["fingerprint"]:
        raise DataError(f"{places['data']}: has changed since the run")
    samples = Samples(suite, source)

    def image_of(index: int) -> Image.Image | None:
        sample = samples[index]
        try:
            return load_image(sample.image) if sample.image else None
        except ImageError:  # it stands in the sample's record
            return None

    return image_of


def render(data: Mapping[str, Any]) -> str:
    """The page with its data inside, as text of ASCII and the template's own characters."""
    template = TEMPLATE.read_text(encoding="utf-8")
    style, script = (
        re.search(f"<{tag}>(.*?)</{tag}>", template, re.S).group(1)  # type: ignore[union-attr]  # both are there
        for tag in ("style", "script")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # "<" inside strings is the only thing that could end the block or open a comment in it.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return template.replace("%POLICY%", policy).replace("%DATA%", text)


def _digest(text: str) -> str:
    """What a content security policy calls a script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --- the page's data --------------------------------------------------------------------------------------------------
def page_data(
    manifest: Manifest,
    metrics: Metrics,
    records: Sequence[Record],
    scores: Sequence[Scores | None],
    image_of: ImageOf | None,
    *,
    remarks: Sequence[str] = (),
    most: int = IN_GALLERY,
) -> dict[str, Any]:
    """All that the page shows, as plain values.

    Args:
        manifest: manifest.json.
        metrics: metrics.json.
        records: in the order of the data set.
        scores: of each record, None for one with an error.
        image_of: asked once for each image id; None where there are none.
        remarks: what the reader should know about the page.
        most: how many samples the gallery holds.
    """
    suite = suite_of(manifest)
    samples = [_sample(suite, record, found) for record, found in zip(records, scores, strict=True)]
    kept = _choose(samples, most)
    remarks = [*metrics.get("notes", []), *remarks]
    if len(kept) < len(samples):
        remarks.append(
            f"The gallery has {len(kept):,} of the {len(samples):,} samples: the worst half of that number, "
            "and of the others every so many. Figures and distributions are of all."
        )
    pixels = min(MOST_PIXELS, max(LEAST_PIXELS, ALL_PIXELS // max(1, len(kept))))
    thumbnails: list[str] = []
    numbers: dict[str, int | None] = {}
    for i in kept:
        image_id = records[i]["image_id"]
        if image_id not in numbers:
            image = image_of(records[i]["index"]) if image_of else None
            numbers[image_id] = None if image is None else len(thumbnails)
            thumbnails += [] if image is None else [thumbnail(image, pixels)]
        samples[i] |= {"picture": numbers[image_id], **_masks(records[i])}
    return {
        "suite": metrics["suite"],
        "dataset": metrics["data"]["name"],
        "model": metrics["checkpoint"]["reasoner"]["name"],
        "facts": _facts(manifest),
        "n": metrics["n"],
        "errors": metrics["errors"],
        "figures": [
            {**figure, "published": sorted((figure.get("published") or {}).items(), key=lambda one: -one[1])}
            for figure in metrics["figures"]
        ],
        "interval": metrics["interval"],
        "remarks": remarks,
        "plots": [*_plots(samples), *confidence_plots(records)],
        "samples": [samples[i] for i in kept],
        "pictures": thumbnails,
    }


def _facts(manifest: Manifest) -> list[tuple[str, list[tuple[str, str]]]]:
    """The manifest as titled lists of names and values; without the places, which are somebody's machine."""
    data = manifest["data"]
    renamed = {field: column for field, column in data["columns"].items() if field != column}
    groups: dict[str, Mapping[str, Any]] = {
        "data": {
            "name": data["name"],
            "split": data["split"],
            "samples": f"{manifest['n']} of {data['rows']}",
            "fingerprint": data["fingerprint"],
            "annotations": data["annotations"],
            "columns": ", ".join(f"{field}={column}" for field, column in renamed.items()) or None,
        },
        "checkpoint": {
            name: value
            for part, one in manifest["checkpoint"].items()
            for name, value in (
                (part, one["name"]),
                (f"{part} digest", one.get("digest")),
                (f"{part} served as", one.get("served_as")),
                (f"{part} replies", one.get("replies")),
            )
            if value is not None
        },
        "settings": {
            "model": manifest["model"],
            "prompt": manifest["prompt"],
            **manifest["settings"],
            "batch size": ", ".join(map(str, manifest.get("batch_sizes", []))) or None,
        },
        "versions": manifest["versions"],
    }
    return [
        (title, [(name, str(value)) for name, value in values.items() if value is not None])
        for title, values in groups.items()
    ]


def thumbnail(image: Image.Image, pixels: int) -> str:
    """The image with at most `pixels` pixels, as a data URI."""
    factor = min(1.0, math.sqrt(pixels / (image.width * image.height)), MAX_WEBP_SIDE / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=60, method=2)  # of the methods, 2 is three times as fast as 4 and 5 % larger
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def small_mask(mask: Mask) -> RunLengths | None:
    """An (H, W) bool mask as COCO run lengths of at most MASK_SIDE pixels a side; None where it is empty.

    What covers a quarter of a small pixel counts, so that thin objects do not fall through.
    """
    if not mask.any():
        return None
    height, width = mask.shape
    factor = min(1.0, MASK_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    covered = Image.fromarray(np.multiply(mask, 255, dtype=np.uint8)).resize(size, Image.Resampling.BOX)
    return encode_mask(np.asarray(covered) >= 64)


def _choose(samples: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Which samples the gallery holds, in order: all, or the worst `most` / 2 and an even choice of the others."""
    if len(samples) <= most:
        return list(range(len(samples)))
    ranked = sorted(
        range(len(samples)), key=lambda i: (-1.0 if samples[i]["quality"] is None else samples[i]["quality"], i)
    )
    worst, others = ranked[: most // 2], ranked[most // 2 :]
    wanted = most - len(worst)
    return sorted([*worst, *(others[k * len(others) // wanted] for k in range(wanted))])


def _sample(suite: Suite, record: Record, scores: Scores | None) -> dict[str, Any]:
    """What the gallery shows of a record, but for its image and masks."""
    truth = record.get("truth", {})
    instances = record.get("instances", [])
    timings = record.get("timings", {})
    name, quality, score = ("", None, "–") if scores is None else suite.headline(record, scores)
    true_boxes = truth.get("boxes", [])
    only_boxes = scores is not None and "boxes" in truth and "mask" not in truth
    unread = scores is None or scores.get("counted") == 0
    return {
        "index": record["index"],
        "id": record["id"],
        "query": record["query"],
        "size": record["size"] if min(record["size"]) > 0 else [4, 3],  # of an image that could not be read
        "status": "error" if record["error"] else record["status"],
        "error": record["error"],
        "warnings": record.get("warnings", []),
        "thinking": record.get("thinking", ""),
        "reply": record.get("reply", ""),
        "answer": record.get("answer"),
        "answers": [str(answer) for answer in truth.get("answers", [])],
        "count": None if unread else found_count(record),
        "true_count": len(true_boxes) if only_boxes else truth.get("count"),
        "boxes": [instance["box"] for instance in instances],
        "points": [instance["point"] for instance in instances if instance["point"] is not None],
        "true_boxes": true_boxes,
        "measure": name,
        "quality": quality,
        "score": score,
        "scores": {name: round(value, 4) for name, value in (scores or {}).items() if math.isfinite(value)},
        "seconds": round(sum(timings.values()), 3) if timings else None,
        "timings": {stage: round(seconds, 3) for stage, seconds in timings.items()},
    }


def _masks(record: Record) -> dict[str, Any]:
    """The masks to draw: the true one, what is left out of it, and the union of those found."""
    truth = record.get("truth", {})
    found = [decode_mask(instance["mask"]) for instance in record.get("instances", []) if instance["mask"]]
    true, ignored = (truth.get(name) for name in ("mask", "ignore"))
    return {
        "mask": small_mask(np.logical_or.reduce(found)) if found else None,
        "true_mask": small_mask(decode_mask(true)) if true else None,
        "ignore": small_mask(decode_mask(ignored)) if ignored else None,
    }


# --- distributions ----------------------------------------------------------------------------------------------------
def _plots(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The distributions, of all samples; those of scores are of the samples without an error."""
    scored = [sample for sample in samples if sample["status"] != "error"]
    plots = []
    counting = any("upstream_exact" in sample["scores"] for sample in scored)
    counted = [(sample["true_count"], sample["count"]) for sample in scored if sample["count"] is not None]
    if counting and counted:
        plots.append(_confusion(counted))
    elif any(sample["scores"] for sample in scored) and not counting:
        plots.append(_qualities(scored))
    counts = [sum(sample["status"] == status for sample in samples) for status in STATUSES]
    present = [(status, n) for status, n in zip(STATUSES, counts, strict=True) if n or status == "ok"]
    plots.append(
        {
            "kind": "statuses",
            "title": "Replies",
            "note": f"{sum(n for status, n in present if status in ('ok', 'none')):,} of {len(samples):,} "
            "are complete and well-formed.",
            "names": [status for status, _ in present],
            "counts": [n for _, n in present],
            "total": max(1, len(samples)),
        }
    )
    timed = [sample for sample in scored if sample["seconds"] is not None]
    if timed:
        plots.append(_seconds(timed))
    return plots


def _histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values are in each bin: the lower edge belongs to it, what lies beyond the last is in the last."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(bins, minlength=len(edges) - 1).tolist()


def _qualities(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [sample["quality"] for sample in scored]
    edges = [i / 10 for i in range(11)]
    below = sum(value < 0.5 for value in values) / len(values)
    return {
        "kind": "histogram",
        "key": "quality",
        "title": scored[0]["measure"],
        "note": f"median {statistics.median(values):.2f}, mean {statistics.fmean(values):.2f}; {below:.0%} below 0.5",
        "edges": edges,
        "counts": _histogram(values, edges),
        "digits": 1,
        "open": False,
        "median": statistics.median(values),
    }


def _seconds(timed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [sample["seconds"] for sample in timed]
    median, long = np.percentile(values, [50, 95])
    rough = max(np.percentile(values, 98) / 14, 1e-3)
    scale = 10.0 ** math.floor(math.log10(rough))
    width = next(step * scale for step in (1, 2, 5, 10) if step * scale >= rough)
    n = max(1, math.floor(np.percentile(values, 98) / width) + 1)
    edges = [round(i * width, 6) for i in range(n + 1)]
    more = max(values) >= edges[-1]
    if more:  # the last bin takes all that is slower
        edges.append(round((n + 1) * width, 6))
    stages: dict[str, float] = {}
    for sample in timed:
        for stage, seconds in sample["timings"].items():
            stages[stage] = stages.get(stage, 0.0) + seconds / len(timed)
    by_stage = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
    return {
        "kind": "histogram",
        "key": "seconds",
        "title": "Seconds per sample",
        "note": f"median {median:.2f}, 95 % under {long:.2f}; on average {by_stage}",
        "edges": edges,
        "counts": _histogram(values, edges),
        "digits": max(0, -math.floor(math.log10(width))),
        "open": more,
        "median": float(median),
    }


def _confusion(counts: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """True counts down, predicted ones across."""
    most = max(max(pair) for pair in counts)
    side = min(most, COUNTS) + 1
    cells = np.zeros((side, side), dtype=np.intp)
    np.add.at(cells, tuple(np.minimum(np.array(counts), side - 1).T), 1)
    right = sum(true == predicted for true, predicted in counts)
    less, more = (sum(sign * (predicted - true) > 0 for true, predicted in counts) for sign in (-1, 1))
    return {
        "kind": "matrix",
        "title": "Counts",
        "note": f"{right:,} exact, {less:,} too few, {more:,} too many",
        "cells": cells.tolist(),
        "open": most > COUNTS,
    }
