"""What the original repository's evaluation leaves, `output_*.json`: no replies, but what was measured of them.

- segmentation: for each row `intersection`, `union` (pixels) and `bbox_iou` (1 where some box hits);
- counting: for each row `pred_count` and `gt_count`;
- detection: an entry for each box that was found (xyxy in pixels), and nothing for a row without any.

They give the figures of the upstream protocol alone; boxes give others, too. What they took for the truth is compared
with the data set's.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from evaluation.metrics import counting
from evaluation.metrics.segmentation import iou, overlap
from evaluation.runner.replies import Given, Numbered, Row
from evaluation.runner.samples import Samples, unique_ids
from evaluation.runner.schema import Truth
from evaluation.suite import Scores
from evaluation.truth import FieldError, count_of, id_of, id_text
from vision_reasoner.errors import DataError
from vision_reasoner.results import Status, Task

logger = logging.getLogger(__name__)

KEYS: Mapping[Task, tuple[str, ...]] = {
    Task.SEGMENTATION: ("intersection", "union", "bbox_iou"),
    Task.COUNTING: ("pred_count", "gt_count"),
    Task.DETECTION: ("category_id", "bbox", "score"),
}
NO_BOX = "there is no box of it in the original's files: nothing was found, or it failed"


def is_measured(row: Row) -> bool:
    """Whether a row is one of the original repository's."""
    return "think" in row and "image_id" in row and any(set(keys) <= row.keys() for keys in KEYS.values())


def measured(rows: Numbered, samples: Samples) -> dict[int, Given]:
    """What was measured, by the sample's number.

    Raises:
        DataError: it is of another kind of data set, lacks something, or is of no row or of one that has it already.
    """
    task = samples.suite.task
    keys = KEYS.get(task, ())
    for place, row in rows:
        if not keys or not {"image_id", "ann_id", *keys} <= row.keys():
            raise DataError(f"{place}: is not of a {task} set, or is damaged; give the suite that it is of")
    if samples.image_ids is None or not {"image_id", "ann_id"} <= samples.columns.keys():
        raise DataError(f"{samples.source.path}: has no image_id and ann_id, by which the original's rows are known")
    return _boxes(rows, samples) if task is Task.DETECTION else _rows(rows, samples)


def _rows(rows: Numbered, samples: Samples) -> dict[int, Given]:
    """Rows by image and annotation; those that share both by their order, where all of them are there."""
    names = ["/".join(id_text(row[key]) or "?" for key in ("image_id", "ann_id")) for _, row in rows]
    shared = Counter(re.sub(r"#\d+$", "", name) for name in samples.ids)
    numbers = {name: index for index, name in enumerate(samples.ids)}
    counts = Counter(names)
    found: dict[int, Given] = {}
    for (place, row), name, own in zip(rows, unique_ids(names), names, strict=True):
        if name not in numbers:
            what = f"a second entry of {own}" if own in numbers else f"its image_id and ann_id, {own}, are of no row"
            raise DataError(f"{place}: {what} of {samples.source.path}; are there files of an earlier run?")
        if counts[own] < shared[own]:
            found[numbers[name]] = Given(error=f"{counts[own]} of {shared[own]} entries of {own}: which is not known")
        else:
            found[numbers[name]] = Given(measured=row, thinking=str(row["think"]))
    return found


def _boxes(rows: Numbered, samples: Samples) -> dict[int, Given]:
    """Boxes by image and category; a row without any has found nothing, as the original scores it."""
    categories = samples.source.column(samples.columns["cat_id"])
    numbers = {
        (image, id_text(category) or "?"): index
        for index, (image, category) in enumerate(zip(samples.image_ids or (), categories, strict=True))
    }
    boxes: dict[int, list[Row]] = {}
    last: int | None = None
    for place, row in rows:
        asked = id_text(row["image_id"]) or "?", id_text(row["category_id"]) or "?"
        if asked not in numbers:
            raise DataError(
                f"{place}: no row of {samples.source.path} asks for category {asked[1]} in image {asked[0]}; is it of "
                "another data set?"
            )
        index = numbers[asked]
        if index in boxes and index != last:
            raise DataError(
                f"{place}: boxes of category {asked[1]} in image {asked[0]} stand in two places; are there files of an "
                "earlier run?"
            )
        boxes.setdefault(index, []).append(row)
        last = index
    if without := samples.source.n - len(boxes):
        logger.warning(
            "%d of %d rows have no box in the original's files, which leave out what found nothing and what failed "
            "alike; they count as nothing found",
            without,
            samples.source.n,
        )
    found = {index: Given(status=Status.NONE, instances=[], warning=NO_BOX) for index in range(samples.source.n)}
    for index, given in boxes.items():
        instances = [{"box": row["bbox"]} for row in given]
        found[index] = Given(instances=instances, thinking=str(given[0]["think"]))
    return found


def scores_of(row: Mapping[str, Any], truth: Truth) -> Scores:
    """The upstream columns of a sample from what was measured.

    Raises:
        DataError: it does not go with the truth.
    """
    try:
        if "pred_count" in row:
            predicted, true = count_of(row, "pred_count"), count_of(row, "gt_count")
            if true != truth["count"]:
                raise DataError(f"its gt_count is {true} and the data set's {truth['count']}: another data set?")
            return {name: value for name, value in counting.score(predicted, true).items() if name[:8] == "upstream"}
        intersection, union = id_of(row, "intersection"), id_of(row, "union")
    except FieldError as error:
        raise DataError(str(error)) from error
    return _mask_scores(intersection, union, row["bbox_iou"], truth)


def _mask_scores(intersection: int, union: int, hit: Any, truth: Truth) -> Scores:
    masks = [truth[name] for name in ("mask", "ignore") if name in truth]  # upstream, what is to be ignored is target
    area = overlap([], masks).truth
    if not 0 <= intersection <= area <= union:
        raise DataError(
            f"its intersection {intersection} and union {union} do not go with a target of {area} pixels: another set?"
        )
    scores: Scores = {
        "upstream_intersection": intersection,
        "upstream_union": union,
        "upstream_iou": iou(intersection, union, empty=0.0),
    }
    if "boxes" in truth:
        one = len(truth["boxes"]) == 1
        scores |= {"one_box": float(one), "any_box": float(one and hit == 1)}
    return scores
