"""Boxes for a phrase that means one object, several, or none: each sample is scored alone.

Figures are means over samples, so that one with a single object weighs as much as one with ten, unlike the F1 of all
boxes together that `detection` and `segmentation` have.
"""

from evaluation.metrics import boxes
from evaluation.runner.schema import Record, Truth
from evaluation.suite import Figure, Scores, Suite, found_boxes, is_readable
from evaluation.suites.detection import N_ACC, READABLE, f1_headline
from evaluation.truth import boxes_of
from vision_reasoner.data.sources import Row
from vision_reasoner.results import Task


def _truth(row: Row) -> Truth:
    return {"boxes": [] if row["bbox"] is None else boxes_of(row, "bbox")}


def _score(record: Record) -> Scores:
    found, true = found_boxes(record), record["truth"]["boxes"]
    scores = boxes.score(found, true)
    return {
        "matched": scores["matched"],
        "predicted": scores["predicted"],
        "true": scores["true"],
        "target": float(bool(true)),
        "first_box": float(bool(true) and boxes.first_box_hit(found, true)),
        "f1": 2 * scores["matched"] / (len(found) + len(true)) if true else 0.0,
        "no_target": float(not true),
        # a reply without a list of objects does not say that there are none
        "no_target_right": float(not true and record["status"] == "none"),
        "readable": float(is_readable(record)),
    }


SUITE = Suite(
    name="grounding",
    task=Task.DETECTION,
    query="text",
    truth=_truth,
    score=_score,
    headline=f1_headline,
    figures=(
        Figure("first box accuracy", "official", ("first_box", "target"), counts="target"),
        Figure("mean F1 at IoU 0.5", "official", ("f1", "target"), counts="target"),
        N_ACC,
        READABLE,
    ),
    needs=("bbox",),
)
