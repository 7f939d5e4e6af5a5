"""Boxes against boxes: accuracy where one box is asked for, precision, recall and F1 where several are.

All boxes are (N, 4) xyxy in pixels of the original image, x2 and y2 being edges. IoU is
`vision_reasoner.geometry.pairwise_iou`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics.bootstrap import Values, divide
from vision_reasoner.geometry import Box, pairwise_iou

Boxes = ArrayLike | Sequence[Box]

THRESHOLD = 0.5


def any_box_hit(predicted: Boxes, truth: Boxes) -> bool:
    """Upstream: one of the predicted boxes, whichever, has IoU > 0.5 with the true one, (4,) or (1, 4).

    The original repository prints the mean under the name bbox_AP. Guessing many boxes can only help there.
    """
    return bool((pairwise_iou(predicted, truth) > THRESHOLD).any())


def first_box_hit(predicted: Boxes, truth: Boxes) -> bool:
    """Official: the first predicted box has IoU >= 0.5 with the true one, (4,) or (1, 4): RefCOCO's accuracy.

    With one of the true ones, where there are several, (M, 4).
    """
    return bool((pairwise_iou(predicted, truth)[:1] >= THRESHOLD).any())


def match(predicted: Boxes, truth: Boxes, *, threshold: float = THRESHOLD) -> list[tuple[int, int]]:
    """Pairs (predicted, true) of box numbers, each box in one pair at most, IoU >= threshold.

    The pair with the highest IoU first, then the highest among the boxes that are left, as in GREC (arXiv 2308.16182),
    which goes by generalised IoU instead. Among equal ones the earlier predicted box wins, then the earlier true one.
    """
    iou = pairwise_iou(predicted, truth)
    candidates = np.argwhere(iou >= threshold)
    order = np.argsort(-iou[tuple(candidates.T)], kind="stable")
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for row, column in candidates[order].tolist():
        if row not in taken[0] and column not in taken[1]:
            taken[0].add(row)
            taken[1].add(column)
            pairs.append((row, column))
    return pairs


def score(predicted: Boxes, truth: Boxes) -> dict[str, float]:
    """A sample's columns.

    Args:
        predicted: (N, 4) boxes in the model's order; N may be 0.
        truth: (M, 4) boxes; M may be 0.

    Returns:
        Numbers of boxes: matched (at IoU 0.5), predicted, true. 0 or 1: one_box, whether there is just one true box,
        as both kinds of accuracy presume; any_box (upstream) and first_box, hits among those.
    """
    found, wanted = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) for boxes in (predicted, truth))
    one = len(wanted) == 1
    return {
        "matched": len(match(found, wanted)),
        "predicted": len(found),
        "true": len(wanted),
        "one_box": float(one),
        "any_box": float(one and any_box_hit(found, wanted[0])),
        "first_box": float(one and first_box_hit(found, wanted[0])),
    }


def f1(sums: Values) -> Values:
    """2 x matched / (predicted + true) from the three sums, (R, 3) -> (R,): the harmonic mean of precision and recall.

    NaN where nothing was predicted and nothing was there.
    """
    return divide(2 * sums[..., 0], sums[..., 1] + sums[..., 2])
