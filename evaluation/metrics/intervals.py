"""95 % intervals of fractions and of paired differences, with whole images as units; nothing is drawn at random.

Questions about one image share its difficulty, so the unit is the image (cluster) with all of its samples.

- A share (of samples or boxes that are right) has Wilson's score interval (1927) with the number of samples divided by
  the design effect (Kish 1965), the factor by which samples of one image vary together.
- Any other fraction has the same interval with the number of samples that its standard error stands for. That error is
  the jackknife's: the figure is computed anew without each image in turn (Efron & Stein 1981). One image more, half of
  it 0 and half of it 1, is added, because the worst cases may be missing from a small set.
- The difference of two shares of the same samples has Bonett and Price's interval (2012), other differences the
  jackknife's standard error with Student's t.
- There is no interval where none holds: of one image; of a difference where no image differs; of sums that a few
  images decide (`least`). Errors of counts have none: a few gross ones, which a sample may lack, decide their mean.

`python -m evaluation.metrics.coverage` simulates how often the intervals hold.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Combine = Callable[[Values], Values]
"""From sums of K columns, (R, K), to figures, (R,); NaN where there is none. `ratio` is one."""

NEVER = math.inf  # as `least`: there is never an interval
Z = 1.959963984540054  # the normal quantile of 0.975


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
    columns: ArrayLike, clusters: Sequence[Hashable], combine: Combine = ratio, *, least: float = 0
) -> Estimate:
    """A figure that is a function of sums over samples.

    Args:
        columns: (N, K) numbers, a row per sample; or (N,), of which the mean is taken.
        clusters: the N samples' image ids; order and kind do not matter, equal ones belong together.
        combine: takes the columns' sums to the figure; from 0 to 1 where an interval is wanted.
        least: how many images must carry a ratio's denominator for an interval, by the effective number
            sum² / sum of squares; infinite: there is never one.

    Returns:
        The figure, and its interval where there is one. No samples have no figure: NaN. Neither depends on the order
        of the samples.

    Raises:
        ValueError: the columns and clusters do not have the same length, or an interval of no fraction is asked for.
    """
    table = np.asarray(columns, dtype=np.float64)
    if table.ndim == 1:
        table = np.column_stack([table, np.ones_like(table)])
    if len(table) != len(clusters):
        raise ValueError(f"columns and clusters must have the same length, got {len(table)} and {len(clusters)}")
    if not len(table):
        return Estimate(np.nan, np.nan, np.nan)
    sums = _cluster_sums(table, clusters)
    value = _value(sums, combine)
    if np.isnan(value) or _effective(sums[:, 1]) < least:
        return Estimate(value, np.nan, np.nan)
    if combine is ratio and _is_share(table):
        return share(sums)
    if not 0 <= value <= 1:
        raise ValueError(f"only fractions have an interval, got {value:g}; give least=math.inf")
    return fraction(value, _deviations(sums, combine))


def difference(
    first: ArrayLike, second: ArrayLike, clusters: Sequence[Hashable], combine: Combine = ratio, *, least: float = 0
) -> Estimate:
    """A figure of two runs on the same samples, first minus second, paired by image.

    Args:
        first: (N, K) or (N,) columns of one run, as `interval` takes them.
        second: those of the other, in the same order of samples and columns.
        clusters: the N samples' image ids.
        combine: as for `interval`.
        least: as for `interval`, in both runs.

    Raises:
        ValueError: the two do not have the same shape.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"a paired difference needs columns of the same shape, got {one.shape} and {two.shape}")
    if one.ndim == 1:
        one, two = (np.column_stack([side, np.ones_like(side)]) for side in (one, two))
    K = one.shape[1]

    def combined(sums: Values) -> Values:
        return combine(sums[..., :K]) - combine(sums[..., K:])

    sums = _cluster_sums(np.hstack([one, two]), clusters)
    value = _value(sums, combined)
    if np.isnan(value) or min(_effective(sums[:, 1]), _effective(sums[:, K + 1])) < least:
        return Estimate(value, np.nan, np.nan)
    if combine is ratio and _is_share(one) and _is_share(two) and np.array_equal(one[:, 1], two[:, 1]):
        return share_difference(np.column_stack([one[:, 0], two]), clusters)
    return change(value, _deviations(sums, combined))


