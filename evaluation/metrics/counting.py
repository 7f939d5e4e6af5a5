"""Numbers of objects: accuracy, mean absolute error, root mean square error, off by one, accuracy per true count.

Accuracy, MAE and RMSE are CountBench's and PixMo-Count's. Upstream, a reply that cannot be read counts as the number
0. Official, it is never right, not even where nothing is there, and has no error: MAE and RMSE are taken over the
replies that gave a number, whose share is stated beside them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.intervals import Values, divide


def score(predicted: int | None, truth: int) -> dict[str, float]:
    """A sample's columns.

    Args:
        predicted: the number of objects, None where the reply gave none.
        truth: the true number.

    Returns:
        0 or 1: exact, off_by_one (at most one away), counted (there is a number), upstream_exact. Objects:
        absolute_error, upstream_absolute_error. Objects squared: squared_error, upstream_squared_error.
    """
    counted = predicted is not None
    upstream = abs((predicted or 0) - truth)
    error = upstream if counted else 0
    return {
        "exact": float(counted and error == 0),
        "off_by_one": float(counted and error <= 1),
        "absolute_error": error,
        "squared_error": error**2,
        "counted": float(counted),
        "upstream_exact": float(upstream == 0),
        "upstream_absolute_error": upstream,
        "upstream_squared_error": upstream**2,
    }


def rmse(sums: Values) -> Values:
    """The root of the mean square error, in objects, from the sums of squares and of samples, (R, 2) -> (R,)."""
    return np.sqrt(divide(sums[..., 0], sums[..., 1]))


def per_count(exact: ArrayLike, truth: Sequence[int]) -> NDArray[np.float64]:
    """Columns for `mean_accuracy`: for each true count that occurs, in rising order, (right, all).

    Args:
        exact: (N,) 0 or 1.
        truth: the N true counts.

    Returns:
        (N, 2 x number of different true counts).
    """
    of_count = (np.asarray(truth)[:, None] == np.unique(truth)).astype(np.float64)
    right = of_count * np.asarray(exact, dtype=np.float64)[:, None]
    return np.stack([right, of_count], axis=2).reshape(len(truth), 2 * of_count.shape[1])


def mean_accuracy(sums: Values) -> Values:
    """The mean over the true counts of the accuracy at each, (R, 2C) -> (R,), so that frequent counts weigh no more.

    Counts without a sample (in a resample) are left out.
    """
    right, of_count = sums[..., 0::2], sums[..., 1::2]
    return divide(np.nan_to_num(divide(right, of_count)).sum(axis=-1), (of_count > 0).sum(axis=-1))
