"""Intervals: against formulas written out, theory, simulation, and what clusters must and must not change."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation.metrics import boxes
from evaluation.metrics.coverage import changed_set, coverage, found_boxes, one_run, overlaps, set_of
from evaluation.metrics.intervals import Estimate, difference, interval, ratio


@pytest.fixture
def samples():
    generator = np.random.default_rng(3)
    clusters = [f"image {n}" for n in generator.integers(12, size=40)]
    return generator.integers(0, 20, size=(40, 2)) + np.array([0, 20]), clusters


def standard_error(rows, clusters, figure):
    """The jackknife's, over images, with the figure computed anew from the samples that are left."""
    names = sorted(set(clusters))
    without = [figure([row for row, of in zip(rows, clusters, strict=True) if of != name]) for name in names]
    C = len(names)
    return math.sqrt((C - 1) / C * sum((value - np.mean(without)) ** 2 for value in without)), C


def test_a_fraction_has_wilsons_interval_for_the_samples_that_its_standard_error_stands_for(samples):
    rows, clusters = samples[0] / [1, 1.5], samples[1]
    error, C = standard_error(rows, clusters, lambda left: sum(a for a, _ in left) / sum(b for _, b in left))
    found = interval(rows, clusters)
    value = rows[:, 0].sum() / rows[:, 1].sum()
    middle = (C * value + 0.5) / (C + 1)  # half an image of 0, half of 1
    squares = (C - 1) * C * error**2 + 0.5 * (middle**2 + (1 - middle) ** 2)
    size = middle * (1 - middle) * C**2 / squares
    z = stats.norm.ppf(0.975)
    center = (middle + z**2 / 2 / size) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(middle * (1 - middle) / size + z**2 / 4 / size**2)
    assert found == pytest.approx((value, center - half, center + half), abs=1e-5)


def test_a_paired_difference_has_students_interval(samples):
    rows, clusters = samples[0] / 40, samples[1]
    error, C = standard_error(rows, clusters, lambda left: sum(a - b for a, b in left) / len(left))
    found = difference(rows[:, 0], rows[:, 1], clusters)
    half = stats.t.ppf(0.975, C - 1) * error
    value = rows[:, 0].mean() - rows[:, 1].mean()
    assert found == pytest.approx((value, value - half, value + half), abs=1e-4)


def test_one_column_means_the_mean(samples):
    rows, clusters = samples
    column = rows[:, 0] / 20
    assert interval(column, clusters) == interval(np.column_stack([column, np.ones(len(column))]), clusters)
    assert interval(column, clusters).value == pytest.approx(column.mean())


def test_the_interval_of_a_mean_of_many_is_that_of_theory():
    values = np.random.default_rng(0).beta(2, 3, size=3000)
    found = interval(values, range(3000))
    half = 1.96 * values.std(ddof=1) / math.sqrt(3000)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03 * half)


def test_questions_about_one_picture_that_share_its_luck_do_not_narrow_the_interval():
    luck = np.random.default_rng(1).random(100)
    single = interval(luck, range(100))
    asked_ten_times = interval(np.repeat(luck, 10), np.repeat(range(100), 10).tolist())
    as_if_independent = interval(np.repeat(luck, 10), range(1000))
    assert asked_ten_times == pytest.approx(single)
    assert as_if_independent.high - as_if_independent.low < (single.high - single.low) / 2


def test_where_no_image_differs_a_difference_has_no_interval():
    values = np.random.default_rng(2).random(50) / 2
    for other in (values, values + 0.25):
        assert is_nan(difference(other, values, range(50))) == [False, True, True]


def test_a_sum_that_a_few_images_decide_has_no_interval():
    areas = np.column_stack([np.full(200, 50.0), np.full(200, 100.5)])
    assert not math.isnan(interval(areas, range(200), least=150).low)
    assert not math.isnan(difference(areas, areas / [2, 1] + np.eye(200, 2), range(200), least=150).low)
    areas[0] = 5000, 10000.5
    assert is_nan(interval(areas, range(200), least=150)) == [False, True, True]
    assert is_nan(difference(areas, areas / [2, 1], range(200), least=150)) == [False, True, True]


def test_what_is_no_fraction_has_a_value_alone():
    assert interval([3, 5], "ab", least=math.inf).value == 4
    with pytest.raises(ValueError, match="only fractions have an interval, got 4"):
        interval([3, 5], "ab")


def test_names_of_images_do_not_matter(samples):
    rows, clusters = samples
    renamed = [(hash(cluster), "other") for cluster in clusters]
    assert interval(rows, clusters) == interval(rows, renamed)


def is_nan(estimate: Estimate) -> list[bool]:
    return [math.isnan(number) for number in estimate]


