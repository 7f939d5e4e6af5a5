"""AUROC, calibration error and reliability against values worked out by hand."""

import numpy as np
import pytest

from evaluation.metrics.calibration import auroc, calibration_error, reliability


@pytest.mark.parametrize(
    ("confidences", "right", "value"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.5),
        ([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0], 0.875),  # of four pairs three are in order, one is a tie
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(confidences, right, value):
    assert auroc(confidences, np.array(right, bool), range(4)).value == pytest.approx(value)


def test_auroc_has_no_value_where_all_are_right():
    assert np.isnan(auroc([0.1, 0.2], [True, True], [1, 2]).value)


def test_calibration_error_is_the_mean_gap_between_confidence_and_share_of_right_ones():
    confidences, right = [0.95, 0.95, 0.25, 0.25], [True, False, False, False]
    assert calibration_error(confidences, right) == pytest.approx((0.45 + 0.25) / 2)


def test_the_interval_takes_images_whole():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    sure = np.clip(0.5 + 0.2 * (right - 0.5) + 0.3 * rng.normal(size=400), 0, 1)
    alone = auroc(sure, right, range(400))
    twice = auroc(np.repeat(sure, 2), np.repeat(right, 2), np.repeat(range(400), 2).tolist())
    assert alone.low < alone.value < alone.high
    assert twice.high - twice.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_reliability_leaves_empty_bins_out():
    bins = reliability([0.05, 0.99, 1.0], [False, True, False])
    assert [(b.low, b.high, b.n, b.right) for b in bins] == [(0.0, 0.1, 1, 0.0), (0.9, 1.0, 2, 0.5)]
