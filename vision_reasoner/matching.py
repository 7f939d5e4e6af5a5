"""When a predicted box hits a true one: IoU, one-to-one matching, and the F1 of what was matched.

Rewards, GRPO's held-out figures and evaluation import the rule from here. By default boxes are edges and a hit is an
IoU of at least MIN_IOU. The published reward counts last pixels as inside and wants more than MIN_IOU: `inclusive=True,
strict=True`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision_reasoner.geometry import Box

Boxes = ArrayLike | Sequence[Box]
"""(N, 4) boxes, xyxy, in one frame; N may be 0."""

MIN_IOU = 0.5  # the threshold of RefCOCO's accuracy, GREC's F1 and the published reward


def pairwise_iou(a: Boxes, b: Boxes, *, inclusive: bool = False) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`.

    Args:
        a: (N, 4) boxes, xyxy, in the same frame as `b`; N may be 0.
        b: (M, 4) boxes.
        inclusive: x2 and y2 are the last pixels inside, so that a side is x2 - x1 + 1 long (the convention of the
            training reward); otherwise they are edges and a side is x2 - x1 long (the convention of COCO).

    Returns:
        (N, M) float64 in [0, 1]; 0 where both boxes are empty.
    """
    first = np.asarray(a, dtype=np.float64).reshape(-1, 4)
    second = np.asarray(b, dtype=np.float64).reshape(-1, 4)
    extra = 1.0 if inclusive else 0.0
    x1, y1, x2, y2 = first.T[:, :, None]
    u1, v1, u2, v2 = second.T[:, None, :]
    width = np.minimum(x2, u2) - np.maximum(x1, u1) + extra
    height = np.minimum(y2, v2) - np.maximum(y1, v1) + extra
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    areas_a = np.maximum(x2 - x1 + extra, 0) * np.maximum(y2 - y1 + extra, 0)
    areas_b = np.maximum(u2 - u1 + extra, 0) * np.maximum(v2 - v1 + extra, 0)
    union = areas_a + areas_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def box_hits(
    predicted: Boxes, truth: Boxes, *, min_iou: float = MIN_IOU, inclusive: bool = False, strict: bool = False
) -> NDArray[np.bool_]:
    """Whether each predicted box hits each true one.

    Args:
        predicted: (N, 4) boxes, xyxy, in the same frame as `truth`.
        truth: (M, 4) boxes.
        min_iou: the threshold.
        inclusive: x2 and y2 are the last pixels inside, see `pairwise_iou`.
        strict: the IoU must be above the threshold, not equal to it.

    Returns:
        (N, M) bool.

    >>> box_hits([[0, 0, 10, 5]], [[0, 0, 10, 10]]).tolist()  # an IoU of exactly 0.5
    [[True]]
    >>> box_hits([[0, 0, 10, 5]], [[0, 0, 10, 10]], strict=True).tolist()
    [[False]]
    """
    iou = pairwise_iou(predicted, truth, inclusive=inclusive)
    return iou > min_iou if strict else iou >= min_iou


def match_boxes(predicted: Boxes, truth: Boxes, *, min_iou: float = MIN_IOU) -> list[tuple[int, int]]:
    """One-to-one pairs of boxes with an IoU of at least `min_iou`.

    The pair with the highest IoU first, then the highest among the boxes that are left, as in GREC (arXiv 2308.16182),
    which goes by generalized IoU instead. Among equal ones the earlier predicted box wins, then the earlier true one.

    Args:
        predicted: (N, 4) boxes, xyxy edges, in the same frame as `truth`.
        truth: (M, 4) boxes.
        min_iou: the threshold.

    Returns:
        (index of a predicted box, index of a true box), the highest IoU first.

    >>> match_boxes([[0, 0, 10, 9], [0, 0, 10, 10]], [[0, 0, 10, 10]])
    [(1, 0)]
    """
    iou = pairwise_iou(predicted, truth)
    candidates = np.argwhere(iou >= min_iou)
    order = np.argsort(-iou[tuple(candidates.T)], kind="stable")
    pairs: list[tuple[int, int]] = []
    rows: set[int] = set()
    columns: set[int] = set()
    for row, column in candidates[order].tolist():
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs


def best_assignment_score(scores: NDArray[np.int64]) -> int:
    """The largest sum of scores that a one-to-one assignment of rows to columns has (Hungarian method).

    Args:
        scores: (N, M), not negative.

    >>> best_assignment_score(np.array([[3, 2], [3, 0]]))
    5
    """
    from scipy.optimize import linear_sum_assignment

    return int(scores[linear_sum_assignment(scores, maximize=True)].sum())


def f1_score(matched: ArrayLike, predicted: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """2 x matched / (predicted + true): the harmonic mean of precision and recall.

    Args:
        matched: numbers of matched boxes, of any shape.
        predicted: numbers of predicted boxes, of the same shape.
        true: numbers of true boxes, of the same shape.

    Returns:
        The F1, of the same shape; NaN where nothing was predicted and nothing was there.

    >>> float(f1_score(2, predicted=3, true=2))
    0.8
    """
    top, bottom = 2 * np.asarray(matched, np.float64), np.asarray(predicted, np.float64) + np.asarray(true, np.float64)
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)
