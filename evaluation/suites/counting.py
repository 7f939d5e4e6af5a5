"""Counting: how many objects there are, as PixMo-Count and CountBench ask.

MAE and RMSE have no interval: a reply that goes on to the token limit counts hundreds, and where one in a hundred does,
a set of some hundreds says too little about how often (`python -m evaluation.metrics.coverage`).
"""

from evaluation.metrics import counting
from evaluation.metrics.intervals import NEVER
from evaluation.runner.schema import Record
from evaluation.suite import BUNDLED, Figure, Headline, Published, Scores, Suite, found_count, is_readable, percent
from evaluation.suites.detection import N_ACC
from evaluation.truth import count_of
from vision_reasoner.results import Task


def _score(record: Record) -> Scores:
    truth = count_of(record["truth"], "count")
    count = found_count(record)
    scores = counting.score(count if is_readable(record) else None, truth)
    return scores | {
        "true_count": truth,
        "no_target": float(truth == 0),
        "no_target_right": float(truth == 0 and scores["exact"]),
    }


def _headline(record: Record, scores: Scores) -> Headline:
    """The distance in count."""
    off = found_count(record) - record["truth"]["count"]
    if not scores.get("counted", 1):
        return Headline("", 0.0, "no count")
    return Headline("off" if off else "", 1 / (1 + abs(off)), f"{off:+d}".replace("-", "−") if off else "exact")


def _published(qwen: float, ours: float) -> Published:
    return percent({"Qwen2.5-VL-7B": qwen, "VisionReasoner-7B": ours})


SUITE = Suite(
    name="counting",
    task=Task.COUNTING,
    query="text",
    truth=lambda row: {"count": count_of(row, "count")},
    score=_score,
    headline=_headline,
    figures=(
        Figure("accuracy", "official", ("exact", "1")),
        Figure("accuracy", "upstream", ("upstream_exact", "1")),
        Figure("off-by-one accuracy", "official", ("off_by_one", "1")),
        Figure(
            "mean accuracy per true count",
            "official",
            ("exact", "true_count"),
            counting.mean_accuracy,
            counting.per_count,
        ),
        Figure("MAE", "official", ("absolute_error", "counted"), unit="objects", counts="counted", least=NEVER),
        Figure("MAE", "upstream", ("upstream_absolute_error", "1"), unit="objects", least=NEVER),
        Figure(
            "RMSE",
            "official",
            ("squared_error", "counted"),
            counting.rmse,
            unit="objects",
            counts="counted",
            least=NEVER,
        ),
        Figure("RMSE", "upstream", ("upstream_squared_error", "1"), counting.rmse, unit="objects", least=NEVER),
        N_ACC,
        Figure("replies with a count", "official", ("counted", "1")),
    ),
    needs=("count",),
    data=str(BUNDLED / "counting"),
    published={
        ("pixmo_validation", "accuracy", "upstream"): _published(58.1, 70.1),
        ("pixmo_test", "accuracy", "upstream"): _published(53.1, 70.7),
        ("countbench", "accuracy", "upstream"): _published(78.8, 89.2),
    },
)
