"""ChartQA: questions about charts."""

from evaluation.suite import percent
from evaluation.suites.vqa import SHORT_ANSWER, questions

SUITE = questions(
    "chartqa",
    "relaxed accuracy",
    columns={"answers": "answer"},
    data="lmms-lab/ChartQA",
    instruction=SHORT_ANSWER,
    by=("type",),  # human or augmented
    published={("ChartQA", "relaxed accuracy", "official"): percent({"VisionReasoner-7B": 84.9})},
)
