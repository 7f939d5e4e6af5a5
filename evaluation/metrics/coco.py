"""COCO's average precision (arXiv 1405.0312), computed by pycocotools, and its interval under resampled images.

Average precision ranks the detections of all images, so it depends on their scores, and a model that writes boxes as
text has none. `area_ratio` is the original repository's stand-in; the official protocol ranks by the likelihood of
each box's tokens. Equal scores keep the order in which the detections are given (images by rising id), so give the
model's own.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.metrics.bootstrap import Estimate, Values, divide, draws, percentiles

RESAMPLES = 1000  # each computes the precision of every category anew
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
    drawn: AP at each threshold under draws that were made, by their number and seed.
    """

    figures: dict[str, float]
    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    matches: tuple[Matches, ...]
    drawn: dict[tuple[int, int], Values] = field(default_factory=dict, compare=False, repr=False)


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
    parameters = COCOeval(iouType="bbox").params
    recalls, T = parameters.recThrs, len(parameters.iouThrs)
    total, categories = np.zeros((len(weights), T)), np.zeros(len(weights))
    for images, hits, counted, truths in scores.matches:
        wanted = np.einsum("ri,i->r", weights, truths)
        categories += wanted > 0
        weight = weights[:, images]
        for t in range(T):
            # Precision rises at hits only, so that the highest at or beyond a recall is that at a hit.
            at = np.flatnonzero(hits[t])
            hit = np.cumsum(weight[:, at], axis=1)
            seen = np.cumsum(weight * counted[t], axis=1)[:, at]
            highest = np.maximum.accumulate((hit / (seen + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(recalls, hit / np.maximum(wanted, 1)[:, None], side="right")
            total[:, t] += (highest * np.diff(reached, prepend=0)).sum(axis=1) / len(recalls)
    return divide(total, categories[:, None])


def interval(scores: CocoScores, name: str = "AP", *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The 95 % interval of AP, AP50 or AP75, images resampled.

    AP is too high in small sets (the highest precision at or beyond a recall picks up luck, the more so the less the
    scores say), and once more so in a resample of one. The interval is therefore mirrored at the value (the "basic"
    bootstrap). In simulated sets of 100 to 1,000 images with telling scores it held the true AP 92 to 95 times of 100
    and the percentile interval 88 or 89; with scores that say nothing, 39 to 73 against 0 to 17: take it with care
    for upstream's box areas. The value itself may then lie outside.

    Raises:
        KeyError: another figure; those have no interval.
    """
    value, at = scores.figures[name], THRESHOLDS[name]
    if len(scores.image_ids) < 2:
        return Estimate(value, np.nan, np.nan)
    return percentiles(value, _drawn(scores, resamples, seed)[:, at].mean(axis=1), mirrored=True)


def difference(
    first: CocoScores, second: CocoScores, name: str = "AP", *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """AP, AP50 or AP75 of two runs on the same images, first minus second, drawn together (paired); see `interval`.

    Raises:
        ValueError: the images differ.
    """
    if first.image_ids != second.image_ids:
        raise ValueError("a paired difference needs the same images in both runs")
    at = THRESHOLDS[name]
    value = first.figures[name] - second.figures[name]
    if len(first.image_ids) < 2:
        return Estimate(value, np.nan, np.nan)
    one, two = (_drawn(scores, resamples, seed)[:, at].mean(axis=1) for scores in (first, second))
    return percentiles(value, one - two, mirrored=True)


def _drawn(scores: CocoScores, resamples: int, seed: int) -> Values:
    """(resamples, 10) AP at each threshold under the draws, made once: they depend on images and seed alone."""
    key = (resamples, seed)
    if key not in scores.drawn:
        scores.drawn[key] = draws(
            lambda weights: average_precision(scores, weights), len(scores.image_ids), resamples=resamples, seed=seed
        )
    return scores.drawn[key]


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
