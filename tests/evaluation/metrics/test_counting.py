"""Counting figures: against the formulas written out here."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.counting import mean_accuracy, per_count, rmse, score
from evaluation.metrics.intervals import interval

answers = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 6)), min_size=1, max_size=30)


def figure(pairs, names, combine=None):
    columns = [[1 if name == 1 else score(*pair)[name] for name in names] for pair in pairs]
    found = interval(columns, range(len(pairs)), least=math.inf, **({"combine": combine} if combine else {}))
    return pytest.approx(found.value, nan_ok=True)


@given(answers)
def test_upstream_a_reply_without_a_number_counts_as_0(pairs):
    errors = [abs((predicted or 0) - truth) for predicted, truth in pairs]
    n = len(pairs)
    assert figure(pairs, ["upstream_exact", 1]) == sum(error == 0 for error in errors) / n
    assert figure(pairs, ["upstream_absolute_error", 1]) == sum(errors) / n
    assert figure(pairs, ["upstream_squared_error", 1], rmse) == math.sqrt(sum(error**2 for error in errors) / n)


@given(answers)
def test_officially_a_reply_without_a_number_is_never_right_and_has_no_error(pairs):
    errors = [abs(predicted - truth) for predicted, truth in pairs if predicted is not None]
    n = len(pairs)
    assert figure(pairs, ["exact", 1]) == sum(error == 0 for error in errors) / n
    assert figure(pairs, ["off_by_one", 1]) == sum(error <= 1 for error in errors) / n
    mean = sum(errors) / len(errors) if errors else math.nan
    square = sum(error**2 for error in errors) / len(errors) if errors else math.nan
    assert figure(pairs, ["absolute_error", "counted"]) == pytest.approx(mean, nan_ok=True)
    assert figure(pairs, ["squared_error", "counted"], rmse) == pytest.approx(math.sqrt(square), nan_ok=True)


@given(answers)
def test_mean_accuracy_weighs_every_true_count_alike(pairs):
    right = defaultdict(list)
    for predicted, truth in pairs:
        right[truth].append(predicted == truth)
    expected = sum(sum(of_count) / len(of_count) for of_count in right.values()) / len(right)
    columns = per_count([predicted == truth for predicted, truth in pairs], [truth for _, truth in pairs])
    assert columns.shape == (len(pairs), 2 * len(right))
    assert interval(columns, range(len(pairs)), mean_accuracy).value == pytest.approx(expected)


def test_a_count_that_a_resample_lacks_is_left_out_of_its_mean():
    columns = per_count([1, 0], [3, 5])
    assert mean_accuracy(columns[:1]) == 1
    assert mean_accuracy(columns[1:]) == 0
    assert mean_accuracy(columns.sum(axis=0, keepdims=True)) == 0.5


@pytest.mark.parametrize(
    ("predicted", "truth", "exact", "off_by_one", "upstream"),
    [(0, 0, 1, 1, 1), (None, 0, 0, 0, 1), (1, 0, 0, 1, 0), (None, 3, 0, 0, 0), (7, 7, 1, 1, 1), (5, 7, 0, 0, 0)],
)
def test_zero_is_a_number_and_no_number_is_not_zero(predicted, truth, exact, off_by_one, upstream):
    columns = score(predicted, truth)
    assert (columns["exact"], columns["off_by_one"], columns["upstream_exact"]) == (exact, off_by_one, upstream)
    assert columns["counted"] == (predicted is not None)


def test_no_samples_have_no_accuracy():
    assert per_count([], []).shape == (0, 0)
    assert math.isnan(interval(per_count([], []), [], mean_accuracy).value)
    assert np.isnan(mean_accuracy(np.zeros((1, 4)))).all()
