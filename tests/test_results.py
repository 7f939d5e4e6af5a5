"""Instances and predictions: what is accepted, what is derived, and the way to JSON and back."""

import copy
import dataclasses
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.masks import decode_mask, encode_mask
from vision_reasoner.results import Instance, Prediction, Status, Task

SIZE = (40, 30)


def mask_of(x1, y1, x2, y2, size=SIZE):
    mask = np.zeros((size[1], size[0]), dtype=np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture
def prediction():
    return Prediction(
        image_size=SIZE,
        query="the dogs",
        task=Task.SEGMENTATION,
        thinking="3 < 4\n“two” dogs",
        reply="<think>…",
        status=Status.PARTIAL,
        warnings=["object 2 dropped: it has no bbox_2d"],
        instances=[
            Instance(Box(1, 2, 11, 12), Point(5, 6), mask_of(1, 2, 11, 12), 0.9),
            Instance(Box(5, 5, 40, 30), None, mask_of(5, 5, 40, 30), 0.5, label="dog"),
        ],
        timings={"think": 0.5},
    )


# ---- instances ----


@pytest.mark.parametrize("box", [(5, 5, 5, 10), (5, 5, 10, 5), (10, 5, 5, 10), (1, 2, 3)])
def test_an_empty_or_unordered_box_is_refused(box):
    with pytest.raises(ValueError, match=r"box must be \(x1, y1, x2, y2\).*got \("):
        Instance(box)


@pytest.mark.parametrize("mask", [np.zeros((3, 4), np.uint8), np.zeros((1, 3, 4), np.bool_)])
def test_a_mask_that_is_not_two_dimensional_bool_is_refused(mask):
    with pytest.raises(ValueError, match=r"mask must be \(H, W\) bool, got"):
        Instance(Box(0, 0, 1, 1), mask=mask)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)))
def test_a_mask_comes_out_as_it_went_in(mask):
    instance = Instance(Box(0, 0, 1, 1), mask=mask)
    assert instance.mask_shape == mask.shape
    assert instance.mask is not None
    assert instance.mask.dtype == np.bool_
    np.testing.assert_array_equal(instance.mask, mask)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_a_mask_changed_after_the_fact_does_not_change_the_instance():
    mask = mask_of(0, 0, 5, 5)
    instance = Instance(Box(0, 0, 5, 5), mask=mask)
    mask[:] = False
    assert instance.mask is not None
    assert instance.mask.sum() == 25


def test_bools_with_other_bytes_than_one_are_true_all_the_same():
    mask = np.frombuffer(bytes([0, 255, 2, 1]), dtype=np.bool_).reshape(2, 2)
    instance = Instance(Box(0, 0, 1, 1), mask=mask)
    assert instance.mask is not None
    assert instance.mask.view(np.uint8).tolist() == [[0, 1], [1, 1]]
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), [[False, True], [True, True]])


def test_masks_are_read_only_and_may_be_given_as_run_lengths():
    instance = Instance(Box(0, 0, 5, 5), mask=encode_mask(mask_of(0, 0, 5, 5)))
    assert instance == Instance(Box(0, 0, 5, 5), mask=mask_of(0, 0, 5, 5))
    assert instance.mask is not None
    with pytest.raises(ValueError, match="read-only"):
        instance.mask[0, 0] = False
    with pytest.raises(DataError, match="add up"):
        Instance(Box(0, 0, 5, 5), mask={"size": [5, 5], "counts": [24]})  # type: ignore[arg-type]


