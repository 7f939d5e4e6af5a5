"""The options that all training stages share. Imports nothing heavy, so that `--help` is fast."""

import argparse
import math
from pathlib import Path


def add_training_options(
    parser: argparse.ArgumentParser, *, minutes: float, batch_size: int = 16, lr: float = 2e-3
) -> None:
    """Add the options that `loop.set_up` and `loop.train` read, with the stage's defaults."""
    add = parser.add_argument
    add("--minutes", type=positive_float, default=minutes, help="time budget of this run (default: %(default)s)")
    add(
        "--output_dir",
        type=Path,
        default=Path("runs/tiny"),
        help="checkpoints and logs; an earlier run there is continued (default: %(default)s)",
    )
    add("--seed", type=int, default=1, help="of weights and scenes (default: %(default)s)")
    add("--threads", type=positive_int, default=1, help="processor cores to use (default: %(default)s)")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the model is; auto: on a GPU if there is one (default: %(default)s)",
    )
    add("--batch_size", type=positive_int, default=batch_size, help="images per step (default: %(default)s)")
    add("--lr", type=positive_float, default=lr, help="peak learning rate (default: %(default)s)")


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """An argparse type: a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value
