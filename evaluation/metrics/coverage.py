"""How often the 95 % intervals hold: the share of simulated data sets whose interval has the truth in it.

    python -m evaluation.metrics.coverage               # a table; half a minute
    python -m evaluation.metrics.coverage --sets 20000

A share is simulated with the images' own shares from a beta distribution, so that samples of one image go together
(ICC is their correlation). A difference is that of two runs on the same samples of which a tenth is answered anew;
where few answers differ, the numbers are too coarse for 95 %, and the intervals hold more often.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np

from evaluation.metrics.bootstrap import Estimate, Values, difference, interval
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import ExitCode, UsageError

SHARES = (0.5, 0.9, 0.95, 0.99)
SHAPES = ((40, 1), (100, 1), (200, 1), (100, 3))  # images, samples of each
ICC = 0.3  # of samples of one image, where there are several
CHANGED = 0.1  # of samples that a second run answers otherwise


def shares(rng: np.random.Generator, p: float, images: int, each: int) -> Values:
    """(images, each) zeros and ones whose expected share is `p`."""
    if each == 1:
        return (rng.random((images, 1)) < p).astype(np.float64)
    strength = 1 / ICC - 1
    own = rng.beta(p * strength, (1 - p) * strength, (images, 1))
    return (rng.random((images, each)) < own).astype(np.float64)


def coverage(simulate: Callable[[], tuple[float, Estimate]], sets: int) -> tuple[float, float]:
    """The share of intervals with the truth in them, and their mean width."""
    found = [simulate() for _ in range(sets)]
    inside = [estimate.low - 1e-12 <= truth <= estimate.high + 1e-12 for truth, estimate in found]
    return float(np.mean(inside)), float(np.mean([estimate.high - estimate.low for _, estimate in found]))


def one_run(rng: np.random.Generator, p: float, images: int, each: int) -> tuple[float, Estimate]:
    """The truth and the interval of a share."""
    drawn = shares(rng, p, images, each)
    return p, interval(drawn.ravel(), np.repeat(np.arange(images), each).tolist())


def two_runs(rng: np.random.Generator, p: float, images: int, each: int) -> tuple[float, Estimate]:
    """The truth and the interval of a difference."""
    first = shares(rng, p, images, each)
    changed = rng.random(first.shape) < CHANGED
    second = np.where(changed, shares(rng, p, images, each), first)
    clusters = np.repeat(np.arange(images), each).tolist()
    return 0.0, difference(first.ravel(), second.ravel(), clusters)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.metrics.coverage", __doc__)
    parser.add_argument("--sets", type=int, default=2000, metavar="N", help="simulated data sets a row (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (%(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Simulate and print."""
    if arguments.sets < 1:
        raise UsageError("--sets must be at least 1")
    print(f"{'':<12}{'share':>6}{'images':>8}{'each':>6}{'coverage':>10}{'width':>8}")
    for name, simulate in (("share", one_run), ("difference", two_runs)):
        for p in SHARES:
            for images, each in SHAPES:
                rng = np.random.default_rng([arguments.seed, images, each, round(1000 * p)])
                held, width = coverage(lambda: simulate(rng, p, images, each), arguments.sets)  # noqa: B023
                print(f"{name:<12}{p:>6}{images:>8}{each:>6}{100 * held:>9.1f}%{100 * width:>8.1f}")
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