def test_a_prediction_cannot_be_changed_but_replaced_copied_pickled_and_hashed(prediction):
    for name in ("warnings", "instances", "timings", "answer"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(prediction, name, ())
    with pytest.raises(AttributeError):
        prediction.warnings.append("x")
    with pytest.raises(TypeError):
        prediction.timings["x"] = 1.0
    for same in (copy.deepcopy(prediction), pickle.loads(pickle.dumps(prediction)), dataclasses.replace(prediction)):
        assert same == prediction
        assert hash(same) == hash(prediction)
        assert dict(same.timings) == dict(prediction.timings)
    assert dataclasses.replace(prediction, timings={}) == prediction
    assert dataclasses.replace(prediction, warnings=[]) != prediction


def test_a_prediction_is_shown_in_a_line(prediction):
    assert repr(prediction) == "Prediction(segmentation of 'the dogs' in 40x30: partial, 2 objects)"
    assert len(repr(prediction.instances[0])) < 100


def test_masks_are_kept_at_one_bit_per_pixel():
    mask = np.ones((1000, 1200), dtype=np.bool_)
    tracemalloc.start()
    instances = [Instance(Box(0, 0, 1, 1), mask=mask) for _ in range(20)]
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(instances) == 20
    assert kept < 20 * mask.nbytes / 7


def test_instances_are_equal_when_all_their_values_are():
    one = Instance(Box(0, 0, 5, 5), Point(1, 1), mask_of(0, 0, 5, 5), 0.5)
    assert one == Instance(Box(0, 0, 5, 5), Point(1, 1), mask_of(0, 0, 5, 5), 0.5)
    assert one != Instance(Box(0, 0, 5, 5), Point(1, 1), mask_of(0, 0, 5, 6), 0.5)
    assert one != Instance(Box(0, 0, 5, 5), Point(1, 1), None, 0.5)
    assert one != Instance(Box(0, 0, 5, 5), None, mask_of(0, 0, 5, 5), 0.5)
    assert one != "one"


def test_an_instance_cannot_be_changed_but_replaced_copied_and_pickled():
    one = Instance(Box(0, 0, 5, 5), Point(1, 1), mask_of(0, 0, 5, 5), 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.score = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.mask = None  # type: ignore[misc]
    assert dataclasses.replace(one, score=0.5) == one
    assert dataclasses.replace(one, mask=None) == Instance(Box(0, 0, 5, 5), Point(1, 1), None, 0.5)
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


# ---- predictions ----


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (Instance(Box(0, 0, 41, 30)), r"instance 1: box \(0, 0, 41, 30\) leaves the image of 40x30"),
        (Instance(Box(-1, 0, 4, 3)), "instance 1: box"),
        (Instance(Box(0, 0, 4, 3), Point(4, 31)), r"instance 1: point \(4, 31\) leaves the image of 40x30"),
        (
            Instance(Box(0, 0, 4, 3), mask=np.zeros((40, 30), np.bool_)),
            r"mask must have shape \(H, W\) = \(30, 40\), got \(40, 30\)",
        ),
    ],
)
def test_what_does_not_belong_to_the_picture_is_refused(instance, message):
    with pytest.raises(ValueError, match=message):
        Prediction(SIZE, "dog", Task.DETECTION, instances=[instance])


def test_an_unknown_task_and_a_picture_without_size_are_refused():
    with pytest.raises(ValueError, match="editing"):
        Prediction(SIZE, "dog", "editing")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="image_size must be positive"):
        Prediction((0, 5), "dog", Task.DETECTION)


def test_tasks_and_statuses_may_be_given_by_name():
    assert Prediction(SIZE, "dog", "counting", status="none").task is Task.COUNTING  # type: ignore[arg-type]


def test_the_count_is_the_number_of_instances(prediction):
    assert prediction.count == 2


def test_the_mask_is_the_union(prediction):
    np.testing.assert_array_equal(prediction.mask, mask_of(1, 2, 11, 12) | mask_of(5, 5, 40, 30))


def test_a_segmentation_that_found_nothing_has_an_empty_mask():
    mask = Prediction(SIZE, "dog", Task.SEGMENTATION, status=Status.NONE).mask
    assert mask is not None
    assert mask.shape == (30, 40)
    assert not mask.any()


@pytest.mark.parametrize("task", Task)
def test_without_masks_there_is_no_union(task):
    assert Prediction(SIZE, "dog", task, instances=[Instance(Box(0, 0, 1, 1))]).mask is None
    assert (Prediction(SIZE, "dog", task).mask is None) is (task is not Task.SEGMENTATION)


@pytest.mark.parametrize(
    ("status", "found", "answer", "usable"),
    [
        ("ok", True, None, True),
        ("none", False, None, True),
        ("partial", True, None, True),
        ("partial", False, None, False),
        ("truncated", True, None, True),
        ("truncated", False, None, False),
        ("truncated", False, "a long", True),
        ("no_answer", False, None, False),
        ("no_answer", False, "", False),
    ],
)
def test_a_prediction_is_usable_if_it_says_anything(status, found, answer, usable):
    instances = [Instance(Box(0, 0, 1, 1))] if found else []
    assert Prediction(SIZE, "q", Task.VQA, status=status, instances=instances, answer=answer).usable is usable


