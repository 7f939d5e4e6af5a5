"""All figures of a run, from its folder alone: metrics.json, report.html and a table for the terminal.

metrics.json has no times, dates or paths: the same records give the same bytes.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from evaluation.page.build import write_page
from evaluation.runner.groups import check_values, columns_of, grouped
from evaluation.runner.ranking import load_annotations, measure_ranking, ranked_protocols
from evaluation.runner.records import INSTANCES, METRICS, PAGE, read_manifest, read_records, write_json
from evaluation.runner.schema import Checkpoint, Grouped, Manifest, Metric, Metrics, Record
from evaluation.suite import PROTOCOLS, Scores, Suite, is_papers, measure, plain_name, scores_of
from evaluation.suites import suite_of
from vision_reasoner.errors import UsageError
from vision_reasoner.results import Status

logger = logging.getLogger(__name__)

SHOWN = 5  # figures of a group on the terminal
LIGHT = ("index", "id", "image_id", "error", "status", "columns")  # of a record, what figures of sums need


def compute_metrics(folder: Path, by: Sequence[str] = ()) -> Metrics:
    """All that metrics.json holds.

    Args:
        folder: of the run.
        by: columns by whose values the figures are given, too, besides the suite's own.

    Raises:
        DataError: the run is not finished, a sample is there twice or has damaged masks, or the folder holds no run.
        UsageError: the records do not have a column.
    """
    manifest = read_manifest(folder)
    suite = suite_of(manifest)
    samples = [_scored(suite, record) for record in read_records(folder)]
    samples.sort(key=lambda one: one[0]["index"])  # sums do not depend on the order in which samples were finished
    scored = [(record, scores) for record, scores in samples if scores is not None]
    statuses = Counter(record["status"] for record, _ in scored)
    figures = measure(suite, [scores for _, scores in scored], [record["image_id"] for record, _ in scored])
    annotations = load_annotations(folder / INSTANCES) if suite.ranked and scored else None
    if annotations is not None:
        figures += measure_ranking(
            annotations, [record for record, _ in scored], ranked_protocols(manifest, len(scored))
        )
    data = manifest["data"]
    papers = is_papers(manifest)
    for figure in figures:
        figure["published"] = (
            None if not papers else suite.published_for(data["name"], figure["name"], figure["protocol"])
        )
    metrics: Metrics = {
        "suite": manifest["suite"],
        "data": data,
        "checkpoint": manifest["checkpoint"],
        "model": manifest["model"],
        "n": manifest["n"],
        "compat": manifest["settings"]["compat"],
        "errors": len(samples) - len(scored),
        "status": {status.value: statuses[status.value] for status in Status},
        "interval": "95 %, clustered by image: score intervals, by the jackknife where no share",
        "figures": figures,
        "notes": _notes(manifest, figures, [record for record, _ in scored] if suite.ranked else []),
    }
    columns = dict.fromkeys([*filter(partial(_has_groups, samples), suite.by), *by])
    if columns:
        metrics["by"] = [grouped(suite, samples, column, annotations) for column in columns]
    return metrics


def _has_groups(samples: Sequence[tuple[Record, Scores | None]], column: str) -> bool:
    """Whether the samples of a set can be grouped by a column that the suite's own sets have."""
    if not any(column in record["columns"] for record, _ in samples):
        return False
    try:
        check_values(column, (record["columns"].get(column) for record, _ in samples))
    except UsageError as error:
        logger.warning("no figures %s", error)
        return False
    return True


def _notes(manifest: Manifest, figures: Sequence[Metric], ranked: Sequence[Record]) -> list[str]:
    """What a reader of the figures should know about how they came about.

    Args:
        manifest: of the run.
        figures: its figures.
        ranked: the records whose boxes are ranked, without those that failed.
    """
    names, data = {figure["name"] for figure in figures}, manifest["data"]
    notes = []
    if ranked:
        found = [instance for record in ranked for instance in record["instances"]]
        sure = any(instance.get("confidence") is not None for instance in found)
        notes.append(
            f"COCO, official: boxes are ranked by {'confidence' if sure else 'the likelihood of their tokens'}"
        )
        if all(record["truth"]["boxes"] for record in ranked):
            notes.append("Each row asks for what is in its image: no false alarm on an absent category is possible")
        if len(ranked) < data["rows"]:
            notes.append(
                "COCO's upstream figures are left out: they divide by the true boxes of all samples, and "
                f"{data['rows'] - len(ranked):,} samples have no score"
            )
    if "box accuracy" in names:
        notes.append(
            "box accuracy, upstream, is the original's bbox_AP of May 2025 (commit a455092); samples without exactly "
            "one true box are in neither protocol"
        )
    if plain_name(data["name"]).startswith("reasonseg") and "ignore" not in data["columns"]:
        notes.append("The set does not mark the pixels to be ignored: they count as its masks have them")
    return notes


