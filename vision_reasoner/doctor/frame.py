"""In which frame a model writes its boxes: fitted from boxes that are known.

For each order that four numbers may stand in, and each thing they may be relative to, a scale and an offset per axis
are looked for under which most of the known boxes are hit (RANSAC over pairs of objects), and then fitted to the edges
that were hit (Theil and Sen's median of slopes). So objects that a model misses, invents or draws badly have no say in
it. Coordinates here are relative to the picture, from 0 to 1. Knows nothing of models; `findings` says what a fit
means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from vision_reasoner.geometry import Size
from vision_reasoner.matching import MIN_IOU, match_boxes, pairwise_iou

Floats = NDArray[np.float64]

# What makes corners, x1 y1 x2 y2, of four numbers in another order.
ORDERS: dict[str, Floats] = {
    "x1 y1 x2 y2": np.eye(4),
    "y1 x1 y2 x2": np.eye(4)[[1, 0, 3, 2]],
    "x y width height": np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]),
    "center x, center y, width, height": np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]]),
}
EXPECTED_ORDER = "x1 y1 x2 y2"
PER_UNIT = (1.0, 100.0, 1000.0)  # sides of frames that do not depend on the picture

MAX_WRITTEN = 12  # boxes of one reply that are looked at: work grows with the square of their number
MAX_NUMBER = 1e9  # larger ones are nonsense, and would overflow
MIN_BASELINE = 0.15  # between two objects from which a scale is taken, in both directions
MAX_SIZE_RATIO = 1.6  # by which a box may be too large or small for that scale
MIN_MATCHED, MIN_SHARE = 8, 0.4  # of the objects of all pictures together, for a fit
MIN_WRITTEN_SHARE = 0.3  # of the boxes that were written: boxes everywhere would hit everything
MIN_MATCHED_ALONE = 5  # of the objects of one picture, for a fit of its own
MIN_MATCHED_NEAR = 4  # likewise, where it is much like that of all pictures
MARGIN = 1.1  # by which a less likely explanation must hit more than the ones before it
REFINEMENTS = 3


@dataclass(frozen=True, eq=False)
class Sighting:
    """What a model wrote about one picture, and what is in it.

    Attributes:
        name: of the picture.
        image_size: in pixels.
        frame: (width, height) that the library takes the reply's numbers to be in.
        truth: (T, 4) boxes, xyxy in pixels of the picture.
        written: (N, 4) numbers of each box, as they stand in the reply.
    """

    name: str
    image_size: Size
    frame: Size
    truth: Floats
    written: Floats

    @property
    def relative_truth(self) -> Floats:
        """The true boxes, relative to the picture."""
        return self.truth / np.tile(self.image_size, 2)

    def corners(self, order: str, unit: Size | tuple[float, float]) -> Floats:
        """(N, 4) xyxy of the boxes that were written, in `order`, relative to `unit`."""
        written = self.written[:MAX_WRITTEN].reshape(-1, 4).clip(-MAX_NUMBER, MAX_NUMBER)
        return np.asarray(written @ ORDERS[order].T / np.tile(unit, 2), dtype=np.float64)


# What numbers may be relative to, the likeliest first; (width, height) for a picture.
UNITS: dict[str, Callable[[Sighting], tuple[float, float]]] = {
    "frame": lambda sighting: sighting.frame,
    "constant": lambda _: (1.0, 1.0),
    "image": lambda sighting: sighting.image_size,
    "turned": lambda sighting: (sighting.frame[1], sighting.frame[0]),
}


@dataclass(frozen=True, eq=False)
class Fit:
    """What was written is scale x true + offset, per axis (x, y), in units of `unit`.

    Attributes:
        order: a key of `ORDERS`.
        unit: a key of `UNITS`.
        scale, offset: (2,) each.
        spread: (2,) standard deviations of what was written from that, robustly.
        leverage: (2, 2) how much of the spread is in the fit at the picture's first and last edge, of x and y.
        error: the median distance of an edge that was written from the true one, in units of `unit`.
        matched: how many of the true boxes were hit.
        wanted: how many there are.
    """

    order: str
    unit: str
    scale: Floats
    offset: Floats
    spread: Floats
    leverage: Floats
    error: float
    matched: int
    wanted: int

    @property
    def shifts(self) -> Floats:
        """(2, 2): how far the first and the last edge of x and of y are from 0 and 1."""
        return np.stack([self.offset, self.offset + self.scale - 1], axis=1)

    @property
    def uncertainty(self) -> Floats:
        """(2, 2): the standard errors of `shifts`."""
        return self.spread[:, None] * self.leverage


View = tuple[Floats, Floats]
"""(N, 4) boxes that were written, in some unit, and the (T, 4) true ones of the same picture, relative to it."""


def fit_all(sightings: Sequence[Sighting]) -> Fit | None:
    """The one explanation of all pictures together; None where there is none that hits enough."""
    wanted = sum(len(sighting.truth) for sighting in sightings)
    written = sum(len(sighting.written[:MAX_WRITTEN]) for sighting in sightings)
    best, highest = None, 0.0
    for order in ORDERS:
        for unit in UNITS:
            found = _fit(sightings, order, unit)
            if found is not None and found[1] > MARGIN * highest:
                best, highest = found
    enough = max(MIN_MATCHED, MIN_SHARE * wanted, MIN_WRITTEN_SHARE * written)
    return best if best is not None and best.matched >= enough else None


def fit_one(sighting: Sighting, order: str) -> Fit | None:
    """The explanation of one picture by itself, in units of its frame; None where too few of its objects are hit."""
    found = _fit([sighting], order, "frame")
    return found[0] if found is not None and found[0].matched >= MIN_MATCHED_ALONE else None


def fit_near(sighting: Sighting, common: Fit) -> Fit | None:
    """The same for a picture in which an explanation of all pictures hits enough, too; None where it does not."""
    ratio = np.divide(UNITS[common.unit](sighting), sighting.frame)
    start = np.stack([common.scale * ratio, common.offset * ratio])[None]
    found = _refined([sighting], common.order, "frame", start)
    return found[0] if found is not None and found[0].matched >= MIN_MATCHED_NEAR else None


def n_hit(sighting: Sighting, fit: Fit) -> int:
    """How many true boxes of a picture are hit under an explanation of all pictures."""
    affine = np.stack([fit.scale, fit.offset])
    corners = sighting.corners(fit.order, UNITS[fit.unit](sighting))
    return len(match_boxes(_undone(affine, corners), sighting.relative_truth))


def _fit(sightings: Sequence[Sighting], order: str, unit: str) -> tuple[Fit, float] | None:
    """The best fit in one order and unit, and its sum of IoUs; None where nothing is hit."""
    views = [(sighting.corners(order, UNITS[unit](sighting)), sighting.relative_truth) for sighting in sightings]
    sides = PER_UNIT if unit == "constant" else (1.0,)
    plain = np.array([[[side, side], [0.0, 0.0]] for side in sides])
    return _refined(sightings, order, unit, np.concatenate([plain, *map(_candidates, views)]))


def _refined(sightings: Sequence[Sighting], order: str, unit: str, candidates: Floats) -> tuple[Fit, float] | None:
    """The best of (K, 2, 2) candidates, fitted to what it hits.

    A candidate has the scales of x and y, and their offsets.
    """
    views = [(sighting.corners(order, UNITS[unit](sighting)), sighting.relative_truth) for sighting in sightings]
    scores = sum((_scores(candidates, view) for view in views), start=np.zeros(len(candidates)))
    if not scores.max(initial=0.0):
        return None
    affine = candidates[int(scores.argmax())]
    fit = None
    for _ in range(REFINEMENTS):
        written, true = _hit(affine, views)
        if len(written) < 2:
            return None
        fit = _regress(written, true, order, unit, sum(len(truth) for _, truth in views))
        affine = np.stack([fit.scale, fit.offset])
    assert fit is not None
    return fit, float(sum(_scores(affine[None], view)[0] for view in views))


def _candidates(view: View) -> Floats:
    """(K, 2, 2) scales and offsets that bring two of the true boxes onto two of those that were written."""
    written, truth = view
    if len(written) < 2:
        return np.empty((0, 2, 2))
    i, k = np.array(list(combinations(range(len(written)), 2))).T[:, :, None]
    j, m = np.array(list(permutations(range(len(truth)), 2))).T[:, None, :]
    (at, size), (true_at, true_size) = _centers(written), _centers(truth)
    apart = true_at[j] - true_at[m]
    far = (np.abs(apart) > MIN_BASELINE).all(axis=-1)
    scale = np.divide(
        at[i] - at[k], apart, out=np.zeros(np.broadcast_shapes((*i.shape[:1], 1, 2), apart.shape)), where=far[..., None]
    )
    sensible = (scale > 0).all(axis=-1)
    for one, other in ((i, j), (k, m)):
        ratio = np.divide(size[one], scale * true_size[other], out=np.zeros(scale.shape), where=scale > 0)
        sensible &= ((ratio > 1 / MAX_SIZE_RATIO) & (ratio < MAX_SIZE_RATIO)).all(axis=-1)
    offset = at[i] - scale * true_at[j]
    return np.stack([scale, offset], axis=-2)[sensible]


def _centers(boxes: Floats) -> tuple[Floats, Floats]:
    """(N, 2) centers and sizes of boxes."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def _undone(affine: Floats, boxes: Floats) -> Floats:
    """(..., N, 4) where boxes lie in the picture if they were written by (..., 2, 2) `affine`."""
    scale, offset = (np.concatenate([affine[..., k, :]] * 2, axis=-1)[..., None, :] for k in (0, 1))
    return np.asarray((boxes - offset) / scale)