# ---- JSON and files ----


def test_json_and_back_is_the_same(prediction):
    text = json.dumps(prediction.to_json(), allow_nan=False)
    assert Prediction.from_json(json.loads(text)) == prediction


def test_json_holds_these_keys(prediction):
    data = prediction.to_json()
    assert set(data) == {
        *("image_size", "query", "task", "status", "count", "instances"),
        *("answer", "thinking", "reply", "warnings", "timings"),
    }
    assert data["instances"][1] == {
        "box": [5, 5, 40, 30],
        "point": None,
        "mask": encode_mask(mask_of(5, 5, 40, 30)),
        "score": 0.5,
        "likelihood": None,
        "label": "dog",
    }


def test_results_of_before_there_were_labels_are_read(prediction):
    data = prediction.to_json()
    for instance in data["instances"]:
        del instance["label"]
    assert [instance.label for instance in Prediction.from_json(data).instances] == [None, None]


def test_the_count_is_what_a_counting_reply_states_where_it_lists_nothing():
    one = Instance(Box(0, 0, 5, 5))
    stated = Prediction(SIZE, "dogs", Task.COUNTING, answer="12")
    assert (stated.count, stated.usable, Prediction.from_json(stated.to_json())) == (12, True, stated)
    assert Prediction(SIZE, "dogs", Task.COUNTING, instances=[one], answer="12").count == 1
    assert Prediction(SIZE, "dogs", Task.VQA, answer="12").count == 0
    for wrong in ("", "a dozen", "1" * 99, "-1"):
        with pytest.raises(ValueError, match="counting"):
            Prediction(SIZE, "dogs", Task.COUNTING, answer=wrong)


def test_numpy_numbers_become_plain_ones():
    box = Box(*np.array([1, 2, 3, 4]))
    made = Prediction(
        (np.int64(40), np.int64(30)),  # type: ignore[arg-type]
        "dog",
        Task.DETECTION,
        instances=[Instance(box, Point(*np.array([1, 2])), mask_of(1, 2, 3, 4), np.float32(0.5))],  # type: ignore[arg-type]
        timings={"see": np.float32(1)},  # type: ignore[dict-item]
    )
    assert Prediction.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_masks_are_what_pycocotools_reads(prediction):
    from pycocotools import mask as coco_mask

    encoded = prediction.to_json()["instances"][0]["mask"]
    assert coco_mask.area(encoded) == 100
    assert coco_mask.toBbox(encoded).tolist() == [1, 2, 10, 10]


def test_saving_writes_a_picture_or_json_whole_and_nothing_else(prediction, tmp_path):
    image = Image.new("RGB", SIZE)
    prediction.save(tmp_path / "new" / "result.png", image)
    prediction.save(str(tmp_path / "new" / "result.json"))
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["result.json", "result.png"]
    with Image.open(tmp_path / "new" / "result.png") as saved:
        assert saved.format == "PNG"
        assert saved.tobytes() == prediction.plot(image).tobytes()
    assert Prediction.from_json(json.loads((tmp_path / "new" / "result.json").read_text())) == prediction


def test_text_that_is_not_valid_unicode_can_be_saved(tmp_path):
    made = Prediction(SIZE, "caf\udce9 – 狗", Task.VQA)
    made.save(tmp_path / "result.json")
    assert Prediction.from_json(json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))) == made


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("result.xyz", Image.new("RGB", SIZE), "cannot write a picture with the ending '.xyz'; use .png"),
        ("result", Image.new("RGB", SIZE), "cannot write a picture with the ending ''"),
        ("result.png", None, "needs the original image"),
        ("file/result.png", Image.new("RGB", SIZE), "cannot be written .*choose another path"),
    ],
)
def test_saving_says_what_is_wrong(prediction, tmp_path, name, image, message):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match=message) as caught:
        prediction.save(tmp_path / name, image)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@given(st.sampled_from(Task), st.sampled_from(Status), st.text(), st.lists(st.text(max_size=5)), st.none() | st.text())
def test_any_text_survives_json(task, status, text, warnings, answer):
    answer = None if task is Task.COUNTING else answer
    made = Prediction(SIZE, text, task, text, text, status, warnings, [], answer, {"load": 1.5})
    assert Prediction.from_json(json.loads(json.dumps(made.to_json()))) == made
