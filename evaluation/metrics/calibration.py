"""How well confidences tell right from wrong: AUROC, expected calibration error, and the table behind it."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.intervals import Estimate, Values, fraction

BINS = 10
CELLS = 1 << 21  # weights held at a time, 16 MB


class Bin(NamedTuple):
    """Objects whose confidence is from `low` to below `high`: how many, how sure on average, and how many are right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


def reliability(confidences: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Objects by confidence, in bins of equal width; empty ones are left out.

    Args:
        confidences: (N,) in [0, 1].
        right: (N,) bool.
    """
    sure, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    numbers = _bins(sure, bins)
    return [
        Bin(k / bins, (k + 1) / bins, int(inside.sum()), float(sure[inside].mean()), float(hit[inside].mean()))
        for k in range(bins)
        if (inside := numbers == k).any()
    ]


def auroc(confidences: ArrayLike, right: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """The chance that a right object has a higher confidence than a wrong one, equal ones half; 0.5 tells nothing.

    Args:
        confidences: (N,) numbers.
        right: (N,) bool.
        clusters: the objects' image ids, the units of the interval (`metrics.intervals`).
    """
    sure, hit = np.asarray(confidences, np.float64), np.asarray(right, np.bool_)
    levels, level = np.unique(sure, return_inverse=True)

    def areas(weights: Values) -> Values:
        """Of objects that count `weights` times, (R, N)."""
        rows = np.arange(len(weights))[:, None]
        good, bad = (np.zeros((len(weights), len(levels))) for _ in range(2))
        np.add.at(good, (rows, level[hit][None]), weights[:, hit])
        np.add.at(bad, (rows, level[~hit][None]), weights[:, ~hit])
        below = np.cumsum(bad, axis=1) - bad / 2
        pairs = good.sum(axis=1) * bad.sum(axis=1)
        return np.divide((good * below).sum(axis=1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    value = float(areas(np.ones((1, len(sure))))[0])
    numbers: dict[Hashable, int] = {}
    index = np.asarray([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)
    C = len(numbers)
    if C < 2 or np.isnan(value):
        return Estimate(value, np.nan, np.nan)
    rows = max(1, CELLS // len(index))
    without = [
        areas((index != np.arange(start, min(start + rows, C))[:, None]).astype(np.float64))
        for start in range(0, C, rows)
    ]
    return fraction(value, (C - 1) * (value - np.concatenate(without)))


def calibration_error(confidences: ArrayLike, right: ArrayLike) -> float:
    """The expected calibration error (Naeini et al. 2015): |confidence - share of right ones|, averaged over bins.

    It is too high in small sets, where shares vary by chance, by an amount that is not known: it has no interval.

    Args: as for `auroc`.
    """
    sure, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    gaps = np.bincount(_bins(sure, BINS), sure - hit, minlength=BINS)
    return float(np.abs(gaps).sum() / max(1, len(sure)))


def _bins(confidences: Values, bins: int) -> NDArray[np.intp]:
    return np.minimum((confidences * bins).astype(np.intp), bins - 1)
