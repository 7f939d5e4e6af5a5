"""Hits and matching: against loops over pairs, scipy's assignment, and examples at the threshold."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vision_reasoner.geometry import Box
from vision_reasoner.matching import best_assignment_score, box_hits, f1_score, match_boxes, pairwise_iou


def iou_of_two(a, b, extra):
    """Completion out for two boxes, as the definition says."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(width, 0) * max(height, 0)
    total = sum((box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b)) - shared
    return shared / total if total else 0.0


@st.composite
def boxes(draw):
    x1, y1 = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    return Box(x1, y1, x1 + draw(st.integers(0, 50)), y1 + draw(st.integers(0, 50)))


@st.composite
def box_lists(draw):
    """Boxes of 2 x 2 to 6 x 6 pixels that overlap a lot."""
    count = draw(st.integers(0, 7))
    corners = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=count, max_size=count))
    sides = draw(st.lists(st.tuples(st.integers(2, 6), st.integers(2, 6)), min_size=count, max_size=count))
    return [Box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sides, strict=True)]


def test_iou_of_known_boxes():
    iou = pairwise_iou([(0, 0, 10, 10), (0, 0, 5, 10), (20, 20, 30, 30)], [(0, 0, 10, 10), (5, 0, 15, 10)])
    np.testing.assert_allclose(iou, np.array([[1, 1 / 3], [1 / 2, 0], [0, 0]]))


def test_inclusive_iou_counts_the_last_pixel():
    assert pairwise_iou([(0, 0, 9, 9)], [(0, 0, 9, 4)], inclusive=True)[0, 0] == pytest.approx(0.5)
    assert pairwise_iou([(3, 3, 3, 3)], [(3, 3, 3, 3)], inclusive=True)[0, 0] == 1
    # Boxes that share a column of pixels do not touch by their edges.
    assert pairwise_iou([(0, 0, 4, 9)], [(4, 0, 8, 9)], inclusive=True)[0, 0] == pytest.approx(1 / 9)
    assert pairwise_iou([(0, 0, 4, 9)], [(4, 0, 8, 9)])[0, 0] == 0


@given(st.lists(boxes(), max_size=4), st.lists(boxes(), max_size=4), st.booleans())
def test_iou_is_that_of_each_pair(first, second, inclusive):
    iou = pairwise_iou(first, second, inclusive=inclusive)
    assert iou.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            assert iou[i, j] == pytest.approx(iou_of_two(a, b, 1 if inclusive else 0))


def test_no_boxes_give_an_empty_table_and_empty_boxes_give_zero():
    assert pairwise_iou([], [(0, 0, 1, 1)]).shape == (0, 1)
    assert pairwise_iou(np.zeros((2, 4)), []).shape == (2, 0)
    assert pairwise_iou([(1, 1, 1, 1)], [(1, 1, 1, 1)])[0, 0] == 0


@given(box_lists(), box_lists())
def test_matching_takes_the_best_pair_that_is_left_again_and_again(predicted, truth):
    rest_p, rest_t, expected = set(range(len(predicted))), set(range(len(truth))), []
    while True:
        pairs = [(p, t) for p in sorted(rest_p) for t in sorted(rest_t) if iou_of_two(predicted[p], truth[t], 0) >= 0.5]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: iou_of_two(predicted[pair[0]], truth[pair[1]], 0))  # the first of equal ones
        expected.append(best)
        rest_p.remove(best[0])
        rest_t.remove(best[1])
    assert match_boxes(predicted, truth) == expected


@given(box_lists(), box_lists())
def test_matching_is_one_to_one_and_leaves_no_pair_that_could_be_made(predicted, truth):
    pairs = match_boxes(predicted, truth)
    hit = box_hits(predicted, truth)
    assert all(hit[pair] for pair in pairs)
    rows, columns = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    assert len(rows) == len(columns) == len(pairs)
    left = hit.copy()
    left[list(rows)] = False
    left[:, list(columns)] = False
    assert not left.any()
    most = hit[linear_sum_assignment(-hit.astype(int))].sum()
    assert most / 2 <= len(pairs) <= most


@pytest.mark.parametrize(
    ("box", "inclusive", "strict", "hit"),
    [
        ((0, 0, 10, 5), False, False, True),  # 50 of 100 square pixels
        ((0, 0, 10, 5), False, True, False),
        ((0, 0, 10, 6), False, True, True),
        ((0, 0, 10, 4), False, False, False),
        ((0, 0, 10, 5), True, True, True),  # 11 x 6 of 11 x 11 pixels
        ((0, 0, 10, 4), True, False, False),
    ],
)
def test_a_hit_at_the_threshold(box, inclusive, strict, hit):
    assert box_hits([box], [(0, 0, 10, 10)], inclusive=inclusive, strict=strict).tolist() == [[hit]]


@given(
    st.integers(1, 4).flatmap(
        lambda m: st.lists(st.lists(st.integers(0, 3), min_size=m, max_size=m), min_size=1, max_size=4)
    )
)
def test_the_best_assignment_is_the_best_of_all(scores):
    table = np.array(scores)
    table = table if len(table) <= len(table[0]) else table.T
    orders = itertools.permutations(range(len(table[0])), len(table))
    expected = max(sum(row[column] for row, column in zip(table, order, strict=True)) for order in orders)
    assert best_assignment_score(np.array(scores)) == expected


def test_f1_of_nothing_is_no_value_and_of_no_match_is_0():
    np.testing.assert_array_equal(f1_score([0, 0, 3], [0, 2, 4], [0, 0, 5]), [np.nan, 0, 6 / 9])
