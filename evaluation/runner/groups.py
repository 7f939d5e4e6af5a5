"""Figures by the values of a column: for each the figures of its samples alone.

A record holds the short values of all columns of its row (`samples.Samples`), so that a run that is done can be looked
at by any of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.metrics.segmentation import overlap
from evaluation.runner.ranking import Annotations, measure_ranking
from evaluation.runner.samples import is_short
from evaluation.runner.schema import Group, Grouped, Metric, Record
from evaluation.suite import Scores, Suite, measure
from vision_reasoner.errors import UsageError

TARGETS = "targets"
"""Stands for the number of true objects where the data set has no such column."""
MOST_GROUPS = 200  # each has intervals of its own
NOTHING = "(none)"

Scored = tuple[Record, Scores | None]
"""A record and its scores, None where it failed."""


def grouped(suite: Suite, samples: Sequence[Scored], column: str, annotations: Annotations | None = None) -> Grouped:
    """The figures by the values of a column. Average precision is that of the official protocol alone.

    Args:
        suite: of the run.
        samples: all of the run, in the order of the data set, with the columns of `columns_of`. Those with several
            values are in several groups.
        column: of the data set, or `TARGETS`.
        annotations: of the data set, where the suite ranks boxes.

    Raises:
        UsageError: the records do not have it, or it has too many values.
    """
    groups: dict[str, list[Scored]] = {}
    for sample in samples:
        for value in _values(sample[0]["columns"].get(column)):
            groups.setdefault(value, []).append(sample)
    columns = (item for record, _ in samples for item in record["columns"].items())
    check_values(column, groups, sorted({name for name, value in columns if value is not None}))
    return {
        "column": column,
        "groups": [_group(suite, value, groups[value], annotations) for value in sorted(groups, key=_order)],
    }


def check_values(column: str, values: Iterable[Any], known: Iterable[str] = ()) -> None:
    """Check that there can be figures by the values of a column, which are those of its rows.

    Args:
        column: its name.
        values: of it.
        known: names of columns, for the message.

    Raises:
        UsageError: none is short, or there are too many.
    """
    found = {text for value in values for text in _values(value if is_short(value) else None)}
    if found <= {NOTHING}:
        raise UsageError(f"--by {column}: there is no such column with short values; there are: {', '.join(known)}")
    if len(found) > MOST_GROUPS:
        raise UsageError(f"--by {column}: has {len(found):,} values; give a column with {MOST_GROUPS} at most")


def _group(suite: Suite, value: str, samples: Sequence[Scored], annotations: Annotations | None) -> Group:
    finished = [(record, scores) for record, scores in samples if scores is not None]
    figures: list[Metric] = measure(
        suite, [scores for _, scores in finished], [record["image_id"] for record, _ in finished]
    )
    if annotations is not None and finished:
        figures += measure_ranking(annotations, [record for record, _ in finished], ["official"])
    return {"value": value, "n": len(samples), "errors": len(samples) - len(finished), "figures": figures}


def columns_of(record: Record) -> dict[str, Any]:
    """What a record can be grouped by: its columns, and `TARGETS`."""
    return {TARGETS: _targets(record.get("truth", {})), **record.get("columns", {})}


def _values(value: Any) -> list[str]:
    """The values of a column of a record, as text."""
    values = value if isinstance(value, list) else [value]
    return [NOTHING if one is None else _text(one) for one in values] or [NOTHING]


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _targets(truth: Mapping[str, Any]) -> str | None:
    """How many objects there are, as far as the truth says."""
    if "count" in truth:
        return str(truth["count"])
    if "boxes" in truth:
        return str(len(truth["boxes"]))
    if "mask" in truth:
        return "1 or more" if overlap([], [truth["mask"]]).truth else "0"
    return None


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    return not math.isfinite(number), number if math.isfinite(number) else 0.0, value
