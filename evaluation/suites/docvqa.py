"""DocVQA: questions about scanned documents."""

from evaluation.suite import percent
from evaluation.suites.vqa import SHORT_ANSWER, questions

SUITE = questions(
    "docvqa",
    "ANLS",
    columns={"image_id": "docId", "ann_id": "questionId"},
    data="lmms-lab/DocVQA",
    config="DocVQA",
    split="validation",
    instruction=SHORT_ANSWER,
    published={("DocVQA", "ANLS", "official"): percent({"VisionReasoner-7B": 96.0})},
)
