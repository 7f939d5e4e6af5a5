"""COCO AP: against pycocotools used directly, against sets with pictures really repeated, and by hand."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.metrics import coco
from evaluation.metrics.coco import NAMES, area_ratio, average_precision, coco_scores, detection
from evaluation.metrics.coverage import simulated_ap


def dataset(seed, n_images=8, n_categories=3, *, n_truths=30, n_detections=40, distinct=True, crowds=0.1):
    """Boxes at random, detections near them or anywhere."""
    generator = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    detections = []
    for number in range(n_truths):
        x, y, w, h = (int(value) for value in generator.integers(5, 120, size=4))
        annotations.append(
            {
                "id": number + 1,
                "image_id": int(generator.integers(n_images)),
                "category_id": int(generator.integers(n_categories)) + 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(generator.random() < crowds),
            }
        )
    for number in range(n_detections):
        score = float(generator.random()) if distinct else float(generator.integers(3)) / 2
        if annotations and generator.random() < 0.8:
            near = annotations[generator.integers(len(annotations))]
            x, y, w, h = near["bbox"]
            box = np.array([x, y, x + w, y + h]) + generator.integers(-6, 7, size=4)
            detections.append(detection(near["image_id"], near["category_id"], box.tolist(), score))
        else:
            detections.append(detection(number % n_images, number % n_categories + 1, [0, 0, 50, 40], score))
    instances = {
        "images": [{"id": n, "width": 300, "height": 300} for n in range(n_images)],
        "categories": [{"id": n + 1, "name": str(n)} for n in range(n_categories)],
        "annotations": annotations,
    }
    return instances, detections


def directly(instances, detections):
    """The twelve numbers of pycocotools, used as its demonstration does."""
    truth = COCO()
    truth.dataset = copy.deepcopy(instances)
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [math.nan if value == -1 else value for value in evaluation.stats]


def one_category(truths, detections):
    """Image 1, category 1; xyxy boxes, and (box, score)."""
    instances = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for n, (x1, y1, x2, y2) in enumerate(truths)  # the first has the id 0
        ],
    }
    return coco_scores(instances, [detection(1, 1, box, score) for box, score in detections])


A, B, FAR = [0, 0, 20, 20], [40, 40, 60, 60], [80, 80, 90, 90]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_figures_are_those_of_pycocotools(seed, distinct):
    instances, detections = dataset(seed, distinct=distinct)
    found = coco_scores(instances, detections)
    assert list(found.figures) == list(NAMES)
    np.testing.assert_array_equal(list(found.figures.values()), directly(instances, detections))
    assert found.image_ids == tuple(range(8))
    assert found.category_ids == (1, 2, 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_with_all_weights_1_average_precision_is_that_of_pycocotools(seed, distinct):
    found = coco_scores(*dataset(seed, distinct=distinct))
    ap = average_precision(found, np.ones((2, 8)))
    assert ap.shape == (2, 10)
    assert ap.mean(axis=1) == pytest.approx([found.figures["AP"]] * 2, abs=1e-15)
    assert ap[:, [0, 5]] == pytest.approx(np.array([[found.figures["AP50"], found.figures["AP75"]]] * 2), abs=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_a_weight_is_a_picture_that_is_there_so_many_times(seed, weights):
    instances, detections = dataset(seed)
    repeated: dict[str, Any] = {"images": [], "annotations": [], "categories": instances["categories"]}
    repeated_detections = []
    for image_id, times in enumerate(weights):
        for turn in range(times):
            new = 100 * (turn + 1) + image_id
            repeated["images"].append({"id": new, "width": 300, "height": 300})
            for item in instances["annotations"]:
                if item["image_id"] == image_id:
                    repeated["annotations"].append(
                        {**item, "image_id": new, "id": len(repeated["annotations"]) + 1},
                    )
            repeated_detections += [{**item, "image_id": new} for item in detections if item["image_id"] == image_id]
    ap = average_precision(coco_scores(instances, detections), np.array([weights], dtype=float)).mean()
    if repeated_detections:
        assert ap == pytest.approx(directly(repeated, repeated_detections)[0], abs=1e-12, nan_ok=True)
    elif repeated["annotations"]:
        assert ap == 0 or math.isnan(ap)  # nan where all that is left are crowds
    else:
        assert math.isnan(ap)


def test_average_precision_by_hand():
    found = one_category([A, B], [(A, 0.9), (FAR, 0.8), (B, 0.7)])
    # Precision 1 up to half of the truths (51 of the 101 recall points), then 2 of 3.
    assert found.figures["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found.figures["AR100"] == 1
    assert found.figures["AR1"] == 0.5


def test_equal_scores_keep_the_order_of_the_model():
    first_right = one_category([A], [(A, 0.5), (FAR, 0.5)])
    first_wrong = one_category([A], [(FAR, 0.5), (A, 0.5)])
    assert first_right.figures["AP"] == pytest.approx(1)
    assert first_wrong.figures["AP"] == pytest.approx(0.5)


def test_the_first_box_of_a_file_counts_although_its_id_is_0():
    assert one_category([A], [(A, 1.0)]).figures["AP"] == pytest.approx(1)


def test_no_detections_score_0():
    found = one_category([A], [])
    assert (found.figures["AP"], found.figures["AR100"]) == (0, 0)
    assert math.isnan(found.figures["APl"])  # no large box was there
    assert average_precision(found, np.ones((3, 1))).tolist() == [[0] * 10] * 3


@pytest.mark.parametrize("detections", [[], [(A, 0.5)]])
def test_without_a_true_box_there_is_no_figure(detections):
    found = one_category([], detections)
    assert all(math.isnan(value) for value in found.figures.values())
    assert np.isnan(average_precision(found, np.ones((1, 1)))).all()
    assert math.isnan(coco.intervals(found)["AP"].value)


def test_what_was_not_asked_does_not_count_as_missed():
    instances, _ = dataset(0, crowds=0)
    pairs = [(item["image_id"], item["category_id"]) for item in instances["annotations"]]
    asked = set(pairs[:5])
    right = [
        detection(item["image_id"], item["category_id"], [x, y, x + w, y + h], 1.0)
        for item, pair in zip(instances["annotations"], pairs, strict=True)
        if pair in asked
        for x, y, w, h in [item["bbox"]]
    ]
    limited = coco_scores(instances, right, asked=asked)
    assert limited.figures["AP"] == pytest.approx(1)
    assert limited.image_ids == tuple(sorted({pair[0] for pair in asked}))
    assert limited.category_ids == tuple(sorted({pair[1] for pair in asked}))
    assert coco_scores(instances, right).figures["AP"] < 1


def test_asking_about_everything_is_the_same_as_not_saying():
    instances, detections = dataset(4)
    everything = [(image, category) for image in range(8) for category in (1, 2, 3)]
    assert coco_scores(instances, detections, asked=everything).figures == pytest.approx(
        coco_scores(instances, detections).figures, nan_ok=True
    )


def test_a_detection_that_answers_no_question_is_refused():
    instances, _ = dataset(0)
    with pytest.raises(ValueError, match=r"a detection in image 3, category 2: was not asked"):
        coco_scores(instances, [detection(3, 2, A, 1.0)], asked=[(3, 1)])
    with pytest.raises(ValueError, match="image 99, category 1"):
        coco_scores(instances, [detection(99, 1, A, 1.0)])


def test_nothing_is_printed_and_what_was_given_stays_as_it_was(capsys):
    instances, detections = dataset(1)
    before = copy.deepcopy((instances, detections))
    coco_scores(instances, detections)
    assert (instances, detections) == before
    assert capsys.readouterr().out == ""


def test_a_detection_is_written_as_corner_and_size_and_its_area_ratio_is_a_share_of_the_image():
    assert detection(1, 2, [10, 20, 40, 60], 0.5)["bbox"] == [10, 20, 30, 40]
    assert area_ratio([10, 20, 40, 60], (100, 60)) == 0.2


def telling(seed, images=60, categories=10, number=1):
    """Simulated matches; equal seeds have equal true boxes, whatever the number of the run."""
    rngs = np.random.default_rng([seed, images]), np.random.default_rng([seed, images, number])
    return simulated_ap(*rngs, images, categories, 2, 2.0)


def test_intervals_of_ap_are_around_the_value_and_do_not_depend_on_the_order_of_images():
    instances, detections = dataset(3, n_images=60, n_truths=200, n_detections=250)
    found = coco.intervals(coco_scores(instances, detections))
    assert list(found) == ["AP", "AP50", "AP75"]
    for name, estimate in found.items():
        assert estimate.value == coco_scores(instances, detections).figures[name]
        assert estimate.low < estimate.value < estimate.high
    instances["images"].reverse()
    assert coco.intervals(coco_scores(instances, detections)) == found


def test_each_image_moves_ap_by_what_is_lost_without_it():
    scores = telling(0, images=12, categories=3)
    everything, without = np.ones((1, 12)), 1 - np.eye(12)
    by = average_precision(scores, everything) - average_precision(scores, without)
    of_each = [np.flatnonzero((m.truths > 0) | np.isin(np.arange(12), m.images)) for m in scores.matches]
    found = coco._deviations(scores)
    assert len(of_each) == 3
    if all(len(images) > 1 for images in of_each):
        assert np.abs(found).sum() < np.abs(by).sum() < 2 * np.abs(found).sum()
    assert np.corrcoef(found.mean(axis=1), by.mean(axis=1))[0, 1] > 0.95


def test_a_difference_of_ap_is_paired_and_has_no_interval_where_no_image_differs():
    first, second = telling(1, number=1), telling(1, number=2)
    same = coco.differences(first, first)["AP"]
    assert (same.value, math.isnan(same.low)) == (0, True)
    there, back = coco.differences(first, second)["AP"], coco.differences(second, first)["AP"]
    assert there.value == pytest.approx(first.figures["AP"] - second.figures["AP"])
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    apart = sum((estimate.high - estimate.low) ** 2 for estimate in (coco.intervals(s)["AP"] for s in (first, second)))
    assert there.high - there.low < math.sqrt(apart)
    with pytest.raises(ValueError, match="same images"):
        coco.differences(first, telling(1, images=50))


def test_simulated_intervals_of_ap_hold_with_few_boxes_in_each_category():
    estimates = [coco.intervals(telling(seed, 40, 60))["AP"] for seed in range(30)]
    mean = np.mean([estimate.value for estimate in estimates])
    assert np.mean([estimate.low <= mean <= estimate.high for estimate in estimates]) >= 0.85
