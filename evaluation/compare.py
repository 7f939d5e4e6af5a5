"""Runs on the same samples: how each figure differs, with its interval, and which samples changed.

    python -m evaluation.compare results/before results/after
    python -m evaluation.compare results/base results/one results/two          # each with the first
    python -m evaluation.compare results/before results/after --json > difference.json

Differences are the other run's minus the first's. They are paired by image, so that what is hard for both cancels out,
and the interval is far narrower than those of the two figures. Samples that failed in either run are in no figure.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from evaluation.metrics import coco
from evaluation.metrics.intervals import Estimate
from evaluation.runner.figures import aligned
from evaluation.runner.options import add_suite_option
from evaluation.runner.ranking import NAMES, Annotations, load_annotations, rank, ranked_protocols
from evaluation.runner.records import INSTANCES, read_manifest, read_records
from evaluation.runner.schema import Data, Manifest, Record
from evaluation.suite import Protocol, Scores, Suite, scores_of, table_of
from evaluation.suites import add_suite, suite_of
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import UsageError

Result = tuple[Record, Scores | None]
"""A record and its scores, None where it failed."""


class Difference(TypedDict):
    """A figure in both runs; its difference, second minus first, with a 95 % interval; None: there is none."""

    name: str
    protocol: str
    unit: str
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None


ChangedSample = TypedDict(
    "ChangedSample",
    {
        "id": str,
        "query": str,
        "measure": str,
        "from": str,
        "to": str,
        "change": float | None,  # of the headline's quality; None where one run failed
    },
)


class Comparison(TypedDict):
    """Two runs on the same data, plain values."""

    suite: str
    data: Data
    runs: list[str]
    n: int
    """Samples that both runs have without an error; figures are of these."""
    left_out: int
    figures: list[Difference]
    changed: list[ChangedSample]
    """Samples with another score, the largest change first."""


SHOWN = 20  # changed samples on the terminal


class Side(NamedTuple):
    """A run, read."""

    folder: Path
    manifest: Manifest
    results: dict[int, Result]


def read_side(folder: Path) -> Side:
    """A finished run.

    Raises:
        DataError: it is none.
    """
    manifest = read_manifest(folder)
    return Side(folder, manifest, _results(suite_of(manifest), folder))


def compare(first: Path, second: Path) -> Comparison:
    """Compare two finished runs.

    Args:
        first: a run's folder, what is compared with.
        second: the folder of another run on the same data.

    Raises:
        UsageError: the runs are not of one suite and data set.
        DataError: a folder holds no finished run.
    """
    return compare_all([first, second])[0]


def compare_all(folders: Sequence[Path]) -> list[Comparison]:
    """Compare each of several finished runs with the first; errors are those of `compare`."""
    _check_same([(folder, read_manifest(folder)) for folder in folders])
    first, *others = (read_side(folder) for folder in folders)
    return [_compared(first, other) for other in others]


def _check_same(runs: Sequence[tuple[Path, Manifest]]) -> None:
    """Raise a UsageError unless all runs are of the first's suite and data."""
    first, one = runs[0]
    for second, two in runs[1:]:
        if one["suite"] != two["suite"]:
            raise UsageError(
                f"{first} and {second} are runs of {one['suite']} and {two['suite']}; give runs of one suite"
            )
        if one["data"]["fingerprint"] != two["data"]["fingerprint"]:
            names = [f"{m['data']['name']} ({m['data']['fingerprint'][:12]})" for m in (one, two)]
            raise UsageError(
                f"{first} and {second} are runs on different data, {names[0]} and {names[1]}; give runs on the same"
            )


def _compared(one: Side, two: Side) -> Comparison:
    """The second run beside the first."""
    suite, manifests, runs = suite_of(one.manifest), (one.manifest, two.manifest), (one.results, two.results)
    first, second = one.folder, two.folder
    pairs = [(runs[0][index], runs[1][index]) for index in sorted(runs[0].keys() & runs[1].keys())]
    both = [(one, two) for one, two in pairs if one[1] is not None and two[1] is not None]
    for (before, _), (after, _) in both:
        if before["truth_digest"] != after["truth_digest"]:
            raise UsageError(
                f"{first} and {second} have different truths for sample {before['id']}; give runs on the same data"
            )
    figures = _figures(suite, both)
    if suite.ranked and both:
        figures += _ranked(load_annotations(first / INSTANCES), both, ranked_protocols(manifests[0], len(both)))
    return {
        "suite": suite.name,
        "data": manifests[0]["data"],
        "runs": [str(first), str(second)],
        "n": len(both),
        "left_out": len(runs[0].keys() | runs[1].keys()) - len(both),
        "figures": figures,
        "changed": _changed(suite, pairs),
    }


def _results(suite: Suite, folder: Path) -> dict[int, Result]:
    """Records with their scores, by number."""
    return {
        record["index"]: (record, None if record["error"] is not None else scores_of(suite, record))
        for record in read_records(folder)
    }


