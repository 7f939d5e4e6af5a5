"""What a suite is: what is asked of one kind of data set, and how answers become figures. `suites` has all of them.

A row becomes a sample (`runner.samples`), the model's answer to it a record (`runner.workers`), a record its scores
(`Suite.score`, plain numbers), and the scores of all samples the figures (`measure`, by `metrics`). No models here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.intervals import Combine, Estimate, Values, difference, interval, ratio
from evaluation.runner.schema import Manifest, Metric, Record, Truth
from vision_reasoner.data.sources import Row
from vision_reasoner.errors import DataError, UsageError, one_line
from vision_reasoner.results import Status, Task

Protocol = Literal["official", "upstream"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "upstream")
Scores = dict[str, float]
"""A sample's columns, by name."""
Published = dict[str, float]
"""A published figure by model, fractions."""
Table = Mapping[str, NDArray[np.float64]]
"""The scores of N samples, (N,) for each name, and "1": N ones."""

BUNDLED = Path(__file__).resolve().parent / "data"  # the small sets that come with the code


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
        counts: the score whose sum is the number that it is about; without any the figure is left out.
        given: a score whose sum must not be 0 for the figure to be of interest.
        least: how many images must carry it for an interval (`metrics.intervals`).
        n_of: what those are.
        scale: by what a fraction is multiplied.
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
    least: float = 0
    n_of: str = "samples"
    scale: float = 1

    def values(self, table: Table) -> Values | None:
        """Its columns, (N, K), for `metrics.intervals`; None where the set has nothing to compute it from."""
        if not {*self.of, self.counts, self.given} <= table.keys():
            return None
        if not (table[self.counts].any() and table[self.given].any()):
            return None
        return self.columns(*(table[name] for name in self.of))

    def estimate(self, values: Values, image_ids: Sequence[str]) -> Estimate:
        """The figure of N samples, from its columns."""
        found = interval(values, image_ids, self.combine, least=self.least)
        return Estimate(*(self.scale * number for number in found))

    def difference(self, first: Values, second: Values, image_ids: Sequence[str]) -> Estimate:
        """The figure of one run less that of another on the same N samples, from the columns of both."""
        found = difference(first, second, image_ids, self.combine, least=self.least)
        return Estimate(*(self.scale * number for number in found))


class Headline(NamedTuple):
    """The one number of a sample, by which the page sorts and two runs are compared sample by sample.

    Attributes:
        name: what it is; empty where `shown` says so itself.
        quality: from 0, the worst, to 1.
        shown: as people read it.
    """

    name: str
    quality: float
    shown: str


