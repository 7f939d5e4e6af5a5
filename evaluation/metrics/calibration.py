"""How well confidences tell right from wrong: AUROC, expected calibration error, and the table behind it."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.bootstrap import Estimate, Values, resample

BINS = 10
RESAMPLES = 2000


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
        clusters: the objects' image ids, which are resampled for the interval.
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

    return _by_cluster(areas, clusters)


def calibration_error(confidences: ArrayLike, right: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """The expected calibration error (Naeini et al. 2015): |confidence - share of right ones|, averaged over bins.

    It is too high in small sets, where shares vary by chance; its bootstrap interval is therefore mirrored.

    Args: as for `auroc`.
    """
    sure, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    member = (_bins(sure, BINS)[:, None] == np.arange(BINS)).astype(np.float64)

    def errors(weights: Values) -> Values:
        gaps = np.abs(np.einsum("rn,nk->rk", weights, member * (sure - hit)[:, None]))
        return gaps.sum(axis=1) / np.maximum(weights.sum(axis=1), 1)

    return _by_cluster(errors, clusters, mirrored=True)


def _bins(confidences: Values, bins: int) -> NDArray[np.intp]:
    return np.minimum((confidences * bins).astype(np.intp), bins - 1)


def _by_cluster(
    figure: Callable[[Values], Values], clusters: Sequence[Hashable], *, mirrored: bool = False
) -> Estimate:
    """A figure of objects under weights, (R, N) -> (R,), with whole clusters resampled."""
    numbers: dict[Hashable, int] = {}
    index = np.asarray([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)
    return resample(lambda weights: figure(weights[:, index]), len(numbers), resamples=RESAMPLES, mirrored=mirrored)
