"""Mask figures: against pixel loops, pycocotools and the bookkeeping of GRES and LISA, written out here."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from evaluation.metrics.intervals import interval, ratio
from evaluation.metrics.segmentation import iou, overlap, score
from vision_reasoner.masks import encode_mask

SHAPE = (5, 7)
masks = hnp.arrays(np.bool_, SHAPE)
lists_of_masks = st.lists(masks, max_size=3)


def rectangle(x1, y1, x2, y2, shape=(40, 50)):
    mask = np.zeros(shape, dtype=np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


EMPTY = rectangle(0, 0, 0, 0)
SQUARE = rectangle(10, 10, 20, 20)


def pixels_of(several):
    """The set of (y, x) that any of the masks paints."""
    return {(y, x) for mask in several for y in range(SHAPE[0]) for x in range(SHAPE[1]) if mask[y, x]}


@given(lists_of_masks, lists_of_masks, lists_of_masks)
def test_areas_are_those_of_sets_of_pixels(predicted, truth, ignore):
    found = overlap(predicted, truth, ignore=ignore)
    p, t = pixels_of(predicted) - pixels_of(ignore), pixels_of(truth) - pixels_of(ignore)
    assert (found.predicted, found.truth, found.intersection, found.union) == (len(p), len(t), len(p & t), len(p | t))


@given(lists_of_masks, lists_of_masks, lists_of_masks)
def test_run_lengths_and_arrays_give_the_same(predicted, truth, ignore):
    encoded = [[encode_mask(mask) for mask in several] for several in (predicted, truth, ignore)]
    assert score(encoded[0], encoded[1], ignore=encoded[2]) == score(predicted, truth, ignore=ignore)
    assert score(predicted, encoded[1], ignore=ignore) == score(predicted, truth, ignore=ignore)


@given(masks, masks)
def test_iou_is_that_of_pycocotools(a, b):
    rles = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in (a, b)]  # counts are bytes here
    found = overlap([rles[0]], [rles[1]])
    expected = coco_mask.iou([rles[0]], [rles[1]], [0])[0, 0] if found.union else 0
    assert iou(found.intersection, found.union, empty=0) == pytest.approx(expected)


@given(masks, masks, masks)
def test_ignored_pixels_count_as_in_the_code_of_lisa(predicted, truth, ignore):
    # There, a label map in which 255 is passed over, and histograms of what is left.
    label = np.where(ignore, 255, truth.astype(int))
    kept = label != 255
    intersection = np.count_nonzero(predicted[kept] & (label[kept] == 1))
    areas = np.count_nonzero(predicted[kept]) + np.count_nonzero(label[kept] == 1)
    columns = score([predicted], [truth], ignore=[ignore])
    assert columns["intersection"] == intersection
    assert columns["union"] == areas - intersection


@given(st.lists(st.tuples(lists_of_masks, st.one_of(st.just([]), st.lists(masks, max_size=1))), min_size=1, max_size=6))
def test_the_figures_of_a_set_are_those_of_the_bookkeeping_of_gres(samples):
    total = {"iou": 0.0, "upstream": 0.0, "I": 0, "U": 0, "TP": 0, "TN": 0, "FP": 0, "FN": 0}
    for predicted, truth in samples:
        p, t = pixels_of(predicted), pixels_of(truth)
        if not t:
            total["TP" if not p else "FN"] += 1
            total["iou"] += 1 if not p else 0
        else:
            total["FP" if not p else "TN"] += 1
            total["iou"] += len(p & t) / len(p | t)
            total["upstream"] += len(p & t) / len(p | t)
        total["I"] += len(p & t)
        total["U"] += len(p | t)
    columns = [score(predicted, truth) for predicted, truth in samples]

    def figure(numerator, denominator=None):
        rows = [[one[numerator], one[denominator] if denominator else 1] for one in columns]
        return interval(rows, range(len(rows))).value

    def quotient(a, b):
        return pytest.approx(a / b if b else np.nan, nan_ok=True)

    assert figure("iou") == quotient(total["iou"], len(samples))
    assert figure("upstream_iou") == quotient(total["upstream"], len(samples))
    assert figure("intersection", "union") == quotient(total["I"], total["U"])
    assert figure("upstream_intersection", "upstream_union") == quotient(total["I"], total["U"])
    assert figure("no_target_right", "no_target") == quotient(total["TP"], total["TP"] + total["FN"])
    assert figure("target_right", "target") == quotient(total["TN"], total["TN"] + total["FP"])


@pytest.mark.parametrize(("predicted", "truth"), [([], []), ([EMPTY], [EMPTY]), ([], [EMPTY]), ([EMPTY, EMPTY], [])])
def test_nothing_painted_where_nothing_is_counts_1_officially_and_0_upstream(predicted, truth):
    columns = score(predicted, truth)
    assert (columns["iou"], columns["upstream_iou"]) == (1, 0)
    assert (columns["no_target"], columns["no_target_right"], columns["target"]) == (1, 1, 0)
    assert (columns["intersection"], columns["union"]) == (0, 0)


def test_painting_where_nothing_is_counts_0_and_enlarges_the_sum_of_unions():
    columns = score([SQUARE], [])
    assert (columns["iou"], columns["union"], columns["no_target"], columns["no_target_right"]) == (0, 100, 1, 0)


def test_painting_nothing_where_something_is_counts_0_and_enlarges_the_sum_of_unions():
    columns = score([], [SQUARE])
    assert (columns["iou"], columns["union"], columns["target"], columns["target_right"]) == (0, 100, 1, 0)


def test_several_instances_count_as_their_union():
    left, right = rectangle(10, 10, 16, 20), rectangle(14, 10, 20, 20)
    assert score([left, right], [SQUARE])["iou"] == 1


def test_upstream_the_ignore_region_is_foreground():
    region = rectangle(20, 10, 30, 20)
    columns = score([SQUARE], [SQUARE], ignore=[region])
    assert columns["iou"] == 1
    assert (columns["upstream_intersection"], columns["upstream_union"]) == (100, 200)
    assert columns["upstream_iou"] == 0.5


def test_painting_the_ignore_region_alone_is_painting_nothing():
    columns = score([SQUARE], [], ignore=[SQUARE])
    assert (columns["iou"], columns["no_target_right"]) == (1, 1)


def test_ciou_weighs_by_area_and_giou_does_not():
    small, large = rectangle(0, 0, 2, 2), rectangle(0, 0, 40, 30)
    columns = [score([small], [small]), score([rectangle(0, 0, 20, 30)], [large])]
    sums = np.array([[sum(one[name] for one in columns) for name in ("intersection", "union")]])
    assert ratio(sums)[0] == (4 + 600) / (4 + 1200)
    assert np.mean([one["iou"] for one in columns]) == 0.75


def test_run_lengths_may_come_from_json():
    encoded = json.loads(json.dumps([encode_mask(SQUARE)]))
    assert score(encoded, encoded)["iou"] == 1


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"must have one \(H, W\), got \[\(40, 50\), \(50, 40\)\]"):
        overlap([SQUARE], [SQUARE.T])
    with pytest.raises(ValueError, match=r"must have one \(H, W\)"):
        overlap([SQUARE], [], ignore=[encode_mask(SQUARE.T)])


@pytest.mark.parametrize(
    ("given_masks", "described"),
    [
        (SQUARE, r"bool array of shape \(50,\); give masks as a list"),
        (encode_mask(SQUARE), "got str; give masks as a list"),
        ([SQUARE.astype(np.uint8)], r"uint8 array of shape \(40, 50\)"),
        ([None], "got NoneType"),
        ([{"size": [40, 50]}], "got dict"),
    ],
)
def test_what_is_no_list_of_masks_is_refused(given_masks, described):
    with pytest.raises(ValueError, match=described):
        overlap(given_masks, [])
