"""Detection as COCO has it: every object of a category, a row for each image and category."""

from evaluation.metrics import boxes, counting
from evaluation.metrics.intervals import NEVER
from evaluation.runner.schema import Record, Truth
from evaluation.suite import BUNDLED, Figure, Headline, Scores, Suite, found_boxes, is_readable, percent
from evaluation.truth import boxes_of, id_of
from vision_reasoner.data.sources import Row
from vision_reasoner.results import Task

MATCHING = (
    Figure(
        "precision at IoU 0.5", "official", ("matched", "predicted"), counts="predicted", given="true", n_of="boxes"
    ),
    Figure("recall at IoU 0.5", "official", ("matched", "true"), counts="true", n_of="boxes"),
    Figure(
        "F1 at IoU 0.5",
        "official",
        ("matched", "predicted", "true"),
        columns=boxes.f1,
        counts="true",
        n_of="boxes",
    ),
)
"""Of all boxes together."""
N_ACC = Figure("N-acc", "official", ("no_target_right", "no_target"), counts="no_target")
"""Of the samples that ask for what is not there: for how many nothing was found. It shows false alarms."""
COUNT_MAE = Figure(
    "MAE of the number of boxes",
    "official",
    ("absolute_error", "counted"),
    unit="objects",
    counts="counted",
    least=NEVER,
)
"""No interval: see `counting`."""
READABLE = Figure("replies that could be read", "official", ("readable", "1"))


def _truth(row: Row) -> Truth:
    return {"boxes": boxes_of(row, "bbox"), "category_id": id_of(row, "cat_id")}


def _score(record: Record) -> Scores:
    true, readable = record["truth"]["boxes"], is_readable(record)
    count = counting.score(len(record["instances"]) if readable else None, len(true))
    return boxes.score(found_boxes(record), true) | {
        "no_target": float(not true),
        "no_target_right": float(not true and readable and not record["instances"]),
        "absolute_error": count["absolute_error"],
        "counted": count["counted"],
        "readable": float(readable),
    }


def f1_headline(_record: Record, scores: Scores) -> Headline:
    """F1 of the sample's boxes; where there are none, 1 if the reply says so and 0 if it cannot be read."""
    n = scores["predicted"] + scores["true"]
    f1 = 2 * scores["matched"] / n if n else scores["readable"]
    return Headline("F1", f1, f"{f1:.2f}")


SUITE = Suite(
    name="detection",
    task=Task.DETECTION,
    query="text",
    truth=_truth,
    score=_score,
    headline=f1_headline,
    figures=(*MATCHING, N_ACC, COUNT_MAE, READABLE),
    needs=("bbox", "cat_id", "image_id"),
    optional=("ann_id",),
    data=str(BUNDLED / "detection"),
    ranked=True,
    published={
        ("coco_val", "COCO AP", "upstream"): percent(
            {"Qwen2-VL-7B": 28.3, "Qwen2.5-VL-7B": 29.2, "VisionReasoner-7B": 37.7}
        )
    },
)
