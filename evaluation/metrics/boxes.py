"""Boxes against boxes: accuracy where one box is asked for, precision, recall and F1 where several are.

All boxes are (N, 4) xyxy in pixels of the original image, x2 and y2 being edges. When a box hits another, and which
are matched, is defined in `vision_reasoner.matching`.
"""

import numpy as np

from evaluation.metrics.intervals import Values
from vision_reasoner.matching import Boxes, box_hits, match_boxes


def any_box_hit(predicted: Boxes, truth: Boxes) -> bool:
    """Upstream: one of the predicted boxes, whichever, has IoU > 0.5 with the true one, (4,) or (1, 4).

    The original repository prints the mean under the name bbox_AP. Guessing many boxes can only help there.
    """
    return bool(box_hits(predicted, truth, strict=True).any())


def first_box_hit(predicted: Boxes, truth: Boxes) -> bool:
    """Official: the first predicted box has IoU >= 0.5 with the true one, (4,) or (1, 4): RefCOCO's accuracy.

    With one of the true ones, where there are several, (M, 4).
    """
    return bool(box_hits(predicted, truth)[:1].any())


def hits(predicted: Boxes, truth: Boxes) -> list[bool]:
    """Whether each predicted box is matched with a true one, one to one, at IoU 0.5."""
    matched = {i for i, _ in match_boxes(predicted, truth)}
    return [i in matched for i in range(len(np.asarray(predicted)))]


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
        "matched": len(match_boxes(found, wanted)),
        "predicted": len(found),
        "true": len(wanted),
        "one_box": float(one),
        "any_box": float(one and any_box_hit(found, wanted[0])),
        "first_box": float(one and first_box_hit(found, wanted[0])),
    }


def f1(matched: Values, predicted: Values, true: Values) -> Values:
    """F1 of all boxes together as a share: of the predicted and the true boxes, those that are matched, (N, 2)."""
    return np.column_stack([2 * matched, predicted + true])
