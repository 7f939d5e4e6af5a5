"""Figures that were published for the sets, to stand beside ours: VisionReasoner's paper, arXiv 2505.12081.

Fractions; by data set (as `suites.plain_name` writes it), figure and protocol, then by model. What the paper calls
AP on RefCOCO is upstream's box accuracy.
"""

from evaluation.suites import plain_name


def _key(data: str) -> str:
    return plain_name(data).removeprefix("counting")


_DETECTION = ("Qwen2-VL-7B", "Qwen2.5-VL-7B", "VisionReasoner-7B")
_MASKS = ("LISA-7B", "Qwen2.5-VL-7B + SAM2", "VisionReasoner-7B")
_COUNTS = ("Qwen2.5-VL-7B", "VisionReasoner-7B")
_ANSWERS = ("VisionReasoner-7B",)

# data set, figure, protocol: models, percent
_TABLE: dict[tuple[str, str, str], tuple[tuple[str, ...], tuple[float, ...]]] = {
    ("coco_val", "COCO AP", "upstream"): (_DETECTION, (28.3, 29.2, 37.7)),
    ("refcoco_val", "box accuracy", "upstream"): (_DETECTION, (80.8, 88.8, 88.6)),
    ("refcoco_testA", "box accuracy", "upstream"): (_DETECTION, (83.9, 91.7, 90.6)),
    ("refcocoplus_val", "box accuracy", "upstream"): (_DETECTION, (72.5, 82.3, 83.6)),
    ("refcocoplus_testA", "box accuracy", "upstream"): (_DETECTION, (76.5, 88.2, 87.9)),
    ("refcocog_val", "box accuracy", "upstream"): (_DETECTION, (77.3, 84.7, 86.1)),
    ("refcocog_test", "box accuracy", "upstream"): (_DETECTION, (78.2, 85.7, 87.5)),
    ("ReasonSeg_val", "gIoU", "upstream"): (_MASKS, (44.4, 56.9, 66.3)),
    ("ReasonSeg_test", "gIoU", "upstream"): (_MASKS, (36.8, 52.1, 63.6)),
    ("refcoco_testA", "gIoU", "upstream"): (_MASKS, (76.5, 79.9, 78.9)),
    ("refcocoplus_testA", "gIoU", "upstream"): (_MASKS, (67.4, 76.8, 74.9)),
    ("refcocog_test", "gIoU", "upstream"): (_MASKS, (68.5, 72.8, 71.3)),
    ("counting_pixmo_validation", "accuracy", "upstream"): (_COUNTS, (58.1, 70.1)),
    ("counting_pixmo_test", "accuracy", "upstream"): (_COUNTS, (53.1, 70.7)),
    ("counting_countbench", "accuracy", "upstream"): (_COUNTS, (78.8, 89.2)),
    ("OCRBench", "contains", "official"): (_ANSWERS, (82.5,)),
    ("RealWorldQA", "exact match", "official"): (_ANSWERS, (69.5,)),
    ("ChartQA", "relaxed accuracy", "official"): (_ANSWERS, (84.9,)),
    ("DocVQA", "ANLS", "official"): (_ANSWERS, (96.0,)),
}
PUBLISHED = {
    (_key(data), figure, protocol): {model: round(value / 100, 4) for model, value in zip(models, values, strict=True)}
    for (data, figure, protocol), (models, values) in _TABLE.items()
}


def published(data: str, figure: str, protocol: str) -> dict[str, float] | None:
    """What was published for a figure on a data set, by model; None where nothing was."""
    return PUBLISHED.get((_key(data), figure, protocol))
