"""RealWorldQA: multiple-choice questions about photographs."""

from evaluation.suite import percent
from evaluation.suites.vqa import questions

SUITE = questions(
    "realworldqa",
    "exact match",
    "choice",  # "A. The left car" is A
    columns={"answers": "answer"},
    data="lmms-lab/RealWorldQA",
    published={("RealWorldQA", "exact match", "official"): percent({"VisionReasoner-7B": 69.5})},
)
