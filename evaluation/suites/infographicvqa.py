"""InfographicVQA: questions about infographics."""

from evaluation.suites.vqa import SHORT_ANSWER, questions

SUITE = questions(
    "infographicvqa",
    "ANLS",
    columns={"ann_id": "questionId"},
    data="lmms-lab/DocVQA",
    config="InfographicVQA",
    split="validation",
    instruction=SHORT_ANSWER,
)
