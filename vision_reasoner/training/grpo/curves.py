"""Training curves of GRPO as one plot: rewards, held-out figures, KL, entropy and length by step, a color for each run.

    python -m vision_reasoner.training.grpo.curves runs/grpo
    python -m vision_reasoner.training.grpo.curves runs/seed1 runs/seed2 runs/seed3 --output curves.png

Figures of every step are drawn as a moving mean, held-out figures as they are. A figure that no run has logged (KL
where --beta is 0) has no panel.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.files import atomic_write, parse_jsonl_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {  # name in log.jsonl: title
    "reward": "reward of rollouts",
    "eval_reward": "reward, held out, greedy",
    "eval_f1": "F1 of boxes, held out",
    "eval_count": "right number of objects, held out",
    "kl": "KL from the beginning",
    "entropy": "entropy of a token",
    "completions/mean_length": "tokens of a reply",
}
WINDOW = 10  # steps of the moving mean
COLUMNS = 3


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without one that was cut off.

    Raises:
        DataError: the folder holds no run.
    """
    try:
        lines = (folder / "log.jsonl").read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{folder}: holds no run of GRPO (no log.jsonl); give its --output_dir") from error
    return [record for record in map(parse_jsonl_line, lines) if record is not None]


def curve(records: Sequence[dict[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A figure of a run: (N,) steps and (N,) values, both empty where it was not logged."""
    found = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    steps, values = np.array(found, float).reshape(-1, 2).T
    return steps, values


def moving_mean(values: NDArray[np.float64], window: int = WINDOW) -> NDArray[np.float64]:
    """The mean of each value and those before it, at most `window` in all: (N,) to (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw(folders: Sequence[Path]) -> "Figure":
    """The plot of these runs. Raises DataError as `read_log`."""
    from matplotlib.figure import Figure

    logs = [read_log(folder) for folder in folders]
    logged = {name: title for name, title in PANELS.items() if any(len(curve(log, name)[0]) for log in logs)}
    if not logged:
        raise DataError(f"{folders[0]}: nothing is logged yet; wait for the first evaluation")
    rows = -(-len(logged) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.8 * rows), layout="constrained")
    for place, (name, title) in enumerate(logged.items(), start=1):
        axes = figure.add_subplot(rows, COLUMNS, place)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        for number, (folder, records) in enumerate(zip(folders, logs, strict=True)):
            steps, values = curve(records, name)
            color = f"C{number % 10}"
            if name.startswith("eval_"):
                axes.plot(steps, values, color=color, marker="o", markersize=3, label=folder.name)
            else:
                axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
                axes.plot(steps, moving_mean(values), color=color, label=folder.name)
        if place > len(logged) - COLUMNS:
            axes.set_xlabel("step")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(folders)), frameon=False)
    return figure


def build_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = make_parser("python -m vision_reasoner.training.grpo.curves", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help="--output_dir of a run")
    parser.add_argument("--output", type=Path, default=Path("curves.png"), metavar="FILE", help="default: %(default)s")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draw, write and say where."""
    from matplotlib.figure import Figure

    output: Path = arguments.output
    kinds: dict[str, Any] = Figure().canvas.get_supported_filetypes()
    kind = output.suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise UsageError(
            f"{output}: cannot be drawn as {output.suffix or 'a file without an ending'}; use .png or .svg"
        )
    figure = draw(arguments.runs)
    atomic_write(output, lambda path: figure.savefig(path, format=kind, dpi=120))
    print(output)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