def first_score(_record: Record, scores: Scores) -> Headline:
    """The first of a sample's scores, a fraction."""
    name, value = next(iter(scores.items()))
    return Headline(name, value, f"{value:.2f}")


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
        needs: other fields that a row must have.
        headline: from a record without an error and its scores to the number that stands for it.
        data: what is evaluated where nothing is named: a folder of ours, or a Hub id. None: it has to be named.
        config: the Hub's name for the right one of several data sets in a repository.
        split: what is taken where none is named.
        instruction: is added to every request.
        ranked: whether average precision is computed too, for which boxes need a likelihood.
        prompted: whether the truth's boxes and points go to the segmenter, and the reasoner is not asked.
        by: columns by whose values the figures are given, too, where the data set has them.
        published: figures from VisionReasoner's paper (arXiv 2505.12081), by (data set, figure, protocol).
    """

    name: str
    task: Task
    query: str
    truth: Callable[[Row], Truth]
    score: Callable[[Record], Scores]
    figures: tuple[Figure, ...]
    needs: tuple[str, ...]
    data: str | None = None
    headline: Callable[[Record, Scores], Headline] = first_score
    columns: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ("image_id", "ann_id")
    config: str | None = None
    split: str = "test"
    instruction: str = ""
    ranked: bool = False
    prompted: bool = False
    by: tuple[str, ...] = ()
    published: Mapping[tuple[str, str, Protocol], Published] = field(default_factory=dict)

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

    def published_for(self, data: str, figure: str, protocol: str) -> Published | None:
        """What was published for a figure on the data set of this name; None where nothing was."""
        wanted = (_published_name(data), figure, protocol)
        found = {(_published_name(name), *rest): values for (name, *rest), values in self.published.items()}
        return found.get(wanted)


def unscored(suite: Suite) -> Suite:
    """The suite without truth, scores and figures, for data whose truth is not published.

    Raises:
        UsageError: it is none of questions, whose answers a test server takes.
    """
    if suite.task is not Task.VQA:
        raise UsageError(f"--submission: the suite {suite.name} asks no questions; test servers take answers alone")
    needs = tuple(name for name in suite.needs if name != "answers")
    return replace(
        suite,
        truth=lambda _: {},
        score=lambda _: {},
        headline=lambda *_: Headline("", 0.0, "–"),
        figures=(),
        needs=needs,
        by=(),
    )


# --- from scores to figures -------------------------------------------------------------------------------------------
def table_of(scores: Sequence[Scores]) -> Table:
    """The scores by name; a sample that lacks one counts 0 there, in counters and in what they count."""
    names = dict.fromkeys(name for one in scores for name in one)
    columns = {name: np.array([one.get(name, 0.0) for one in scores], dtype=np.float64) for name in names}
    return {**columns, "1": np.ones(len(scores))}


def scores_of(suite: Suite, record: Record) -> Scores:
    """The scores of a record without an error.

    Raises:
        DataError: its masks are damaged, or something is missing.
    """
    if "scores" in record:
        return record["scores"]
    try:
        return suite.score(record)
    except (DataError, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(f"sample {record['id']}: {one_line(error)}") from error


def measure(suite: Suite, scores: Sequence[Scores], image_ids: Sequence[str]) -> list[Metric]:
    """The figures of N samples with their 95 % intervals, as plain values.

    Args:
        suite: its `figures`; average precision is `runner.ranking.measure_ranking`'s.
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
            estimate = figure.estimate(values, image_ids)
            n = int(table[figure.counts].sum())
            found.append(
                figure_json(figure.name, figure.protocol, estimate, n, figure.unit, figure.label, n_of=figure.n_of)
            )
    return found


def figure_json(
    name: str,
    protocol: Protocol,
    estimate: Estimate,
    n: int,
    unit: str = "fraction",
    label: str | None = None,
    *,
    n_of: str = "samples",
) -> Metric:
    """A figure as metrics.json has it."""
    value, low, high = (number if math.isfinite(number) else None for number in estimate)
    return {
        "name": name,
        "protocol": protocol,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "n_of": n_of,
        "unit": unit,
        "label": label,
    }


# --- values of records ------------------------------------------------------------------------------------------------
def is_readable(record: Record) -> bool:
    """Whether a reply says which objects there are, even if that is none. What cannot be read is never right."""
    return bool(record["instances"]) or record["status"] in (Status.OK, Status.NONE)


def found_boxes(record: Record) -> list[list[int]]:
    """The boxes of an answer, xyxy in pixels of the image, in the model's order."""
    return [instance["box"] for instance in record["instances"]]


def found_count(record: Record) -> int:
    """How many objects an answer lists, or the number that the answer to a counting request states instead."""
    stated = record.get("answer") if record.get("task") == Task.COUNTING and not record["instances"] else None
    return len(record["instances"]) if stated is None else int(stated)


# --- names and published figures --------------------------------------------------------------------------------------
def plain_name(name: str) -> str:
    """A data set's name without case, dashes and underscores."""
    return "".join(character for character in name.lower() if character.isalnum())


def _published_name(data: str) -> str:
    """The paper's sets of counts are `counting_countbench`, ... on the Hub."""
    return plain_name(data).removeprefix("counting")


PAPERS_OWNERS = ("Ricky06662", "lmms-lab", "echo840")  # on the Hub
PAPERS_ROWS = {"ReasonSeg_val": 200, "ReasonSeg_test": 779}


def is_papers(manifest: Manifest) -> bool:
    """Whether a run is of a whole data set that the paper used: by its Hub id, and its size where that is known.

    A folder of the same name may hold anything.
    """
    owner, _, name = manifest["places"]["data"].partition("/")
    rows = manifest["data"]["rows"]
    whole = manifest["n"] == rows == PAPERS_ROWS.get(name, rows)
    return whole and owner in PAPERS_OWNERS and name == manifest["data"]["name"]


def percent(figures: Mapping[str, float]) -> Published:
    """Published percentages as fractions."""
    return {model: round(value / 100, 4) for model, value in figures.items()}