def _scores(candidates: Floats, view: View) -> Floats:
    """(K,) sums over the true boxes of the best IoU that each reaches, where it is a hit."""
    written, truth = view
    if not len(written):
        return np.zeros(len(candidates))
    back = _undone(candidates, written)
    iou = pairwise_iou(back.reshape(-1, 4), truth).reshape(len(candidates), len(written), len(truth)).max(axis=1)
    return np.asarray(np.where(iou >= MIN_IOU, iou, 0.0).sum(axis=1))


def _hit(affine: Floats, views: Sequence[View]) -> tuple[Floats, Floats]:
    """(M, 4) boxes that were written and the true ones that they hit."""
    rows: list[tuple[Floats, Floats]] = []
    for written, truth in views:
        rows += [(written[i], truth[j]) for i, j in match_boxes(_undone(affine, written), truth)]
    return tuple(np.array([row[k] for row in rows]).reshape(-1, 4) for k in (0, 1))  # type: ignore[return-value]


def _regress(written: Floats, true: Floats, order: str, unit: str, wanted: int) -> Fit:
    """Scale and offset per axis by the median of slopes, with standard errors that go by the number of boxes."""
    scale, offset, spread, leverage = np.empty(2), np.empty(2), np.empty(2), np.empty((2, 2))
    for axis in (0, 1):
        x, y = true[:, axis::2].ravel(), written[:, axis::2].ravel()
        apart = x[:, None] - x
        far = apart > apart.max() / 2
        scale[axis] = np.median((y[:, None] - y)[far] / apart[far])
        offset[axis] = np.median(y - scale[axis] * x)
        spread[axis] = 1.4826 * np.median(np.abs(y - scale[axis] * x - offset[axis]))  # right for normal errors
        edges = np.array([0.0, 1.0]) - x.mean()
        leverage[axis] = np.sqrt((1 + edges**2 / x.var()) / len(true))
    error = float(np.median(np.abs(written - true)))
    return Fit(order, unit, scale, offset, spread, leverage, error, len(true), wanted)