def test_one_image_has_a_value_and_no_interval():
    assert is_nan(interval([0.1, 0.2, 0.3], ["a"] * 3)) == [False, True, True]


@pytest.mark.parametrize("columns", [[], np.empty((0, 3))])
def test_no_samples_have_no_value(columns):
    assert is_nan(interval(columns, [])) == [True, True, True]


def test_nothing_to_divide_by_is_no_value_and_not_zero():
    assert is_nan(interval([[0, 0], [0, 0]], ["a", "b"])) == [True, True, True]
    assert is_nan(interval([[1, 0], [1, 0]], ["a", "b"])) == [True, True, True]


# ---- shares ----


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (1, 40), (20, 40), (39, 40), (40, 40), (200, 200), (0, 615)])
def test_a_share_of_independent_samples_has_wilsons_interval(hits, n):
    found = interval([1] * hits + [0] * (n - hits), range(n))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found.value == hits / n
    slack = 0.03 if 0 < hits < n else 1e-9  # the design effect is estimated, and not taken below 1
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=slack)
    assert 0 <= found.low <= found.high <= 1
    assert not str(found.low).startswith("-")  # no -0.0


def test_samples_of_one_image_that_are_all_alike_count_as_one():
    alike = interval([1] * 30 + [0] * 10, [i // 4 for i in range(40)])
    apart = interval([1] * 30 + [0] * 10, range(40))
    once = interval([1] * 8 + [0] * 2, range(10))
    assert alike.high - alike.low > 1.5 * (apart.high - apart.low)
    assert alike.high - alike.low == pytest.approx(once.high - once.low, abs=0.1)


def test_the_order_of_samples_and_the_names_of_images_change_no_interval():
    generator = np.random.default_rng(0)
    column, images = generator.random(60), generator.integers(9, size=60).tolist()
    order = generator.permutation(60)
    again = interval(column[order], [f"image {images[i]}" for i in order])
    assert again == interval(column, images)


def test_two_runs_that_agree_everywhere_may_still_differ_a_little():
    found = difference([1] * 100, [1] * 100, range(100))
    assert found.value == 0
    assert -0.06 < found.low < 0 < found.high < 0.06


def test_the_paired_difference_of_shares_is_bonetts_and_prices():
    first, second = [1] * 40 + [0] * 60, [1] * 25 + [0] * 75
    found = difference(first, second, range(100))
    one, two, size = 16 / 102, 1 / 102, 102
    half = 1.96 * math.sqrt((one + two - (one - two) ** 2) / size)
    assert found.value == pytest.approx(0.15)
    assert (found.low, found.high) == pytest.approx((one - two - half, one - two + half), abs=1e-3)


def test_simulated_intervals_of_shares_hold():
    for p, images, each in ((0.5, 100, 1), (0.95, 40, 1), (0.99, 200, 1), (0.9, 100, 3)):
        generator = np.random.default_rng(1)
        held, _, _ = coverage(lambda: one_run(generator, p, images, each), 400)  # noqa: B023
        assert 0.91 <= held <= 0.985, (p, images, each)


@pytest.mark.parametrize(
    ("draw", "images"),
    [
        (lambda rng, n: np.column_stack([overlaps(rng, n, 0.05, 0.9, 50), np.ones(n)]), 100),
        (lambda rng, n: np.column_stack([overlaps(rng, n, 0.9, 0.85, 10), np.ones(n)]), 40),
        (lambda rng, n: found_boxes(rng, n, 0.97, 0.03)[:, :2], 40),
        (lambda rng, n: boxes.f1(*found_boxes(rng, n, 0.5, 0.5).T), 100),
    ],
)
def test_simulated_intervals_of_other_fractions_hold(draw, images):
    truth = float(ratio(draw(np.random.default_rng(1), 200_000).sum(axis=0, keepdims=True))[0])
    generator = np.random.default_rng(2)
    held, _, there = coverage(lambda: set_of(generator, draw, images, truth), 400)
    assert 0.91 <= held <= 0.985
    assert there == 1
    held, _, _ = coverage(lambda: changed_set(generator, draw, images, 0.5), 400)
    assert 0.91 <= held <= 0.985


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="columns and clusters must have the same length, got 2 and 3"):
        interval([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"columns of the same shape, got \(2,\) and \(3,\)"):
        difference([1, 2], [1, 2, 3], [1, 2])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 100), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_value_is_that_of_the_samples_as_they_are(rows):
    found = interval([row[:2] for row in rows], [row[2] for row in rows], least=math.inf)
    assert found.value == pytest.approx(sum(row[0] for row in rows) / sum(row[1] for row in rows))
