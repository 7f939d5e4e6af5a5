"""COCO's average precision (arXiv 1405.0312), computed by pycocotools, and its interval.

Average precision ranks the detections of all images, so it depends on their scores, and a model that writes boxes as
text has none. `area_ratio` is the original repository's stand-in; the official protocol ranks by the likelihood of
each box's tokens. Equal scores keep the order in which the detections are given (images by rising id), so give the
model's own.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.metrics.intervals import Estimate, Values, change, divide, fraction

RECALLS = COCOeval(iouType="bbox").params.recThrs
T = len(COCOeval(iouType="bbox").params.iouThrs)
CELLS = 1 << 21  # weights held at a time, 16 MB
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""pycocotools' twelve figures in its order: precision, and recall with 1, 10 and 100 boxes per image and category;
small, medium and large are areas up to 32 x 32, up to 96 x 96 and above, in pixels."""

THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
"""The IoU thresholds (0.5, 0.55, … 0.95) of the figures that have an interval."""

Asked = tuple[int, int]
"""(image id, category id)."""


class Matches(NamedTuple):
    """How one category's detections were matched, T = 10 IoU thresholds, all areas, 100 detections an image at most."""

    images: NDArray[np.intp]
    """(D,) each detection's image, a number into `image_ids`; highest score first."""
    hits: NDArray[np.bool_]
    """(T, D) matched to a true box that counts."""
    counted: NDArray[np.bool_]
    """(T, D) hit or false alarm; False for one that fell on a crowd and is passed over."""
    truths: Values
    """(N,) true boxes that count in each image."""


@dataclass(frozen=True)
class CocoScores:
    """Attributes:
    figures: by name (`NAMES`), fractions; NaN where there is no true box to measure it by.
    image_ids: the images that were asked about, rising (`params.imgIds`).
    category_ids: the categories that were asked for, rising (`params.catIds`).
    matches: one for each category that has true boxes, for `average_precision`.
    """

    figures: dict[str, float]
    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    matches: tuple[Matches, ...]


def area_ratio(box: Sequence[float], size: Sequence[int]) -> float:
    """Upstream's score of a box: its share of the image's area.

    Args:
        box: xyxy in pixels.
        size: (width, height) of the image.
    """
    return (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])


def detection(image_id: int, category_id: int, box: Sequence[float], score: float) -> dict[str, Any]:
    """A detection as COCO writes it: the box, here xyxy in pixels, becomes (x, y, width, height)."""
    x1, y1, x2, y2 = box
    return {"image_id": image_id, "category_id": category_id, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}


