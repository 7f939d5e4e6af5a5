"""What is asked of each kind of data set, and how answers become figures: a `Suite` is data and small pure functions.

A row becomes a sample (`samples`), the model's answer to it a record (`workers`), a record its scores (`Suite.score`,
plain numbers), and the scores of all samples the figures (`measure`, by `metrics`). No models here.

A new data set is a `Suite` in `SUITES`: mostly the names of its columns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import boxes, counting, segmentation, text
from evaluation.metrics.bootstrap import Combine, Estimate, Values, interval, ratio
from vision_reasoner.data.sources import Row
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.images import load_image
from vision_reasoner.masks import RunLengths, check_run_lengths, encode_mask
from vision_reasoner.results import Task

Protocol = Literal["official", "upstream"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "upstream")
Record = Mapping[str, Any]
"""A line of a run's samples.jsonl; see `records`."""
Scores = dict[str, float]
Table = Mapping[str, NDArray[np.float64]]
"""The scores of N samples, (N,) for each name, and "1": N ones."""

BUNDLED = Path(__file__).resolve().parent / "data"
SHORTLY = "\nAnswer the question using a single word or phrase."  # as lmms-eval asks


# --- what a suite is --------------------------------------------------------------------------------------------------
def _stack(*columns: NDArray[np.float64]) -> Values:
    return np.column_stack(columns)


@dataclass(frozen=True)
class Figure:
    """One number for a whole set.

    Attributes:
        name: what it is.
        protocol: "official", or "upstream" for the original repository's way.
        of: names of the scores that it is computed from.
        combine: takes their sums over the samples to the figure.
        columns: takes them to columns (N, K), where sums of the scores themselves do not do.
        unit: "fraction", or what it counts.
        label: what the original prints it as, where that is another name.
        counts: the score whose sum is the number of samples that it is about; without any the figure is left out.
        given: a score whose sum must not be 0 for the figure to be of interest.
    """

    name: str
    protocol: Protocol
    of: tuple[str, ...]
    combine: Combine = ratio
    columns: Callable[..., Values] = _stack
    unit: str = "fraction"
    label: str | None = None
    counts: str = "1"
    given: str = "1"

    def values(self, table: Table) -> Values | None:
        """Its columns, (N, K), for `metrics.bootstrap`; None where the set has nothing to compute it from."""
        if not {*self.of, self.counts, self.given} <= table.keys():
            return None
        if not (table[self.counts].any() and table[self.given].any()):
            return None
        return self.columns(*(table[name] for name in self.of))


@dataclass(frozen=True)
class Suite:
    """One kind of data set.

    Attributes:
        name: what it is called on the command line.
        task: what is asked of the model.
        query: the field that holds the request.
        truth: from a row by fields to what scoring needs, as plain values.
        score: from a record without an error to its scores.
        figures: what sums them up.
        columns: field to column, where the data set calls it otherwise. Fields are those of the original's sets.
        optional: fields that may be missing.
        data: what is evaluated where nothing is named: a folder of ours, or a Hub id.
        config: the Hub's name for the right one of several data sets in a repository.
        split: what is taken where none is named.
        instruction: is added to every request.
        ranked: whether average precision is computed too, for which boxes need a likelihood.
    """

    name: str
    task: Task
    query: str
    truth: Callable[[Row], dict[str, Any]]
    score: Callable[[Record], Scores]
    figures: tuple[Figure, ...]
    needs: tuple[str, ...]
    data: str
    columns: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ("image_id", "ann_id")
    config: str | None = None
    split: str = "test"
    instruction: str = ""
    ranked: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """All that a row may have."""
        return ("image", self.query, *self.needs, *self.optional)

    def with_columns(self, columns: Mapping[str, str]) -> "Suite":
        """The same for a data set with other names.

        Raises:
            UsageError: there is no such field.
        """
        if unknown := sorted(columns.keys() - set(self.fields)):
            raise UsageError(
                f"--columns: the suite {self.name} has no field {', '.join(unknown)}; it has {', '.join(self.fields)}"
            )
        return replace(self, columns={**self.columns, **columns})

    def column(self, name: str) -> str:
        """The column that holds a field."""
        return self.columns.get(name, name)


# --- from scores to figures -------------------------------------------------------------------------------------------
def table_of(scores: Sequence[Scores]) -> Table:
    """The scores by name; a sample that lacks one counts 0 there, in counters and in what they count."""
    names = dict.fromkeys(name for one in scores for name in one)
    columns = {name: np.array([one.get(name, 0.0) for one in scores], dtype=np.float64) for name in names}
    return {**columns, "1": np.ones(len(scores))}


def scores_of(suite: Suite, record: Record) -> Scores:
    """The scores of a record without an error.

    Raises:
        DataError: its masks are damaged.
    """
    try:
        return suite.score(record)
    except DataError as error:
        raise DataError(f"sample {record['id']}: {error}") from error


