"""VQAv2: questions about photographs, each with ten people's answers."""

from evaluation.suites.vqa import SHORT_ANSWER, questions

SUITE = questions(
    "vqav2",
    "VQA accuracy",
    columns={"ann_id": "question_id"},
    data="lmms-lab/VQAv2",
    split="validation",
    instruction=SHORT_ANSWER,
)
