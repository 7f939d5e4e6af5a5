"""The segmenter alone, given the true box of an object and a point inside it, where the row has one."""

from dataclasses import replace

from evaluation.runner.schema import Truth
from evaluation.suites import segmentation
from evaluation.truth import point_of, refuse
from vision_reasoner.data.sources import Row


def _truth(row: Row) -> Truth:
    truth = segmentation.truth(row)
    if len(truth.get("boxes", ())) != 1:
        refuse("bbox", row["bbox"], "exactly one box", "not exactly one box; the segmenter is told one object")
    if row.get("point") is not None:
        truth["point"] = point_of(row, "point")
    return truth


SUITE = replace(
    segmentation.SUITE,
    name="segmenter",
    truth=_truth,
    figures=segmentation.MASKS,
    needs=("mask", "bbox"),
    optional=("ignore", "point", "image_id", "ann_id"),
    data=None,
    prompted=True,
    published={},
)
