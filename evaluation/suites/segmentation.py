"""Segmentation of what a request means: RefCOCO, gRefCOCO, ReasonSeg."""

from evaluation.metrics import boxes, segmentation
from evaluation.runner.schema import Record, Truth
from evaluation.suite import (
    BUNDLED,
    Figure,
    Headline,
    Published,
    Scores,
    Suite,
    found_boxes,
    is_readable,
    percent,
)
from evaluation.suites.detection import MATCHING, N_ACC, READABLE
from evaluation.truth import boxes_of, check_box_of_mask, mask_of
from vision_reasoner.data.sources import Row
from vision_reasoner.results import Task

MASKS = (
    Figure("gIoU", "official", ("iou", "1")),
    Figure("gIoU", "upstream", ("upstream_iou", "1")),
    Figure("cIoU", "official", ("intersection", "union"), least=segmentation.LEAST_IMAGES),
    Figure("cIoU", "upstream", ("upstream_intersection", "upstream_union"), least=segmentation.LEAST_IMAGES),
)


def truth(row: Row) -> Truth:
    """The target's mask, what is to be ignored, and its box where the row has one."""
    found: Truth = {"mask": mask_of(row, "mask")}
    if row.get("ignore") is not None:
        found["ignore"] = mask_of(row, "ignore")
    if row.get("bbox") is not None:
        found["boxes"] = boxes_of(row, "bbox")
        check_box_of_mask(row, found)
    return found


def score(record: Record) -> Scores:
    """The masks' union against the target, and the boxes where the truth has some.

    A reply that cannot be read does not say that there is no target, and is not right where there is none.
    """
    truth = record["truth"]
    masks = [instance["mask"] for instance in record["instances"] if instance["mask"]]
    ignore = [truth["ignore"]] if "ignore" in truth else []
    scores = segmentation.score(masks, [truth["mask"]], ignore=ignore)
    scores["readable"] = float(is_readable(record))
    if not scores["readable"] and scores["no_target"]:
        scores["iou"] = scores["no_target_right"] = 0.0
    return scores | boxes.score(found_boxes(record), truth["boxes"]) if "boxes" in truth else scores


def iou_headline(_record: Record, scores: Scores) -> Headline:
    """The sample's IoU."""
    iou = scores["iou"] if "iou" in scores else scores["upstream_iou"]
    return Headline("IoU", iou, f"{iou:.2f}")


def _boxes(qwen2: float, qwen: float, ours: float) -> Published:
    return percent({"Qwen2-VL-7B": qwen2, "Qwen2.5-VL-7B": qwen, "VisionReasoner-7B": ours})


def _masks(lisa: float, qwen: float, ours: float) -> Published:
    return percent({"LISA-7B": lisa, "Qwen2.5-VL-7B + SAM2": qwen, "VisionReasoner-7B": ours})


SUITE = Suite(
    name="segmentation",
    task=Task.SEGMENTATION,
    query="text",
    truth=truth,
    score=score,
    headline=iou_headline,
    figures=(
        *MASKS,
        N_ACC,
        Figure("T-acc", "official", ("target_right", "target"), counts="target", given="no_target"),
        Figure("box accuracy", "official", ("first_box", "one_box"), counts="one_box"),
        Figure("box accuracy", "upstream", ("any_box", "one_box"), counts="one_box", label="bbox_AP"),
        *MATCHING,
        READABLE,
    ),
    needs=("mask",),
    optional=("ignore", "bbox", "image_id", "ann_id"),
    data=str(BUNDLED / "segmentation"),
    published={  # what the paper calls AP on RefCOCO is upstream's box accuracy
        ("refcoco_val", "box accuracy", "upstream"): _boxes(80.8, 88.8, 88.6),
        ("refcoco_testA", "box accuracy", "upstream"): _boxes(83.9, 91.7, 90.6),
        ("refcocoplus_val", "box accuracy", "upstream"): _boxes(72.5, 82.3, 83.6),
        ("refcocoplus_testA", "box accuracy", "upstream"): _boxes(76.5, 88.2, 87.9),
        ("refcocog_val", "box accuracy", "upstream"): _boxes(77.3, 84.7, 86.1),
        ("refcocog_test", "box accuracy", "upstream"): _boxes(78.2, 85.7, 87.5),
        ("ReasonSeg_val", "gIoU", "upstream"): _masks(44.4, 56.9, 66.3),
        ("ReasonSeg_test", "gIoU", "upstream"): _masks(36.8, 52.1, 63.6),
        ("refcoco_testA", "gIoU", "upstream"): _masks(76.5, 79.9, 78.9),
        ("refcocoplus_testA", "gIoU", "upstream"): _masks(67.4, 76.8, 74.9),
        ("refcocog_test", "gIoU", "upstream"): _masks(68.5, 72.8, 71.3),
    },
)
