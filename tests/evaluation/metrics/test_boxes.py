"""Box figures: examples at the threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.boxes import any_box_hit, f1, first_box_hit, hits, score
from evaluation.metrics.intervals import ratio
from vision_reasoner.geometry import Box

TRUE = Box(0, 0, 10, 10)
HALF = Box(0, 0, 10, 5)  # IoU with TRUE: exactly 0.5
MORE = Box(0, 0, 10, 6)
FAR = Box(50, 50, 60, 60)


def test_the_threshold_is_above_a_half_upstream_and_from_a_half_on_officially():
    assert not any_box_hit([HALF], TRUE)
    assert any_box_hit([MORE], TRUE)
    assert first_box_hit([HALF], TRUE)
    assert score([HALF], [TRUE])["matched"] == 1


def test_upstream_any_box_will_do_and_officially_the_first_one_counts():
    assert any_box_hit([FAR, TRUE], TRUE)
    assert not first_box_hit([FAR, TRUE], TRUE)
    assert first_box_hit([TRUE, FAR], TRUE)


def test_no_predicted_box_is_no_hit():
    assert not any_box_hit([], TRUE)
    assert not first_box_hit([], TRUE)


def test_a_box_predicted_twice_is_matched_once():
    assert score([TRUE, TRUE], [TRUE]) == {
        "matched": 1,
        "predicted": 2,
        "true": 1,
        "one_box": 1,
        "any_box": 1,
        "first_box": 1,
    }


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([], [], (0, 0, 0, 0)),
        ([TRUE], [], (0, 1, 0, 0)),
        ([], [TRUE], (0, 0, 1, 1)),
        ([TRUE, FAR], [FAR, TRUE], (2, 2, 2, 0)),
        (np.empty((0, 4)), np.array([TRUE]), (0, 0, 1, 1)),
    ],
)
def test_columns_count_boxes_and_accuracy_presumes_one_true_box(predicted, truth, expected):
    columns = score(predicted, truth)
    assert (columns["matched"], columns["predicted"], columns["true"], columns["one_box"]) == expected
    if not columns["one_box"]:
        assert columns["any_box"] == columns["first_box"] == 0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(matched, false_alarms, missed):
    sums = np.array([[matched, matched + false_alarms, matched + missed]], dtype=float)
    precision, recall = ratio(sums[:, [0, 1]])[0], ratio(sums[:, [0, 2]])[0]
    found = ratio(f1(*sums.T))[0]
    if matched:
        assert found == pytest.approx(2 / (1 / precision + 1 / recall))
    elif false_alarms or missed:
        assert found == 0
    else:
        assert np.isnan([found, precision, recall]).all()


def test_hits_are_the_boxes_that_are_matched_one_to_one():
    one = [0, 0, 10, 10]
    assert hits([[0, 0, 10, 9], one, [50, 50, 60, 60]], [one]) == [False, True, False]
    assert hits([], [one]) == []
    assert hits([one], []) == [False]
