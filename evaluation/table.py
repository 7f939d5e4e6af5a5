"""Several finished runs, of one suite or many, in one table: a row for each figure, a column for each checkpoint.

    python -m evaluation.table results/*/*/VisionReasoner-7B results/*/*/Qwen2.5-VL-7B-Instruct
    python -m evaluation.table results/vqa/*/* --figure "exact match" --figure ANLS --format latex > table.tex
    python -m evaluation.table results/*/*/* --format csv > all.csv

Markdown and LaTeX (with booktabs) have values with 95 % intervals, shares in percent; CSV has a line for each run and
figure, shares as fractions. Values stand in one row only where data set, split, number of samples and protocol are the
same. Figures are those of the runs' metrics.json; `evaluation.report` makes them anew.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from evaluation.runner.figures import shown_number
from evaluation.runner.records import METRICS, read_json, read_manifest
from evaluation.runner.schema import Metric, Metrics
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import DataError, UsageError

CSV_COLUMNS = (
    *("run", "suite", "data", "split", "fingerprint", "samples", "errors", "checkpoint", "model", "compat"),
    *("figure", "protocol", "unit", "value", "low", "high", "n"),
)
LATEX = str.maketrans({**{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})


class Run(NamedTuple):
    """A finished run: its folder as it was given, and what its metrics.json holds."""

    folder: Path
    metrics: Metrics


class Place(NamedTuple):
    """The row of a figure: values of one row can be compared."""

    suite: str
    data: str
    split: str
    fingerprint: str
    samples: int
    figure: str
    protocol: str


def read_run(folder: Path) -> Run:
    """A finished run.

    Raises:
        DataError: it is none, or its figures are not there.
    """
    read_manifest(folder)
    run = Run(folder, cast("Metrics", read_json(folder / METRICS)))
    try:
        cells_of([run])  # looks at all that a table has
        comma_separated([run])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder / METRICS}: is damaged; python -m evaluation.report {folder} makes it anew"
        ) from error
    return run


def chosen(runs: Sequence[Run], names: Sequence[str], protocol: str) -> list[Run]:
    """The runs with the figures of these names and protocol alone.

    Args:
        runs: finished ones.
        names: of figures; none for all.
        protocol: "official", "upstream" or "both".

    Raises:
        UsageError: no run has a figure of a name.
    """
    known = dict.fromkeys(figure["name"] for run in runs for figure in run.metrics["figures"])
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--figure {unknown[0]}: no run has it; there are {', '.join(known) or 'none'}")

    def wanted(figure: Metric) -> bool:
        return (not names or figure["name"] in names) and protocol in ("both", figure["protocol"])

    return [
        run._replace(metrics={**run.metrics, "figures": [one for one in run.metrics["figures"] if wanted(one)]})
        for run in runs
    ]


def columns_of(runs: Sequence[Run]) -> list[str]:
    """What each run's column is called: its checkpoint, and its folder where that does not tell two runs apart."""
    names = [_name(run.metrics) for run in runs]
    places = [(name, *_data(run.metrics)) for name, run in zip(names, runs, strict=True)]
    if len(set(places)) == len(places) and len(_weights(runs)) == len(set(names)):
        return names
    return [str(run.folder) for run in runs]


def _name(metrics: Metrics) -> str:
    details = [
        metrics["model"] if metrics["model"] != "vision_reasoner" else "",
        metrics["compat"] if metrics["compat"] != "none" else "",
    ]
    return ", ".join(filter(None, [metrics["checkpoint"]["reasoner"]["name"], *details]))


def _weights(runs: Sequence[Run]) -> set[tuple[str, str, str]]:
    """The different checkpoints, by name and digest."""
    parts = [(_name(run.metrics), run.metrics["checkpoint"]["reasoner"]) for run in runs]
    return {(name, part.get("digest", ""), part.get("served_as", "")) for name, part in parts}


