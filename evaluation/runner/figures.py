"""All figures of a run, from its folder alone: metrics.json, report.html and a table for the terminal.

metrics.json has no times, dates or paths: the same records give the same bytes.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from evaluation.page.build import write_page
from evaluation.runner.ranking import load_annotations, measure_ranking, ranked_protocols
from evaluation.runner.records import INSTANCES, METRICS, PAGE, read_manifest, read_records, write_json
from evaluation.runner.schema import Metric, Metrics, Record
from evaluation.suite import PROTOCOLS, Scores, measure, scores_of
from evaluation.suites import suite_of
from vision_reasoner.results import Status


def compute_metrics(folder: Path) -> Metrics:
    """All that metrics.json holds.

    Raises:
        DataError: the run is not finished, a sample is there twice or has damaged masks, or the folder holds no run.
    """
    manifest = read_manifest(folder)
    suite = suite_of(manifest)
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
        figures += measure_ranking(load_annotations(folder / INSTANCES), ranked, ranked_protocols(manifest))
    data = manifest["data"]
    for figure in figures:
        figure["published"] = suite.published_for(data["name"], figure["name"], figure["protocol"])
    return {
        "suite": manifest["suite"],
        "data": data,
        "checkpoint": manifest["checkpoint"],
        "model": manifest["model"],
        "n": manifest["n"],
        "compat": manifest["settings"]["compat"],
        "errors": errors,
        "status": {status.value: statuses[status.value] for status in Status},
        "interval": "95 %, clustered by image: score intervals of shares, else bootstrap",
        "figures": figures,
    }


def write_report(folder: Path) -> Metrics:
    """Write metrics.json and report.html; what the former holds."""
    metrics = compute_metrics(folder)
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
    source = checkpoint.get("digest", "on a server")[:12]
    lines = [
        f"{metrics['suite']} on {data['name']} ({data['split']}, {data['fingerprint'][:12]}): "
        f"{metrics['n']} of {data['rows']} samples, {metrics['errors']} errors; replies: {statuses or 'none'}",
        f"checkpoint {checkpoint['name']} ({source}), --model {metrics['model']}, "
        f"--compat {metrics['compat']}; intervals are {metrics['interval']}",
    ]
    if metrics["n"] < data["rows"] and any(figure["name"].startswith("COCO") for figure in metrics["figures"]):
        lines.append("COCO's upstream figures are left out: they divide by the true boxes of all samples")
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
                *(_number(figures[column]) if column in figures else "" for column in shown),
                " / ".join(dict.fromkeys(str(figure["n"]) for figure in figures.values())),
                _published(list(figures.values())),
            ]
        )
    return "\n".join([*lines, *aligned(cells)])


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


def _number(figure: Metric) -> str:
    """Fractions as percent."""
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
