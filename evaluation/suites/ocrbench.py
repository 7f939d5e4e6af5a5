"""OCRBench: reading text of all kinds."""

from evaluation.suite import percent
from evaluation.suites.vqa import questions

SUITE = questions(
    "ocrbench",
    "contains",
    columns={"answers": "answer"},
    optional=("dataset", "image_id", "ann_id"),
    data="echo840/OCRBench",
    published={("OCRBench", "contains", "official"): percent({"VisionReasoner-7B": 82.5})},
)