def _data(metrics: Metrics) -> tuple[str, str, str, str, int]:
    data = metrics["data"]
    return metrics["suite"], data["name"], data["split"], data["fingerprint"], metrics["n"]


def cells_of(runs: Sequence[Run]) -> list[list[str]]:
    """The table, its head first: suite, data set, samples, figure, and a value for each column."""
    names = columns_of(runs)
    columns = list(dict.fromkeys(names))
    rows: dict[Place, dict[str, str]] = {}
    for name, run in zip(names, runs, strict=True):
        failed = f" ({run.metrics['errors']} failed)" if run.metrics["errors"] else ""
        for figure in run.metrics["figures"]:
            place = Place(*_data(run.metrics), figure["name"], figure["protocol"])
            rows.setdefault(place, {})[name] = shown_number(figure) + failed
    order = {data: number for number, data in enumerate(dict.fromkeys(place[:5] for place in rows))}
    cells = [["suite", "data", "samples", "figure", *columns]]
    for place in sorted(rows, key=lambda place: order[place[:5]]):  # stable: figures stay in a run's order
        values = [rows[place].get(name, "") for name in columns]
        shown = place.figure if place.protocol == "official" else f"{place.figure} ({place.protocol})"
        cells.append([place.suite, _data_name(place, rows), str(place.samples), shown, *values])
    return cells


def _data_name(place: Place, rows: Iterable[Place]) -> str:
    """Name and split; with the fingerprint where another set of the suite has both."""
    prints = {other.fingerprint for other in rows if other[:3] == place[:3]}
    return f"{place.data} {place.split}" + (f" ({place.fingerprint[:12]})" if len(prints) > 1 else "")


def markdown(runs: Sequence[Run]) -> str:
    """The table in Markdown."""
    head, *rows = [[cell.replace("|", "\\|") for cell in line] for line in cells_of(runs)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def latex(runs: Sequence[Run]) -> str:
    """The table as a tabular of LaTeX, with the rules of booktabs."""
    head, *rows = [[cell.replace("\\", "").translate(LATEX) for cell in line] for line in cells_of(runs)]
    body = [f"{' & '.join(line)} \\\\" for line in (head, *rows)]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            f"\\begin{{tabular}}{{llrl{'l' * (len(head) - 4)}}}",
            *("\\toprule", body[0], "\\midrule", *body[1:], "\\bottomrule"),
            "\\end{tabular}",
        ]
    )


def comma_separated(runs: Sequence[Run]) -> str:
    """A line for each run and figure, as numbers."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(CSV_COLUMNS)
    for run in runs:
        suite, data, split, fingerprint, n = _data(run.metrics)
        name = run.metrics["checkpoint"]["reasoner"]["name"]
        common = [run.folder, suite, data, split, fingerprint, n, run.metrics["errors"], name]
        common += [run.metrics["model"], run.metrics["compat"]]
        for figure in run.metrics["figures"]:
            named = [figure["name"], figure["protocol"], figure["unit"]]
            lines.writerow([*common, *named, figure["value"], figure["low"], figure["high"], figure["n"]])
    return text.getvalue().rstrip("\n")


FORMATS = {"markdown": markdown, "csv": comma_separated, "latex": latex}


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.table", __doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run's --output_path")
    add("--format", choices=tuple(FORMATS), default="markdown", help="default: %(default)s")
    add("--figure", action="append", default=[], metavar="NAME", help="only this one; may be given several times")
    add("--protocol", choices=("both", "upstream", "official"), default="both", help="which figures")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table; exit codes are those of the library's command line."""

    def run(arguments: argparse.Namespace) -> int:
        runs = chosen([read_run(folder) for folder in arguments.runs], arguments.figure, arguments.protocol)
        if len({run.folder.resolve() for run in runs}) < len(runs):
            raise UsageError("a run is given twice; give each once")
        print(FORMATS[arguments.format](runs))
        return 0

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