# --- each kind of interval --------------------------------------------------------------------------------------------
def share(sums: Values) -> Estimate:
    """A share with Wilson's interval for clustered samples.

    Args:
        sums: (C, 2), of each cluster how many samples count as 1, and how many there are.
    """
    hits, n = sums[:, 0], sums[:, 1]
    total = n.sum()
    value = float(hits.sum() / total)
    if np.count_nonzero(n) < 2:
        return Estimate(value, np.nan, np.nan)
    return _wilson(value, value, total / _design_effect(hits - value * n, n, value * (1 - value)))


def fraction(value: float, deviations: Values) -> Estimate:
    """A fraction of any kind with Wilson's interval for the number of samples that its standard error stands for.

    Args:
        value: from 0 to 1.
        deviations: (C,), how much each of C images moves it: its value less that without this image, times C - 1.
    """
    C = len(deviations)
    if C < 2 or not np.isfinite(deviations).all():
        return Estimate(value, np.nan, np.nan)
    middle = (C * value + 0.5) / (C + 1)
    squares = ((deviations - deviations.mean()) ** 2).sum() + 0.5 * (middle**2 + (1 - middle) ** 2)
    return _wilson(value, middle, middle * (1 - middle) * C**2 / squares)


def change(value: float, deviations: Values) -> Estimate:
    """A difference of two fractions, with the jackknife's standard error; arguments are those of `fraction`."""
    C = len(deviations)
    if C < 2 or not np.isfinite(deviations).all() or np.ptp(deviations) < 1e-12:
        return Estimate(value, np.nan, np.nan)
    half = _student(C - 1) * float(np.std(deviations, ddof=1)) / np.sqrt(C)
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0))


def share_difference(table: Values, clusters: Sequence[Hashable]) -> Estimate:
    """The difference of two shares of the same samples, with Bonett and Price's interval for clustered pairs.

    Args:
        table: (N, 3), how many count as 1 in the first run, in the second, and how many there are in both.
        clusters: the N samples' image ids.
    """
    gained = table[:, 0] - table[:, 1]
    sums = _cluster_sums(np.column_stack([np.maximum(gained, 0), np.maximum(-gained, 0), table[:, 2]]), clusters)
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


# --- what they are made of --------------------------------------------------------------------------------------------
def _wilson(value: float, middle: float, size: float) -> Estimate:
    """Wilson's interval of `middle` for `size` independent samples, with the value inside."""
    center = (middle + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(middle * (1 - middle) / size + Z**2 / (4 * size**2))
    return Estimate(value, max(0.0, float(min(value, center - half))), min(1.0, float(max(value, center + half))))


def _student(freedom: int) -> float:
    """The 0.975 quantile of Student's t, by its expansion (Abramowitz & Stegun 26.7.5): to 0.001 from 5 on."""
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return Z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def _value(sums: Values, combine: Combine) -> float:
    return float(combine(sums.sum(axis=0, keepdims=True))[0])


def _deviations(sums: Values, combine: Combine) -> Values:
    """(C,) how much each cluster moves a figure, for `fraction` and `change`; clusters of zeros are left out."""
    sums = sums[sums.any(axis=1)]
    total = sums.sum(axis=0, keepdims=True)
    return (len(sums) - 1) * (combine(total) - combine(total - sums))


def _cluster_sums(table: Values, clusters: Sequence[Hashable]) -> Values:
    """(C, K) sums of the columns by cluster, in an order that depends on neither the rows' nor the clusters' names."""
    numbers: dict[Hashable, int] = {}
    index = np.asarray([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)
    order = np.lexsort(table.T[::-1])  # so that the sums' last digits do not depend on it either
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, index[order], table[order])
    return sums[np.lexsort(sums.T[::-1])]


def _effective(weights: Values) -> float:
    """How many equal ones would vary as much: sum² / sum of squares."""
    return float(divide(weights.sum() ** 2, (weights**2).sum()))


def _is_share(table: Values) -> bool:
    """Whether a ratio's columns (N, 2) are whole numbers, and the first is a part of the second."""
    return bool((table == np.floor(table)).all() and (table[:, 0] <= table[:, 1]).all() and (table >= 0).all())


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