def coco_scores(
    instances: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], *, asked: Iterable[Asked] | None = None
) -> CocoScores:
    """pycocotools' box figures.

    Args:
        instances: COCO's instances file (`images`, `annotations`, `categories`); boxes (x, y, width, height), pixels.
        detections: as `detection` makes them, in the model's order; may be empty.
        asked: which categories were looked for in which images: true boxes of other pairs do not count as missed.
            None (upstream): every category in every image of `instances`.

    Raises:
        ValueError: a detection answers what was not asked.
    """
    pairs = None if asked is None else set(asked)
    if pairs is None:
        image_ids = sorted({image["id"] for image in instances["images"]})
        category_ids = sorted({category["id"] for category in instances["categories"]})
    else:
        image_ids, category_ids = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    within = set(image_ids), set(category_ids)

    def is_asked(item: Mapping[str, Any]) -> bool:
        image_id, category_id = item["image_id"], item["category_id"]
        if pairs is not None:
            return (image_id, category_id) in pairs
        return image_id in within[0] and category_id in within[1]

    stray = next((item for item in detections if not is_asked(item)), None)
    if stray is not None:
        raise ValueError(f"a detection in image {stray['image_id']}, category {stray['category_id']}: was not asked")
    # Ids count from 1, because pycocotools takes a match with number 0 for none.
    truth = [
        {"iscrowd": 0, "area": item["bbox"][2] * item["bbox"][3], **item, "id": number}
        for number, item in enumerate(filter(is_asked, instances["annotations"]), start=1)
    ]
    found = [
        {**item, "area": item["bbox"][2] * item["bbox"][3], "id": number}
        for number, item in enumerate(detections, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*(_index(instances, boxes) for boxes in (truth, found)), iouType="bbox")
        evaluation.params.imgIds, evaluation.params.catIds = image_ids, category_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = {
        name: float(value) if value > -1 else np.nan for name, value in zip(NAMES, evaluation.stats, strict=True)
    }
    return CocoScores(figures, tuple(image_ids), tuple(category_ids), _matches(evaluation))


def average_precision(scores: CocoScores, weights: Values) -> Values:
    """COCO's AP at each IoU threshold when images count more than once or not at all.

    The matches are those that pycocotools made; what it then does with them (101 recall points, the highest precision
    at or beyond each) is done under weights. With all weights 1 the mean is `figures["AP"]`. An image of weight 2 is
    what it would be twice in the set, save that of detections with equal scores its own stand together.

    Args:
        scores: what `coco_scores` gave.
        weights: (R, N) whole numbers, a column for each of `scores.image_ids`.

    Returns:
        (R, 10) AP at IoU 0.5, 0.55, … 0.95; NaN without true boxes. Their mean is what COCO calls AP.
    """
    total, categories = np.zeros((len(weights), T)), np.zeros(len(weights))
    for matches in scores.matches:
        ap, wanted = _category_precision(matches, weights)
        total += ap
        categories += wanted > 0
    return divide(total, categories[:, None])


def intervals(scores: CocoScores) -> dict[str, Estimate]:
    """AP, AP50 and AP75 with 95 % intervals, by the jackknife over images (`metrics.intervals`).

    They are of what sets of this size have on average. That is more than a set without end would have where scores say
    little, as upstream's box areas do: the highest precision at or beyond a recall picks up luck, the more so the
    fewer boxes a category has. With telling scores both are nearly the same.
    """
    moved = _deviations(scores)
    seen = np.flatnonzero(_is_seen(scores))
    found = {}
    for name, at in THRESHOLDS.items():
        value = scores.figures[name]
        found[name] = Estimate(value, np.nan, np.nan) if np.isnan(value) else fraction(value, _mean(moved[seen], at))
    return found


def differences(first: CocoScores, second: CocoScores) -> dict[str, Estimate]:
    """AP, AP50 and AP75 of two runs on the same images, first minus second, paired by image; see `intervals`.

    Raises:
        ValueError: the images differ.
    """
    if first.image_ids != second.image_ids:
        raise ValueError("a paired difference needs the same images in both runs")
    moved = _deviations(first) - _deviations(second)
    seen = np.flatnonzero(_is_seen(first) | _is_seen(second))
    return {
        name: change(first.figures[name] - second.figures[name], _mean(moved[seen], at))
        for name, at in THRESHOLDS.items()
    }


def _mean(deviations: Values, thresholds: slice) -> Values:
    return deviations[:, thresholds].mean(axis=1) * (len(deviations) - 1)


def _is_seen(scores: CocoScores) -> NDArray[np.bool_]:
    """(N,) whether an image has a true box or a detection that counts."""
    seen = np.zeros(len(scores.image_ids), dtype=bool)
    for matches in scores.matches:
        seen |= _is_touched(matches)
    return seen


def _is_touched(matches: Matches) -> NDArray[np.bool_]:
    return (matches.truths > 0) | (np.bincount(matches.images, minlength=len(matches.truths)) > 0)


def _deviations(scores: CocoScores) -> Values:
    """(N, T) by how much each image moves AP: AP with all images minus that without this one.

    The jackknife's squares are too large by n / (n - 1) for the mean of n images; here n is the number of images that
    a category has, which may be 2, so that its deviations are made smaller. A category's only image decides whether
    the category is there.
    """
    moved = np.zeros((len(scores.image_ids), T))
    mean = average_precision(scores, np.ones((1, len(scores.image_ids))))[0]
    for matches in scores.matches:
        touched = np.flatnonzero(_is_touched(matches))
        n = len(touched)
        place = np.zeros(len(moved), dtype=np.intp)
        place[touched] = np.arange(n)
        own = matches._replace(images=place[matches.images], truths=matches.truths[touched])
        whole, _ = _category_precision(own, np.ones((1, n)))
        rows = max(1, CELLS // max(1, len(matches.images)))
        for start in range(0, n, rows):
            some = np.arange(start, min(start + rows, n))
            ap, wanted = _category_precision(own, (np.arange(n) != some[:, None]).astype(np.float64))
            by = np.where(wanted[:, None] > 0, (whole - ap) * np.sqrt((n - 1) / n), whole - mean)
            moved[touched[some]] += by / len(scores.matches)
    return moved


def _category_precision(matches: Matches, weights: Values) -> tuple[Values, Values]:
    """A category's AP, (R, T), 0 without true boxes; and its number of true boxes, (R,), under weights (R, N)."""
    images, hits, counted, truths = matches
    wanted = np.einsum("ri,i->r", weights, truths)
    ap = np.zeros((len(weights), T))
    weight = weights[:, images]
    for t in range(T):
        # Precision rises at hits only, so that the highest at or beyond a recall is that at a hit.
        at = np.flatnonzero(hits[t])
        hit = np.cumsum(weight[:, at], axis=1)
        seen = np.cumsum(weight * counted[t], axis=1)[:, at]
        highest = np.maximum.accumulate((hit / (seen + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, hit / np.maximum(wanted, 1)[:, None], side="right")
        ap[:, t] = (highest * np.diff(reached, prepend=0)).sum(axis=1) / len(RECALLS)
    return ap, wanted


def _index(instances: Mapping[str, Any], annotations: list[dict[str, Any]]) -> COCO:
    """pycocotools' index of some boxes. Its own loadRes fails on an empty list."""
    index = COCO()
    index.dataset = {key: instances[key] for key in ("images", "categories")} | {"annotations": annotations}
    index.createIndex()
    return index


def _matches(evaluation: COCOeval) -> tuple[Matches, ...]:
    """What `evaluate` found, for all areas, in the order in which `accumulate` ranks it."""
    parameters = evaluation.params
    N, areas, T = len(parameters.imgIds), len(parameters.areaRng), len(parameters.iouThrs)
    matches = []
    for k in range(len(parameters.catIds)):
        found = [(i, evaluation.evalImgs[k * areas * N + i]) for i in range(N)]
        seen = [(i, image) for i, image in found if image is not None]
        truths = np.zeros(N)
        for i, image in seen:
            truths[i] = np.count_nonzero(np.asarray(image["gtIgnore"]) == 0)
        if not truths.any():
            continue
        scores = np.concatenate([image["dtScores"] for _, image in seen])
        order = np.argsort(-scores, kind="mergesort")
        matched, ignored = (
            np.concatenate([np.asarray(image[key]).reshape(T, -1) for _, image in seen], axis=1)[:, order] != 0
            for key in ("dtMatches", "dtIgnore")
        )
        images = np.repeat([i for i, _ in seen], [len(image["dtScores"]) for _, image in seen])[order]
        matches.append(Matches(images, matched & ~ignored, ~ignored, truths))
    return tuple(matches)
