"""All figures of a run, from its folder alone: metrics.json, report.html and a table for the terminal.

    python -m evaluation.report results/segmentation/refcoco_val/VisionReasoner-7B

No model and no data set is needed. metrics.json has no times, dates or paths: the same records give the same bytes.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.page.build import write_page
from evaluation.published import published
from evaluation.ranking import Annotations, measure_ranking
from evaluation.runner.records import INSTANCES, METRICS, PAGE, read_json, read_manifest, read_records, write_json
from evaluation.suites import PROTOCOLS, SUITES, Record, Scores, measure, scores_of
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.results import Status


def compute_metrics(folder: Path) -> dict[str, Any]:
    """All that metrics.json holds.

    Raises:
        DataError: the run is not finished, a sample is there twice or has damaged masks, or the folder holds no run.
    """
    manifest = read_manifest(folder)
    suite = SUITES[manifest["suite"]]
    scored: list[tuple[int, str, Scores]] = []
    ranked: list[Record] = []
    statuses: Counter[str] = Counter()
    errors = 0
    for record in read_records(folder):
        if record["error"] is not None:
            errors += 1
            continue
        statuses[record["status"]] += 1
        scored.append((record["index"], record["image_id"], scores_of(suite, record)))
        if suite.ranked:
            ranked.append(record)
    scored.sort(key=lambda one: one[0])  # sums do not depend on the order in which samples were finished
    figures = measure(suite, [scores for _, _, scores in scored], [image_id for _, image_id, _ in scored])
    if ranked:
        ranked.sort(key=lambda record: record["index"])
        figures += measure_ranking(Annotations.from_json(read_json(folder / INSTANCES)), ranked)
    name = manifest["data"]["name"]
    return {
        **{key: manifest[key] for key in ("suite", "data", "checkpoint", "model", "n")},
        "compat": manifest["settings"]["compat"],
        "errors": errors,
        "status": {status.value: statuses[status.value] for status in Status},
        "interval": "95 %, bootstrap clustered by image",
        "figures": [{**figure, "published": published(name, figure["name"], figure["protocol"])} for figure in figures],
    }


def write_report(folder: Path) -> dict[str, Any]:
    """Write metrics.json and report.html; what the former holds."""
    metrics = compute_metrics(folder)
    write_json(folder / METRICS, metrics)
    write_page(folder, folder / PAGE)
    return metrics


def table(metrics: Mapping[str, Any], protocol: str = "both") -> str:
    """The figures for the terminal, with what was published beside them.

    Args:
        metrics: what metrics.json holds.
        protocol: "official", "upstream" or "both".
    """
    data, checkpoint = metrics["data"], metrics["checkpoint"]["reasoner"]
    statuses = ", ".join(f"{n} {status}" for status, n in metrics["status"].items() if n)
    lines = [
        f"{metrics['suite']} on {data['name']} ({data['split']}, {data['fingerprint'][:12]}): "
        f"{metrics['n']} of {data['rows']} samples, {metrics['errors']} errors; replies: {statuses or 'none'}",
        f"checkpoint {checkpoint['name']} ({checkpoint['digest'][:12]}), --model {metrics['model']}, "
        f"--compat {metrics['compat']}; intervals are {metrics['interval']}",
        "",
    ]
    shown = [name for name in PROTOCOLS if protocol in ("both", name)]
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for figure in metrics["figures"]:
        if figure["protocol"] in shown:
            rows.setdefault(figure["name"], {})[figure["protocol"]] = figure
    cells = [["", *shown, "n", "published"]]
    for name, figures in rows.items():
        label = next((figure["label"] for figure in figures.values() if figure["label"]), None)
        cells.append(
            [
                f"{name} ({label})" if label else name,
                *(_number(figures[column]) if column in figures else "" for column in shown),
                str(next(iter(figures.values()))["n"]),
                _published(list(figures.values())),
            ]
        )
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    aligned = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join([*lines, *(line.rstrip() for line in aligned)])


def _number(figure: Mapping[str, Any]) -> str:
    """Fractions as percent."""
    factor, digits = (100, 1) if figure["unit"] == "fraction" else (1, 2)
    if figure["value"] is None:
        return "-"
    value = f"{factor * figure['value']:.{digits}f}"
    if figure["low"] is None:
        return value
    return f"{value} [{factor * figure['low']:.{digits}f}, {factor * figure['high']:.{digits}f}]"


def _published(figures: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{model} {100 * value:.1f}" for figure in figures for model, value in (figure["published"] or {}).items()
    )


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.report", __doc__)
    parser.add_argument("folder", type=Path, help="a run's --output_path")
    parser.add_argument("--protocol", choices=("both", "upstream", "official"), default="both")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Report on a finished run."""

    def run(arguments: argparse.Namespace) -> int:
        print(table(write_report(arguments.folder), arguments.protocol))
        return 0

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
