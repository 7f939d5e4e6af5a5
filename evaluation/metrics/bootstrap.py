"""95 % intervals: for shares by the score method, for all else by the bootstrap, both with whole images as units.

A share is a mean of zeros and ones. Near 0 and 1 the bootstrap's interval is too narrow, and it has no width where all
are alike; there Wilson's interval holds (Wilson 1927), and for the difference of two runs on the same samples that of
Bonett and Price (2012). Both take the number of samples divided by the design effect (Kish 1965), the factor by which
samples of one image vary together. `python -m evaluation.metrics.coverage` simulates how often the intervals hold.

The bootstrap (Efron & Tibshirani 1993, percentile method) draws whole images.

Questions about one image share its difficulty, so that resampling them one by one would make the interval too
narrow: the images (clusters) are drawn with replacement, each with all of its samples. A draw is a row of weights,
how often each cluster was drawn, and every figure here is computed from such rows at once: sums over samples are one
product of weights and per-cluster sums. The draws depend on the number of clusters and on the seed alone, so that all
figures of a run, and both sides of a comparison, see the same ones.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Combine = Callable[[Values], Values]
"""From sums of K columns, (R, K), to figures, (R,); NaN where there is none. `ratio` is one."""

RESAMPLES = 10_000
Z = 1.959963984540054  # the normal quantile of 0.975
LEVEL = 0.95
CELLS = 1 << 21  # weights held at a time, 16 MB


class Estimate(NamedTuple):
    """A figure and its 95 % interval, in the figure's unit. NaN: there is no value, or no interval."""

    value: float
    low: float
    high: float


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Values:
    """Element by element, NaN where the denominator is 0: no value is not a value of 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def ratio(sums: Values) -> Values:
    """The first sum over the second, (R, 2) -> (R,)."""
    return divide(sums[..., 0], sums[..., 1])


def interval(
    columns: ArrayLike,
    clusters: Sequence[Hashable],
    combine: Combine = ratio,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A figure that is a function of sums over samples.

    Args:
        columns: (N, K) numbers, a row per sample; or (N,), of which the mean is taken.
        clusters: the N samples' image ids; order and kind do not matter, equal ones belong together.
        combine: takes the columns' sums to the figure.
        resamples: how many draws, where the interval is the bootstrap's.
        seed: of the draws.

    Returns:
        The figure on the samples as they are, and its interval. With fewer than two clusters there is no interval,
        and no samples have no figure: NaN. Draws without a figure (0 / 0) are left out.

    Raises:
        ValueError: the columns and clusters do not have the same length.
    """
    table = np.asarray(columns, dtype=np.float64)
    if table.ndim == 1:
        table = np.column_stack([table, np.ones_like(table)])
    if len(table) != len(clusters):
        raise ValueError(f"columns and clusters must have the same length, got {len(table)} and {len(clusters)}")
    if not len(table):
        return Estimate(np.nan, np.nan, np.nan)
    sums = _cluster_sums(table, clusters)
    if combine is ratio and _is_share(table):
        return share(sums)
    # einsum, not @: a matrix product's last digit would depend on the number of threads.
    return resample(
        lambda weights: combine(np.einsum("rc,ck->rk", weights, sums)), len(sums), resamples=resamples, seed=seed
    )


def _cluster_sums(table: Values, clusters: Sequence[Hashable]) -> Values:
    """(C, K) sums of the columns by cluster, in an order that depends on neither the rows' nor the clusters' names."""
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, np.asarray(index, dtype=np.intp), table)
    return sums[np.lexsort(sums.T[::-1])]


def _is_share(table: Values) -> bool:
    """Whether a ratio's columns (N, 2) are 0 or 1, and the first 0 where the second is."""
    return bool(np.isin(table, (0.0, 1.0)).all() and (table[:, 0] <= table[:, 1]).all() and table[:, 1].any())