def measure(suite: Suite, scores: Sequence[Scores], image_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The figures of N samples with their 95 % intervals, as plain values.

    Args:
        suite: its `figures`; average precision is `ranking.measure_ranking`'s.
        scores: of each sample, in the order of the data set.
        image_ids: of each sample.
    """
    if not scores:
        return []
    table = table_of(scores)
    found = []
    for figure in suite.figures:
        values = figure.values(table)
        if values is not None:
            estimate = interval(values, image_ids, figure.combine)
            found.append(
                figure_json(
                    figure.name, figure.protocol, estimate, int(table[figure.counts].sum()), figure.unit, figure.label
                )
            )
    return found


def figure_json(
    name: str, protocol: Protocol, estimate: Estimate, n: int, unit: str = "fraction", label: str | None = None
) -> dict[str, Any]:
    """A figure as metrics.json has it; None stands for "there is none"."""
    value, low, high = (number if math.isfinite(number) else None for number in estimate)
    return {
        "name": name,
        "protocol": protocol,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "unit": unit,
        "label": label,
    }


# --- segmentation -----------------------------------------------------------------------------------------------------
def _mask(value: Any) -> RunLengths:
    """A mask, however it is stored, as run lengths: (H, W), COCO's run lengths, or a picture that is not 0 inside."""
    if isinstance(value, Mapping) and "counts" in value:
        return check_run_lengths(value)
    if isinstance(value, Mapping):
        return encode_mask(np.asarray(load_image(value["bytes"] or value["path"]).convert("L")) > 0)
    mask = np.asarray(value, dtype=np.bool_)
    if mask.ndim != 2:
        raise ValueError(f"its mask has the shape {mask.shape} and not (H, W)")
    return encode_mask(mask)


def _boxes(value: Any) -> list[list[float]]:
    """One box or a list of them as a list, xyxy in pixels."""
    array = np.asarray(value, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(array).all():
        raise ValueError("its box is not of numbers")
    return [[int(v) if v == int(v) else v for v in box] for box in array.tolist()]


def _segmentation_truth(row: Row) -> dict[str, Any]:
    truth: dict[str, Any] = {"mask": _mask(row["mask"])}
    if row.get("ignore") is not None:
        truth["ignore"] = _mask(row["ignore"])
    if row.get("bbox") is not None:
        truth["boxes"] = _boxes(row["bbox"])
    return truth


def _segmentation_score(record: Record) -> Scores:
    truth = record["truth"]
    masks = [instance["mask"] for instance in record["instances"] if instance["mask"]]
    ignore = [truth["ignore"]] if "ignore" in truth else []
    scores = segmentation.score(masks, [truth["mask"]], ignore=ignore)
    return scores | boxes.score(_found(record), truth["boxes"]) if "boxes" in truth else scores


def _found(record: Record) -> list[list[int]]:
    return [instance["box"] for instance in record["instances"]]


_MATCHING = (
    Figure("precision at IoU 0.5", "official", ("matched", "predicted"), counts="true"),
    Figure("recall at IoU 0.5", "official", ("matched", "true"), counts="true"),
    Figure("F1 at IoU 0.5", "official", ("matched", "predicted", "true"), boxes.f1, counts="true"),
)
_SEGMENTATION = (
    Figure("gIoU", "official", ("iou", "1")),
    Figure("gIoU", "upstream", ("upstream_iou", "1")),
    Figure("cIoU", "official", ("intersection", "union")),
    Figure("cIoU", "upstream", ("upstream_intersection", "upstream_union")),
    Figure("N-acc", "official", ("no_target_right", "no_target"), counts="no_target"),
    Figure("T-acc", "official", ("target_right", "target"), counts="target", given="no_target"),
    Figure("box accuracy", "official", ("first_box", "one_box"), counts="one_box"),
    Figure("box accuracy", "upstream", ("any_box", "one_box"), counts="one_box", label="bbox_AP"),
    *_MATCHING,
)


# --- detection --------------------------------------------------------------------------------------------------------
def _detection_truth(row: Row) -> dict[str, Any]:
    return {"boxes": _boxes(row["bbox"]), "category_id": int(row["cat_id"])}


def _detection_score(record: Record) -> Scores:
    return boxes.score(_found(record), record["truth"]["boxes"])


# --- counting ---------------------------------------------------------------------------------------------------------
def _counting_score(record: Record) -> Scores:
    truth = record["truth"]["count"]
    count = len(record["instances"])
    readable = count > 0 or record["status"] in ("ok", "none")
    return counting.score(count if readable else None, truth) | {"true_count": truth}


_COUNTING = (
    Figure("accuracy", "official", ("exact", "1")),
    Figure("accuracy", "upstream", ("upstream_exact", "1")),
    Figure("off-by-one accuracy", "official", ("off_by_one", "1")),
    Figure(
        "mean accuracy per true count", "official", ("exact", "true_count"), counting.mean_accuracy, counting.per_count
    ),
    Figure("MAE", "official", ("absolute_error", "counted"), unit="objects", counts="counted"),
    Figure("MAE", "upstream", ("upstream_absolute_error", "1"), unit="objects"),
    Figure("RMSE", "official", ("squared_error", "counted"), counting.rmse, unit="objects", counts="counted"),
    Figure("RMSE", "upstream", ("upstream_squared_error", "1"), counting.rmse, unit="objects"),
    Figure("replies with a count", "official", ("counted", "1")),
)


# --- questions --------------------------------------------------------------------------------------------------------
ANSWER_SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "ANLS": text.anls,
    "VQA accuracy": text.vqa_accuracy,
    "TextVQA accuracy": text.textvqa_accuracy,
    "relaxed accuracy": text.relaxed_accuracy,
    "exact match": text.exact_match,
    "contains": text.contains,
}


def _answers_truth(row: Row) -> dict[str, Any]:
    value = row["answers"]
    answers = [str(answer) for answer in ([value] if isinstance(value, str | int | float) else value or ())]
    if not answers:
        raise ValueError("it has no answers; is this a split whose answers are not published?")
    # OCRBench takes formulas out of handwritten mathematics for something else than text.
    return {"answers": answers, **({"formula": True} if row.get("dataset") == "HME100k" else {})}


def _answers_score(*names: str) -> Callable[[Record], Scores]:
    def score(record: Record) -> Scores:
        truth, answer = record["truth"], record["answer"] or ""
        if truth.get("formula"):
            return {name: text.contains(answer, truth["answers"], formula=True) for name in names}
        return {name: ANSWER_SCORES[name](answer, truth["answers"]) for name in names}

    return score


def _questions(name: str, *scores: str, **options: Any) -> Suite:
    return Suite(
        name=name,
        task=Task.VQA,
        query="question",
        truth=_answers_truth,
        score=_answers_score(*scores),
        figures=tuple(Figure(score, "official", (score, "1")) for score in scores),
        needs=("answers",),
        **options,
    )


# --- the suites -------------------------------------------------------------------------------------------------------
_ALL = (
    Suite(
        name="segmentation",
        task=Task.SEGMENTATION,
        query="text",
        truth=_segmentation_truth,
        score=_segmentation_score,
        figures=_SEGMENTATION,
        needs=("mask",),
        optional=("ignore", "bbox", "image_id", "ann_id"),
        data=str(BUNDLED / "segmentation"),
    ),
    Suite(
        name="detection",
        task=Task.DETECTION,
        query="text",
        truth=_detection_truth,
        score=_detection_score,
        figures=_MATCHING,
        needs=("bbox", "cat_id", "image_id"),
        optional=("ann_id",),
        data=str(BUNDLED / "detection"),
        ranked=True,
    ),
    Suite(
        name="counting",
        task=Task.COUNTING,
        query="text",
        truth=lambda row: {"count": int(row["count"])},
        score=_counting_score,
        figures=_COUNTING,
        needs=("count",),
        data=str(BUNDLED / "counting"),
    ),
    _questions("vqa", "exact match", "ANLS", "relaxed accuracy", data=str(BUNDLED / "vqa")),
    _questions(
        "docvqa",
        "ANLS",
        columns={"image_id": "docId", "ann_id": "questionId"},
        data="lmms-lab/DocVQA",
        config="DocVQA",
        split="validation",
        instruction=SHORTLY,
    ),
    _questions(
        "chartqa", "relaxed accuracy", columns={"answers": "answer"}, data="lmms-lab/ChartQA", instruction=SHORTLY
    ),
    _questions(
        "textvqa",
        "TextVQA accuracy",
        columns={"ann_id": "question_id"},
        data="lmms-lab/textvqa",
        split="validation",
        instruction=SHORTLY,
    ),
    _questions("realworldqa", "exact match", columns={"answers": "answer"}, data="lmms-lab/RealWorldQA"),
    _questions(
        "ocrbench",
        "contains",
        columns={"answers": "answer"},
        optional=("dataset", "image_id", "ann_id"),
        data="echo840/OCRBench",
    ),
)
SUITES = {suite.name: suite for suite in _ALL}


def choose_suite(name: str, data: str | None) -> Suite:
    """The suite called `name`; for "vqa" that of the data set, where its name is one of the published ones."""
    last = Path(data).name if data else ""
    if name == "vqa" and plain_name(last) in SUITES:
        return SUITES[plain_name(last)]
    return SUITES[name]


def plain_name(name: str) -> str:
    """A data set's name without case, dashes and underscores."""
    return "".join(character for character in name.lower() if character.isalnum())