def _figures(suite: Suite, pairs: Sequence[tuple[Result, Result]]) -> list[Difference]:
    """Each figure that both runs have."""
    tables = [table_of([pair[k][1] or {} for pair in pairs]) for k in (0, 1)]
    image_ids = [one[0]["image_id"] for one, _ in pairs]
    found = []
    for figure in suite.figures:
        one, two = (figure.values(table) for table in tables)
        if one is not None and two is not None:
            estimate = figure.difference(two, one, image_ids)
            values = [figure.estimate(columns, image_ids).value for columns in (one, two)]
            found.append(_figure_json(figure.name, figure.protocol, figure.unit, values, estimate))
    return found


def _ranked(
    annotations: Annotations, pairs: Sequence[tuple[Result, Result]], protocols: Sequence[Protocol]
) -> list[Difference]:
    """Average precision; without an interval where `metrics.coco` has none."""
    found = []
    for protocol in protocols:
        one, two = (rank(annotations, [pair[k][0] for pair in pairs], protocol) for k in (0, 1))
        if one is None or two is None:
            continue
        estimates = coco.differences(two, one)
        for name in NAMES:
            values = [one.figures[name], two.figures[name]]
            estimate = estimates.get(name, Estimate(values[1] - values[0], math.nan, math.nan))
            found.append(_figure_json(f"COCO {name}", protocol, "fraction", values, estimate))
    return found


def _figure_json(name: str, protocol: str, unit: str, values: Sequence[float], estimate: Sequence[float]) -> Difference:
    first, second, gain, low, high = (v if math.isfinite(v) else None for v in (*values, *estimate))
    return {
        "name": name,
        "protocol": protocol,
        "unit": unit,
        "first": first,
        "second": second,
        "difference": gain,
        "low": low,
        "high": high,
    }


def _changed(suite: Suite, pairs: Sequence[tuple[Result, Result]]) -> list[ChangedSample]:
    """Samples with another score; those that failed in one run alone first, then the largest change."""
    found: list[ChangedSample] = []
    for one, two in pairs:
        before, after = (None if scores is None else suite.headline(record, scores) for record, scores in (one, two))
        if before == after:
            continue
        found.append(
            {
                "id": one[0]["id"],
                "query": one[0]["query"],
                "measure": (before or after or ("",))[0],
                "from": before.shown if before else "error",
                "to": after.shown if after else "error",
                "change": after.quality - before.quality if before and after else None,
            }
        )
    return sorted(found, key=lambda sample: -math.inf if sample["change"] is None else -abs(sample["change"]))


def table(found: Comparison, shown: int = SHOWN) -> str:
    """What `compare` gave, for people: the figures, and the first `shown` of the samples that changed."""
    data = found["data"]
    lines = [
        f"{found['suite']} on {data['name']} ({data['split']}, {data['fingerprint'][:12]}): "
        f"{found['n']} samples of both, {found['left_out']} left out",
        *(f"{letter}: {folder}" for letter, folder in zip("AB", found["runs"], strict=True)),
        "",
    ]
    cells = [["", "protocol", "A", "B", "B - A", "95 %", ""], *map(_cells, found["figures"])]
    lines += aligned(cells, right=(2, 3, 4))
    changed = found["changed"]
    better, worse = (sum(sign * (sample["change"] or 0) > 0 for sample in changed) for sign in (1, -1))
    lines += ["", f"{len(changed)} samples changed: {better} for the better, {worse} for the worse"]
    width = max((len(sample["id"]) for sample in changed[:shown]), default=0)
    for sample in changed[:shown]:
        query = " ".join(sample["query"].split())
        lines.append(f"{sample['id']:<{width}}  {sample['from']:>8} -> {sample['to']:<8}  {query[:70]}")
    if len(changed) > shown:
        lines.append(f"... and {len(changed) - shown} more; --json has all")
    return "\n".join(lines)


def _cells(figure: Difference) -> list[str]:
    """A figure's row: fractions as percent, a star where the interval leaves 0 out."""
    factor, digits = (100, 1) if figure["unit"] == "fraction" else (1, 2)

    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{factor * value:{sign}.{digits}f}"

    interval, star = "", ""
    low, high = figure["low"], figure["high"]
    if low is not None and high is not None:
        interval = f"[{number(low, '+')}, {number(high, '+')}]"
        star = "" if low <= 0 <= high else "*"
    return [
        figure["name"],
        figure["protocol"],
        number(figure["first"]),
        number(figure["second"]),
        number(figure["difference"], "+"),
        interval,
        star,
    ]


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.compare", __doc__)
    parser.add_argument("first", type=Path, help="A: a run's --output_path")
    parser.add_argument("others", type=Path, nargs="+", help="B: another's; of several each is compared with A")
    parser.add_argument("--json", action="store_true", help="print JSON, with all changed samples; of several a list")
    add_suite_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare runs; exit codes are those of the library's command line."""

    def run(arguments: argparse.Namespace) -> int:
        if arguments.suite is not None:
            add_suite(arguments.suite)
        found = compare_all([arguments.first, *arguments.others])
        if arguments.json:
            print(json.dumps(found[0] if len(found) == 1 else found, allow_nan=False, indent=2))
        else:
            print("\n\n".join(map(table, found)))
        return 0

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
