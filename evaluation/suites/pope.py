"""POPE: whether an object is in the image, yes or no (arXiv 2305.10355)."""

from dataclasses import replace

from evaluation.metrics import boxes, text
from evaluation.runner.schema import Record
from evaluation.suite import Figure, Scores
from evaluation.suites.vqa import SHORT_ANSWER, questions


def _score(record: Record) -> Scores:
    answer = record["answer"] or ""
    true, said = record["truth"]["answers"][0].strip().lower() == "yes", bool(answer) and text.says_yes(answer)
    return {
        "accuracy": float(bool(answer) and said == true),
        "said": float(said),
        "true": float(true),
        "both": float(said and true),
    }


SUITE = replace(
    questions(
        "pope",
        columns={"answers": "answer", "ann_id": "question_id"},
        by=("category",),
        data="lmms-lab/POPE",
        instruction=SHORT_ANSWER,
    ),
    score=_score,
    figures=(
        Figure("accuracy", "official", ("accuracy", "1")),
        Figure("precision of yes", "official", ("both", "said"), counts="said"),
        Figure("recall of yes", "official", ("both", "true"), counts="true"),
        Figure("F1 of yes", "official", ("both", "said", "true"), columns=boxes.f1, counts="true"),
        Figure("share of yes", "official", ("said", "1")),
    ),
)