def share(sums: Values) -> Estimate:
    """A share with Wilson's interval for clustered samples.

    Args:
        sums: (C, 2), of each cluster how many samples count as 1, and how many there are.
    """
    hits, n = sums[:, 0], sums[:, 1]
    total = n.sum()
    value = hits.sum() / total
    if np.count_nonzero(n) < 2:
        return Estimate(float(value), np.nan, np.nan)
    size = total / _design_effect(hits - value * n, n, value * (1 - value))
    middle = (value + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(value * (1 - value) / size + Z**2 / (4 * size**2))
    return Estimate(float(value), float(min(value, middle - half)), float(max(value, middle + half)))


def share_difference(table: Values, clusters: Sequence[Hashable]) -> Estimate:
    """The difference of two shares of the same samples, with Bonett and Price's interval for clustered pairs.

    Args:
        table: (N, 3), the first run's 0 or 1, the second's, and 1 where the sample counts.
        clusters: the N samples' image ids.
    """
    only = table[:, :2] * (1 - table[:, 1::-1])  # a hit of one run alone
    sums = _cluster_sums(np.column_stack([only, table[:, 2]]), clusters)
    first, second, n = sums.T
    total = n.sum()
    value = (first.sum() - second.sum()) / total
    if np.count_nonzero(n) < 2:
        return Estimate(float(value), np.nan, np.nan)
    effect = _design_effect(first - second - value * n, n, (first.sum() + second.sum()) / total - value**2)
    size = total / effect
    one, two = ((side.sum() / effect + 1) / (size + 2) for side in (first, second))
    half = Z * np.sqrt((one + two - (one - two) ** 2) / (size + 2))
    low, high = max(one - two - half, -1.0), min(one - two + half, 1.0)
    return Estimate(float(value), float(min(value, low)), float(max(value, high)))


def _design_effect(residuals: Values, n: Values, variance: float) -> float:
    """By how much samples of one cluster vary together: from 1 to what it would be if they were all alike.

    Args:
        residuals: (C,) of each cluster's sum to what the value makes expect.
        n: (C,) how many samples a cluster has.
        variance: of one sample. Where that is 0, nothing is known, and the most is taken.
    """
    most = float((n**2).sum() / n.sum())
    if variance <= 0:
        return most
    clusters = np.count_nonzero(n)
    found = clusters / (clusters - 1) * float((residuals**2).sum()) / (n.sum() * variance)
    return min(max(found, 1.0), max(most, 1.0))


def difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[Hashable],
    combine: Combine = ratio,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A figure of two runs on the same samples: first minus second, drawn together (paired).

    Args:
        first: (N, K) or (N,) columns of one run, as `interval` takes them.
        second: those of the other, in the same order of samples and columns.
        clusters: the N samples' image ids.

    Raises:
        ValueError: the two do not have the same shape.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"a paired difference needs columns of the same shape, got {one.shape} and {two.shape}")
    if one.ndim == 1:
        one, two = (np.column_stack([side, np.ones_like(side)]) for side in (one, two))
    K = one.shape[1]
    if combine is ratio and _is_share(one) and _is_share(two) and np.array_equal(one[:, 1], two[:, 1]):
        return share_difference(np.column_stack([one[:, 0], two]), clusters)
    return interval(
        np.hstack([one, two]),
        clusters,
        lambda sums: combine(sums[..., :K]) - combine(sums[..., K:]),
        resamples=resamples,
        seed=seed,
    )


def resample(
    figure: Callable[[Values], Values],
    n_clusters: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    mirrored: bool = False,
) -> Estimate:
    """A figure of any kind that can be computed under weights, for instance `coco.average_precision`.

    Args:
        figure: from weights, (R, n_clusters) whole numbers, how often each cluster counts, to figures (R,).
        n_clusters: how many clusters there are.
        mirrored: reflect the percentiles at the value (the "basic" bootstrap): for figures that resampling shifts.
    """
    value = float(figure(np.ones((1, n_clusters)))[0])
    if n_clusters < 2:
        return Estimate(value, np.nan, np.nan)
    return percentiles(value, draws(figure, n_clusters, resamples=resamples, seed=seed), mirrored=mirrored)


def draws(
    figure: Callable[[Values], Values], n_clusters: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """The figure under each draw's weights, as `figure` gives them, one row after the other."""
    return np.concatenate([figure(weights) for weights in _weights(n_clusters, resamples, seed)])


def percentiles(value: float, drawn: NDArray[np.float64], *, mirrored: bool = False) -> Estimate:
    """A value with the interval that its draws (R,) give; see `resample`."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    if mirrored:
        low, high = 2 * value - high, 2 * value - low
    return Estimate(value, float(low), float(high))


def _weights(n_clusters: int, resamples: int, seed: int) -> Iterator[Values]:
    """Rows of multinomial weights that sum to n_clusters, a manageable number of rows at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, CELLS // n_clusters)
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), n_clusters)
        drawn = generator.integers(n_clusters, size=size) + n_clusters * np.arange(size[0])[:, None]
        yield np.bincount(drawn.ravel(), minlength=size[0] * n_clusters).reshape(size).astype(np.float64)
