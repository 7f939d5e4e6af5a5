"""TextVQA: questions about text in photographs."""

from evaluation.suites.vqa import SHORT_ANSWER, questions

SUITE = questions(
    "textvqa",
    "TextVQA accuracy",
    columns={"ann_id": "question_id"},
    data="lmms-lab/textvqa",
    split="validation",
    instruction=SHORT_ANSWER,
)
