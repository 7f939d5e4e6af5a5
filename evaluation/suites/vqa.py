"""Questions with short answers: the bundled set, and what the sets of questions have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from evaluation.metrics import text
from evaluation.runner.schema import Record, Truth
from evaluation.suite import BUNDLED, Figure, Scores, Suite
from evaluation.truth import answers_of
from vision_reasoner.data.sources import Row
from vision_reasoner.results import Task

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."  # as lmms-eval asks

METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "ANLS": text.anls,
    "VQA accuracy": text.vqa_accuracy,
    "TextVQA accuracy": text.textvqa_accuracy,
    "relaxed accuracy": text.relaxed_accuracy,
    "exact match": text.exact_match,
    "contains": text.contains,
    "choice": text.choice,
}
"""From the model's answer and the true ones to a score from 0 to 1."""


def questions(name: str, *metrics: str, **options: Any) -> Suite:
    """A suite of questions.

    Args:
        name: of the suite. `--suite vqa` chooses it for a data set of this name.
        metrics: names of METRICS; the first is the headline.
        options: other attributes of `Suite`.
    """
    return Suite(
        name=name,
        task=Task.VQA,
        query="question",
        truth=_truth,
        score=_score(metrics),
        figures=tuple(Figure(metric, "official", (metric, "1")) for metric in metrics),
        needs=("answers",),
        **options,
    )


def _truth(row: Row) -> Truth:
    answers = answers_of(row, "answers")
    # OCRBench compares formulas of its handwritten mathematics in another way than text.
    return {"answers": answers, **({"formula": True} if row.get("dataset") == "HME100k" else {})}


def _score(metrics: Sequence[str]) -> Callable[[Record], Scores]:
    def score(record: Record) -> Scores:
        truth, answer = record["truth"], record["answer"] or ""
        if truth.get("formula"):
            return {name: text.contains(answer, truth["answers"], formula=True) for name in metrics}
        return {name: METRICS[name](answer, truth["answers"]) for name in metrics}

    return score


SUITE = questions("vqa", "exact match", "ANLS", "relaxed accuracy", data=str(BUNDLED / "vqa"))