def _scored(suite: Suite, record: Record) -> tuple[Record, Scores | None]:
    """A record with its scores; without its masks and texts, for all records are in memory."""
    scores = None if record["error"] is not None else scores_of(suite, record)
    record["columns"] = columns_of(record)
    return (record if suite.ranked else cast("Record", {key: record.get(key) for key in LIGHT})), scores


def write_report(folder: Path, by: Sequence[str] = ()) -> Metrics:
    """Write metrics.json and report.html; arguments, result and errors are those of `compute_metrics`."""
    metrics = compute_metrics(folder, by)
    write_json(folder / METRICS, metrics)
    write_page(folder, folder / PAGE)
    return metrics


def table(metrics: Metrics, protocol: str = "both") -> str:
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
        f"checkpoint {checkpoint['name']} ({_source(checkpoint)}), --model {metrics['model']}, "
        f"--compat {metrics['compat']}; intervals are {metrics['interval']}",
    ]
    lines += metrics.get("notes", [])
    if not metrics["figures"] and metrics["errors"] < metrics["n"]:
        lines.append("not scored: the answers are for a test server")
    lines.append("")
    shown = [name for name in PROTOCOLS if protocol in ("both", name)]
    rows: dict[str, dict[str, Metric]] = {}
    for figure in metrics["figures"]:
        if figure["protocol"] in shown:
            rows.setdefault(figure["name"], {})[figure["protocol"]] = figure
    cells = [["", *shown, "n", "published"]]
    for name, figures in rows.items():
        label = next((figure["label"] for figure in figures.values() if figure["label"]), None)
        cells.append(
            [
                f"{name} ({label})" if label else name,
                *(shown_number(figures[column]) if column in figures else "" for column in shown),
                " / ".join(
                    dict.fromkeys(f"{figure['n']} {figure.get('n_of', '')}".rstrip() for figure in figures.values())
                ),
                _published(list(figures.values())),
            ]
        )
    lines += aligned(cells)
    for groups in metrics.get("by", []):
        lines += ["", *_groups(groups, shown)]
    return "\n".join(lines)


def _source(checkpoint: Checkpoint) -> str:
    """The digest of what gave the replies, in short."""
    if "replies" in checkpoint:
        return f"replies {checkpoint['replies'][:12]}"
    return checkpoint.get("digest", "on a server")[:12]


def _groups(found: Grouped, protocols: Sequence[str]) -> list[str]:
    """The lines of a table of groups: a row for each, with the first figures of the protocols."""
    figures = [
        {(one["name"], one["protocol"]): one for one in group["figures"] if one["protocol"] in protocols}
        for group in found["groups"]
    ]
    names = list(dict.fromkeys(name for one in figures for name in one))
    several = len({protocol for _, protocol in names}) > 1
    head = [f"{name} ({protocol})" if several else name for name, protocol in names[:SHOWN]]
    cells = [[f"by {found['column']}", "n", *head]]
    for group, one in zip(found["groups"], figures, strict=True):
        numbers = [shown_number(one[name]) if name in one else "" for name in names[:SHOWN]]
        cells.append([group["value"][:40], str(group["n"]), *numbers])
    more = [f"{METRICS} has {len(names) - SHOWN} more figures of each"] if len(names) > SHOWN else []
    return [*aligned(cells, right=(1,)), *more]


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Lines of a table whose columns are aligned to the left, or to the right for those of the numbers in `right`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shown_number(figure: Metric) -> str:
    """A figure with its interval, fractions as percent."""
    factor, digits = (100, 1) if figure["unit"] == "fraction" else (1, 2)
    if figure["value"] is None:
        return "-"
    value = f"{factor * figure['value']:.{digits}f}"
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return value
    return f"{value} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"


def _published(figures: Sequence[Metric]) -> str:
    return "; ".join(
        f"{model} {100 * value:.1f}" for figure in figures for model, value in (figure.get("published") or {}).items()
    )
