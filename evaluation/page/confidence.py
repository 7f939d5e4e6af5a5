"""Two plots of a run with several looks: how reliable confidences are, and precision against recall."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.metrics import boxes
from evaluation.metrics.calibration import reliability
from evaluation.runner.schema import Record
from evaluation.suite import found_boxes

POINTS = 200  # of a curve, at most


def confidence_plots(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The plots, as the page draws them; none where no object with true boxes beside it has a confidence."""
    confidences: list[float] = []
    right: list[bool] = []
    true = 0
    for record in records:
        if record["error"] is not None or "boxes" not in record["truth"]:
            continue
        true += len(record["truth"]["boxes"])
        hits = boxes.hits(found_boxes(record), record["truth"]["boxes"])
        for found, hit in zip(record["instances"], hits, strict=True):
            if (confidence := found.get("confidence")) is not None:
                confidences.append(confidence)
                right.append(hit)
    if not confidences:
        return []
    return [_reliability(confidences, right), *([_precision_recall(confidences, right, true)] if true else [])]


def _reliability(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    bins = reliability(confidences, right)
    return {
        "kind": "curve",
        "title": "Reliability",
        "note": f"{len(confidences):,} objects by confidence: the share that is right. On the line it is what it says.",
        "across": "confidence",
        "up": "right",
        "points": [[round(b.confidence, 4), round(b.right, 4), f"{b.n} objects"] for b in bins],
        "diagonal": True,
    }


def _precision_recall(confidences: Sequence[float], right: Sequence[bool], true: int) -> dict[str, Any]:
    """Of all boxes together at IoU 0.5, the surest first; objects of one confidence come in together."""
    order = np.argsort(-np.asarray(confidences), kind="stable")
    hits = np.cumsum(np.asarray(right)[order])
    sure = np.asarray(confidences)[order]
    ends = np.flatnonzero(np.append(np.diff(sure) != 0, True))
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).astype(int))]
    return {
        "kind": "curve",
        "title": "Precision and recall",
        "note": "Of all boxes at IoU 0.5, as --min_confidence falls from 1 to 0.",
        "across": "recall",
        "up": "precision",
        "points": [
            [round(float(hits[i] / true), 4), round(float(hits[i] / (i + 1)), 4), f"confidence {sure[i]:.2f}"]
            for i in ends
        ],
        "diagonal": False,
    }
