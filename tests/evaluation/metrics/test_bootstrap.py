"""Bootstrap intervals: against resampling done by hand, theory, and what clusters must and must not change."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation.metrics import bootstrap
from evaluation.metrics.bootstrap import Estimate, difference, interval, ratio, resample
from evaluation.metrics.coverage import coverage, one_run


def by_hand(rows, clusters, figure, columns):
    """A figure under weights that really repeats the samples of a cluster, one weight row after the other.

    Clusters are in the order of their columns' sums, which does not depend on their names or the rows' order.
    """

    def sums(name):
        return tuple(np.array([c for c, cluster in zip(columns, clusters, strict=True) if cluster == name]).sum(axis=0))

    names = sorted(dict.fromkeys(clusters), key=sums)

    def under(weights):
        values = []
        for row in weights:
            repeated = [
                sample
                for name, times in zip(names, row, strict=True)
                for _ in range(int(times))
                for sample, cluster in zip(rows, clusters, strict=True)
                if cluster == name
            ]
            values.append(figure(repeated))
        return np.array(values)

    return under, len(names)


@pytest.fixture
def samples():
    generator = np.random.default_rng(3)
    clusters = [f"image {n}" for n in generator.integers(12, size=40)]
    return generator.integers(0, 50, size=(40, 2)) + np.array([0, 20]), clusters


def test_a_ratio_is_that_of_samples_drawn_again_by_image(samples):
    rows, clusters = samples
    figure, n_clusters = by_hand(
        rows, clusters, lambda drawn: sum(a for a, _ in drawn) / sum(b for _, b in drawn), rows
    )
    expected = resample(figure, n_clusters, resamples=60, seed=5)
    assert interval(rows, clusters, resamples=60, seed=5) == pytest.approx(expected, abs=1e-12)


def test_any_function_of_sums_can_be_resampled(samples):
    rows, clusters = samples
    columns = np.column_stack([rows[:, 0] ** 2, np.ones(len(rows))])
    figure, n_clusters = by_hand(
        rows[:, 0], clusters, lambda drawn: math.sqrt(sum(a * a for a in drawn) / len(drawn)), columns
    )
    found = interval(columns, clusters, lambda sums: np.sqrt(ratio(sums)), resamples=60)
    assert found == pytest.approx(resample(figure, n_clusters, resamples=60), abs=1e-12)


def test_a_paired_difference_draws_both_runs_together(samples):
    rows, clusters = samples
    both = [(a, b) for a, b in rows]
    columns = np.insert(rows, 1, 1, axis=1)
    figure, n_clusters = by_hand(both, clusters, lambda drawn: sum(a - b for a, b in drawn) / len(drawn), columns)
    expected = resample(figure, n_clusters, resamples=60)
    assert difference(rows[:, 0], rows[:, 1], clusters, resamples=60) == pytest.approx(expected, abs=1e-12)


def test_one_column_means_the_mean(samples):
    rows, clusters = samples
    column = rows[:, 0]
    assert interval(column, clusters) == interval(np.column_stack([column, np.ones(len(column))]), clusters)
    assert interval(column, clusters).value == pytest.approx(column.mean())


def test_without_clusters_the_interval_of_a_mean_is_that_of_theory_and_of_scipy():
    values = np.random.default_rng(0).exponential(size=3000)
    found = interval(values, range(3000), resamples=4000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(3000)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.08 * half)
    other = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.08 * half)


def test_questions_about_one_picture_that_share_its_luck_do_not_narrow_the_interval():
    luck = np.random.default_rng(1).random(100)
    single = interval(luck, range(100))
    asked_ten_times = interval(np.repeat(luck, 10), np.repeat(range(100), 10).tolist())
    as_if_independent = interval(np.repeat(luck, 10), range(1000))
    assert asked_ten_times == pytest.approx(single)
    assert as_if_independent.high - as_if_independent.low < (single.high - single.low) / 2


def test_runs_that_differ_by_the_same_everywhere_have_a_difference_without_width():
    values = np.random.default_rng(2).random(50)
    assert difference(values + 0.25, values, range(50)) == pytest.approx((0.25, 0.25, 0.25))
    assert difference(values, values, range(50)) == (0, 0, 0)


def test_the_interval_depends_on_the_seed_alone(samples):
    rows, clusters = samples
    assert interval(rows, clusters) == interval(rows, clusters)
    assert interval(rows, clusters) != interval(rows, clusters, seed=1)


def test_names_of_images_do_not_matter(samples):
    rows, clusters = samples
    renamed = [(hash(cluster), "other") for cluster in clusters]
    assert interval(rows, clusters) == interval(rows, renamed)


def test_drawing_in_parts_draws_the_same(samples, monkeypatch):
    rows, clusters = samples
    whole = interval(rows, clusters)
    monkeypatch.setattr(bootstrap, "CELLS", 100)
    assert interval(rows, clusters) == whole


def test_every_draw_has_as_many_images_as_the_set():
    seen = []

    def note(weights):
        seen.append(weights)
        return weights.sum(axis=1)

    assert resample(note, 7, resamples=30) == (7, 7, 7)
    weights = np.concatenate(seen[1:])  # the first is the set itself
    assert weights.shape == (30, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert len(np.unique(weights, axis=0)) > 20


def test_a_mirrored_interval_lies_on_the_other_side_of_the_value():
    def shifted_by_resampling(weights):
        return 10 + (weights - 1).clip(0).sum(axis=1)

    plain, mirrored = (resample(shifted_by_resampling, 30, mirrored=side) for side in (False, True))
    assert plain.value == mirrored.value == 10
    assert plain.low > 10 > mirrored.high
    assert (mirrored.low, mirrored.high) == (20 - plain.high, 20 - plain.low)


def is_nan(estimate: Estimate) -> list[bool]:
    return [math.isnan(number) for number in estimate]


def test_one_image_has_a_value_and_no_interval():
    assert is_nan(interval([1, 2, 3], ["a"] * 3)) == [False, True, True]


@pytest.mark.parametrize("columns", [[], np.empty((0, 3))])
def test_no_samples_have_no_value(columns):
    assert is_nan(interval(columns, [])) == [True, True, True]


def test_nothing_to_divide_by_is_no_value_and_not_zero():
    assert is_nan(interval([[0, 0], [0, 0]], ["a", "b"])) == [True, True, True]
    assert is_nan(interval([[1, 0], [1, 0]], ["a", "b"])) == [True, True, True]


def test_draws_without_a_value_are_left_out_of_the_interval():
    found = interval([[3, 3], [0, 0], [0, 0]], ["a", "b", "c"])
    assert found == (1, 1, 1)


# ---- shares ----


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (1, 40), (20, 40), (39, 40), (40, 40), (200, 200)])
def test_a_share_of_independent_samples_has_wilsons_interval(hits, n):
    found = interval([1] * hits + [0] * (n - hits), range(n))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found.value == hits / n
    slack = 0.03 if 0 < hits < n else 1e-9  # the design effect is estimated, and not taken below 1
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=slack)


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
    assert again == pytest.approx(interval(column, images), abs=1e-12)


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
        held, _ = coverage(lambda: one_run(generator, p, images, each), 400)  # noqa: B023
        assert 0.91 <= held <= 0.985, (p, images, each)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="columns and clusters must have the same length, got 2 and 3"):
        interval([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"columns of the same shape, got \(2,\) and \(3,\)"):
        difference([1, 2], [1, 2, 3], [1, 2])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 100), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_value_is_that_of_the_samples_as_they_are(rows):
    found = interval([row[:2] for row in rows], [row[2] for row in rows], resamples=5)
    assert found.value == pytest.approx(sum(row[0] for row in rows) / sum(row[1] for row in rows))
