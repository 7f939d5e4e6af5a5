"""Box figures: against loops over pairs, scipy's assignment, and examples at the threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from evaluation.metrics.bootstrap import ratio
from evaluation.metrics.boxes import any_box_hit, f1, first_box_hit, match, score
from vision_reasoner.geometry import Box, pairwise_iou

TRUE = Box(0, 0, 10, 10)
HALF = Box(0, 0, 10, 5)  # IoU with TRUE: exactly 0.5
MORE = Box(0, 0, 10, 6)
FAR = Box(50, 50, 60, 60)


@st.composite
def box_lists(draw):
    """Boxes of 2 x 2 to 6 x 6 pixels that overlap a lot."""
    count = draw(st.integers(0, 7))
    corners = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=count, max_size=count))
    sides = draw(st.lists(st.tuples(st.integers(2, 6), st.integers(2, 6)), min_size=count, max_size=count))
    return [Box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sides, strict=True)]


def iou_of_two(a, b):
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@given(box_lists(), box_lists())
def test_matching_takes_the_best_pair_that_is_left_again_and_again(predicted, truth):
    rest_p, rest_t, expected = set(range(len(predicted))), set(range(len(truth))), []
    while True:
        pairs = [(p, t) for p in sorted(rest_p) for t in sorted(rest_t) if iou_of_two(predicted[p], truth[t]) >= 0.5]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: iou_of_two(predicted[pair[0]], truth[pair[1]]))  # the first of equal ones
        expected.append(best)
        rest_p.remove(best[0])
        rest_t.remove(best[1])
    assert match(predicted, truth) == expected


@given(box_lists(), box_lists())
def test_matching_is_one_to_one_and_leaves_no_pair_that_could_be_made(predicted, truth):
    pairs = match(predicted, truth)
    hit = pairwise_iou(predicted, truth) >= 0.5
    assert all(hit[pair] for pair in pairs)
    rows, columns = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    assert len(rows) == len(columns) == len(pairs)
    left = hit.copy()
    left[list(rows)] = False
    left[:, list(columns)] = False
    assert not left.any()
    most = hit[linear_sum_assignment(-hit.astype(int))].sum()
    assert most / 2 <= len(pairs) <= most


def test_the_threshold_is_above_a_half_upstream_and_from_a_half_on_officially():
    assert not any_box_hit([HALF], TRUE)
    assert any_box_hit([MORE], TRUE)
    assert first_box_hit([HALF], TRUE)
    assert match([HALF], [TRUE]) == [(0, 0)]


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
    if matched:
        assert f1(sums)[0] == pytest.approx(2 / (1 / precision + 1 / recall))
    elif false_alarms or missed:
        assert f1(sums)[0] == 0
    else:
        assert np.isnan([f1(sums)[0], precision, recall]).all()
