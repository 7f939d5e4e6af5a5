"""OCRBench: reading text of all kinds. Its total is the number of right answers to its 1,000 questions."""

from dataclasses import replace

from evaluation.suite import Figure, percent
from evaluation.suites.vqa import questions

_QUESTIONS = questions(
    "ocrbench",
    "contains",
    columns={"answers": "answer"},
    optional=("dataset", "image_id", "ann_id"),
    by=("question_type",),  # the ten kinds
    data="echo840/OCRBench",
    published={("OCRBench", "contains", "official"): percent({"VisionReasoner-7B": 82.5})},
)
SUITE = replace(
    _QUESTIONS,
    figures=(
        *_QUESTIONS.figures,
        Figure("total", "official", ("contains", "1"), unit="of 1,000", scale=1000),
    ),
)
