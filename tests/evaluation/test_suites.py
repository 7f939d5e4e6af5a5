"""Suites: from a row to the truth, from a record to scores, from scores to figures in both protocols."""

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.suite import Figure, is_papers, measure, plain_name, table_of
from evaluation.suites import SUITES, choose_suite
from vision_reasoner.errors import UsageError
from vision_reasoner.masks import decode_mask, encode_mask
from vision_reasoner.results import Task

H, W = 20, 30
SEGMENTATION, DETECTION, COUNTING = (SUITES[name] for name in ("segmentation", "detection", "counting"))
GROUNDING, SEGMENTER = (SUITES[name] for name in ("grounding", "segmenter"))


def block(x1, y1, x2, y2):
    mask = np.zeros((H, W), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def record(suite, row, *found, status="ok", **more):
    """A record of a row; `found` are boxes or masks."""
    instances = []
    for one in found:
        mask = one if isinstance(one, np.ndarray) else None
        box = list(one) if mask is None else [0, 0, 5, 5]
        instances.append({"box": box, "mask": None if mask is None else encode_mask(mask), "likelihood": None})
    return {"truth": suite.truth(row), "instances": instances, "status": status, "answer": None, **more}


def figures(suite, *records):
    found = measure(suite, [suite.score(r) for r in records], [str(i) for i in range(len(records))])
    return {(f["name"], f["protocol"]): f for f in found}


def values(suite, *records):
    return {key: f["value"] for key, f in figures(suite, *records).items()}


# --- segmentation -----------------------------------------------------------------------------------------------------
def png(mask):
    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(out, "PNG")  # 1 inside, as label pictures have it
    return {"bytes": out.getvalue(), "path": None}


@pytest.mark.parametrize("stored", [lambda m: m, lambda m: m.tolist(), encode_mask, png])
def test_masks_are_read_however_they_are_stored(stored):
    mask = block(3, 4, 20, 15)
    assert np.array_equal(decode_mask(SEGMENTATION.truth({"mask": stored(mask)})["mask"]), mask)


@pytest.mark.parametrize("stored", [[True, False], np.zeros((2, 3, 4), bool), None])
def test_what_is_no_mask_is_refused(stored):
    with pytest.raises((ValueError, TypeError)):
        SEGMENTATION.truth({"mask": stored})


def test_nothing_where_nothing_is_differs_between_the_protocols():
    row = {"mask": block(0, 0, 0, 0)}
    found = values(SEGMENTATION, record(SEGMENTATION, row), record(SEGMENTATION, {"mask": block(0, 0, 4, 4)}))
    assert (found["gIoU", "official"], found["gIoU", "upstream"]) == (0.5, 0.0)
    assert (found["N-acc", "official"], found["T-acc", "official"]) == (1.0, 0.0)


def test_target_accuracies_are_left_out_where_every_sample_has_a_target():
    found = values(SEGMENTATION, record(SEGMENTATION, {"mask": block(0, 0, 4, 4)}, block(0, 0, 4, 4)))
    assert not {name for name, _ in found} & {"N-acc", "T-acc", "box accuracy", "F1 at IoU 0.5"}


def test_ignored_pixels_count_upstream_only():
    row = {"mask": block(0, 0, 10, 10), "ignore": block(10, 0, 20, 10)}
    found = values(SEGMENTATION, record(SEGMENTATION, row, block(0, 0, 15, 10)))
    assert found["gIoU", "official"] == found["cIoU", "official"] == 1.0
    assert found["gIoU", "upstream"] == found["cIoU", "upstream"] == 0.75
    assert (
        values(SEGMENTATION, record(SEGMENTATION, {**row, "ignore": None}, block(0, 0, 5, 10)))["gIoU", "official"]
        == 0.5
    )


def test_the_union_of_all_objects_is_compared():
    row = {"mask": block(0, 0, 20, 10)}
    assert (
        values(SEGMENTATION, record(SEGMENTATION, row, block(0, 0, 12, 10), block(8, 0, 20, 10)))["gIoU", "official"]
        == 1
    )


def test_box_accuracy_is_of_the_rows_with_a_box_and_any_or_the_first():
    mask = block(0, 0, 4, 4)
    rows = [
        {"mask": mask, "bbox": [0, 0, 10, 10]},
        {"mask": mask, "bbox": None},
        {"mask": mask, "bbox": [[5, 5, 9, 9]]},
    ]
    records = [record(SEGMENTATION, row, (11, 11, 20, 20), (0, 0, 10, 10)) for row in rows]
    found = figures(SEGMENTATION, *records)
    upstream, official = found["box accuracy", "upstream"], found["box accuracy", "official"]
    assert (upstream["value"], upstream["n"], upstream["label"]) == (0.5, 2, "bbox_AP")
    assert (official["value"], official["n"]) == (0.0, 2)
    assert found["precision at IoU 0.5", "official"]["value"] == 0.25
    assert found["recall at IoU 0.5", "official"]["value"] == 0.5


# --- detection, counting ----------------------------------------------------------------------------------------------
def test_detection_matches_one_to_one():
    row = {"bbox": [[0, 0, 10, 10], [12, 0, 22, 10]], "cat_id": np.int64(3)}
    one = record(DETECTION, row, (0, 0, 10, 10), (0, 0, 10, 10), (1, 0, 10, 10))
    assert one["truth"]["category_id"] == 3
    assert DETECTION.score(one)["matched"] == 1
    assert DETECTION.ranked


def test_detection_says_how_far_off_the_number_of_boxes_is_where_a_reply_can_be_read():
    two = {"bbox": [[0, 0, 5, 5], [10, 0, 15, 5]], "cat_id": 1}
    found = [record(DETECTION, two, (0, 0, 5, 5)), record(DETECTION, two), record(DETECTION, two, status="failed")]
    assert values(DETECTION, found[0], found[2])[("MAE of the number of boxes", "official")] == 1
    assert values(DETECTION, *found)[("MAE of the number of boxes", "official")] == 1.5


@pytest.mark.parametrize("suite", [DETECTION, GROUNDING, SEGMENTATION])
def test_a_reply_that_cannot_be_read_is_never_the_best_of_a_run(suite):
    row = {"bbox": [], "cat_id": 3, "mask": block(0, 0, 0, 0)}
    for status, quality in (("none", 1), ("no_answer", 0), ("truncated", 0)):
        one = record(suite, row, status=status)
        assert suite.headline(one, suite.score(one)).quality == quality


def test_counting_counts_boxes():
    records = [
        record(COUNTING, {"count": 2}, (0, 0, 1, 1), (0, 0, 2, 2)),
        record(COUNTING, {"count": 0}, status="none"),
        record(COUNTING, {"count": 0}, status="no_answer"),
        record(COUNTING, {"count": 3}, (0, 0, 1, 1), status="partial"),
    ]
    found = values(COUNTING, *records)
    assert (found["accuracy", "official"], found["accuracy", "upstream"]) == (0.5, 0.75)
    assert found["MAE", "official"] == pytest.approx(2 / 3)
    assert found["MAE", "upstream"] == 0.5
    assert found["RMSE", "official"] == pytest.approx(math.sqrt(4 / 3))
    assert found["replies with a count", "official"] == 0.75
    assert found["mean accuracy per true count", "official"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert figures(COUNTING, *records)["MAE", "official"]["unit"] == "objects"


def test_a_count_that_is_only_stated_counts():
    records = [record(COUNTING, {"count": 3}, task="counting", answer=answer) for answer in ("3", "5")]
    assert values(COUNTING, *records)["accuracy", "official"] == 0.5
    assert COUNTING.headline(records[1], COUNTING.score(records[1])).shown == "+2"


# --- grounding, segmenter ---------------------------------------------------------------------------------------------
def test_grounding_takes_the_mean_of_the_samples_f1():
    rows = [{"bbox": [[0, 0, 10, 10], [12, 0, 22, 10]]}, {"bbox": [0, 0, 10, 10]}]
    both = [record(GROUNDING, rows[0], (0, 0, 10, 10), (12, 0, 22, 10)), record(GROUNDING, rows[1], (0, 0, 10, 10))]
    found = figures(GROUNDING, *both)
    assert found["first box accuracy", "official"]["value"] == found["mean F1 at IoU 0.5", "official"]["value"] == 1
    assert ("N-acc", "official") not in found
    one = values(GROUNDING, record(GROUNDING, rows[0], (0, 0, 10, 10)))
    assert one["mean F1 at IoU 0.5", "official"] == pytest.approx(2 / 3)
    many = values(GROUNDING, record(GROUNDING, rows[0], (5, 12, 9, 20), (0, 0, 10, 10), (12, 0, 22, 10)))
    assert many["first box accuracy", "official"] == 0, "the first box is wrong"
    assert many["mean F1 at IoU 0.5", "official"] == pytest.approx(4 / 5)
    nothing = values(GROUNDING, record(GROUNDING, rows[0], status="none"), both[1])
    assert (nothing["first box accuracy", "official"], nothing["mean F1 at IoU 0.5", "official"]) == (0.5, 0.5)


@pytest.mark.parametrize("bbox", [[], None])
def test_only_an_empty_list_is_the_right_answer_where_nothing_is_there(bbox):
    def n_acc(*found, **more):
        return values(GROUNDING, record(GROUNDING, {"bbox": bbox}, *found, **more))["N-acc", "official"]

    assert n_acc(status="none") == 1
    assert n_acc(status="no_answer") == n_acc(status="truncated") == n_acc((0, 0, 9, 9)) == 0


def test_the_segmenter_is_told_one_box_and_a_point_where_there_is_one():
    row = {"mask": block(0, 0, 4, 4), "bbox": [0, 0, 4, 4]}
    assert "point" not in SEGMENTER.truth(row)
    assert SEGMENTER.truth({**row, "point": [1, 2]})["point"] == [1, 2]
    assert SEGMENTER.prompted
    for bbox in (None, [[0, 0, 4, 4], [5, 5, 9, 9]]):
        with pytest.raises(ValueError, match="not exactly one box"):
            SEGMENTER.truth({**row, "bbox": bbox})


# --- questions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("suite", "answers", "answer", "figure", "value"),
    [
        ("docvqa", ["ITC Limited"], "itc limited", "ANLS", 1.0),
        ("chartqa", "100", "104", "relaxed accuracy", 1.0),
        ("chartqa", "100", "106", "relaxed accuracy", 0.0),
        ("textvqa", ["red"] * 3 + ["blue"] * 7, "red", "TextVQA accuracy", (7 * 1 + 3 * 2 / 3) / 10),
        ("realworldqa", "B", "b.", "exact match", 1.0),
        ("ocrbench", ["CENTRE"], "it says Centre", "contains", 1.0),
        ("vqa", ["yes"], None, "exact match", 0.0),
        (
            "vqav2",
            [{"answer": "red"}] * 3 + [{"answer": "blue"}] * 7,
            "a red.",
            "VQA accuracy",
            (7 * 1 + 3 * 2 / 3) / 10,
        ),
        ("infographicvqa", ["42 %"], "42%", "ANLS", 0.75),
        ("multiplechoice", "B", "B. The left car", "choice", 1.0),
        ("realworldqa", "A", "A. The left car", "choice", 1.0),
        ("realworldqa", "A", "A. The left car", "exact match", 0.0),
    ],
)
def test_answers_are_scored_as_the_set_is(suite, answers, answer, figure, value):
    one = record(SUITES[suite], {"answers": answers}, answer=answer)
    assert values(SUITES[suite], one)[figure, "official"] == pytest.approx(value)


def test_the_total_of_ocrbench_is_of_a_thousand():
    suite = SUITES["ocrbench"]
    rows = [record(suite, {"answers": ["a"]}, answer=answer) for answer in ("a", "b", "a", "A!")]
    found = figures(suite, *rows)["total", "official"]
    assert (found["value"], found["unit"], found["n"]) == (750, "of 1,000", 4)
    assert 0 < found["low"] < 750 < found["high"] <= 1000


def test_handwritten_mathematics_of_ocrbench_is_compared_without_spaces():
    row = {"answers": [r"x ^ { 2 }"], "dataset": "HME100k"}
    assert SUITES["ocrbench"].score(record(SUITES["ocrbench"], row, answer="$x^{2}$"))["contains"] == 1
    assert (
        SUITES["ocrbench"].score(record(SUITES["ocrbench"], {**row, "dataset": "IIIT5K"}, answer="$x^{2}$"))["contains"]
        == 0
    )


@pytest.mark.parametrize("answers", [None, []])
def test_a_split_without_answers_is_refused(answers):
    with pytest.raises(ValueError, match="no answers"):
        SUITES["docvqa"].truth({"answers": answers})


# --- figures ----------------------------------------------------------------------------------------------------------
def test_figures_have_intervals_by_image_and_are_the_same_each_time():
    scores = [{"a": float(i % 3 == 0)} for i in range(60)]
    suite = SUITES["vqa"].__class__(**{**vars(SUITES["vqa"]), "figures": (Figure("a", "official", ("a", "1")),)})
    one = measure(suite, scores, [str(i) for i in range(60)])
    assert one == measure(suite, scores, [str(i) for i in range(60)])
    low, value, high = (one[0][key] or 0.0 for key in ("low", "value", "high"))
    assert low < value < high
    assert measure(suite, scores, ["same"] * 60)[0]["low"] is None, "one picture says nothing about others"
    assert measure(suite, [], []) == []


def test_scores_that_some_samples_lack_count_nothing():
    table = table_of([{"a": 1.0, "b": 2.0}, {"a": 3.0}])
    assert {name: column.tolist() for name, column in table.items()} == {"a": [1, 3], "b": [2, 0], "1": [1, 1]}


# --- choosing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "data", "suite"),
    [
        ("vqa", "lmms-lab/DocVQA", "docvqa"),
        ("vqa", "echo840/OCRBench", "ocrbench"),
        ("vqa", "/data/RealWorldQA", "realworldqa"),
        ("vqa", "my/questions", "vqa"),
        ("vqa", None, "vqa"),
        ("counting", "lmms-lab/DocVQA", "counting"),
    ],
)
def test_the_set_s_name_chooses_the_suite_of_questions(name, data, suite):
    assert choose_suite(name, data) is SUITES[suite]


def test_columns_can_be_called_otherwise():
    suite = SUITES["vqa"].with_columns({"question": "q", "answers": "a"})
    assert [suite.column(name) for name in ("image", "question", "answers")] == ["image", "q", "a"]
    assert SUITES["chartqa"].with_columns({"question": "q"}).column("answers") == "answer"
    with pytest.raises(UsageError, match="no field prompt; it has image, question, answers"):
        SUITES["vqa"].with_columns({"prompt": "q"})


def test_every_suite_has_a_task_of_its_own_kind_and_figures():
    assert {suite.task for suite in SUITES.values()} == set(Task)
    assert all(suite.figures for suite in SUITES.values())
    assert plain_name("counting_Pixmo-test") == "countingpixmotest"


def test_pope_counts_yes():
    pope = SUITES["pope"]
    replies = [
        ("yes", "Yes"),
        ("yes", "No, there is none."),
        ("no", "yes."),
        ("no", "no"),
        ("no", None),
        ("yes", "Yes, not far."),
    ]
    found = values(pope, *(record(pope, {"answers": truth}, answer=answer) for truth, answer in replies))
    assert {name: round(value, 4) for (name, _), value in found.items()} == {
        "accuracy": 0.3333,
        "precision of yes": 0.5,
        "recall of yes": 0.3333,
        "F1 of yes": 0.4,
        "share of yes": 0.3333,
    }


# --- published --------------------------------------------------------------------------------------------------------
def test_published_figures_stand_beside_ours():
    assert SEGMENTATION.published_for("refcocog_test", "box accuracy", "upstream") == {
        "Qwen2-VL-7B": 0.782,
        "Qwen2.5-VL-7B": 0.857,
        "VisionReasoner-7B": 0.875,
    }
    for name in ("countbench", "counting_countbench"):
        assert COUNTING.published_for(name, "accuracy", "upstream") == {
            "Qwen2.5-VL-7B": 0.788,
            "VisionReasoner-7B": 0.892,
        }
    assert (SEGMENTATION.published_for("reasonseg_val", "gIoU", "upstream") or {})["VisionReasoner-7B"] == 0.663
    assert SEGMENTATION.published_for("refcocog_test", "cIoU", "upstream") is None
    assert SEGMENTATION.published_for("segmentation", "gIoU", "upstream") is None


def test_published_figures_are_of_the_papers_own_sets_alone():
    def papers(path, rows=200, n=200):
        manifest: Any = {"places": {"data": path}, "n": n, "data": {"name": path.rpartition("/")[2], "rows": rows}}
        return is_papers(manifest)

    assert papers("Ricky06662/ReasonSeg_val")
    assert papers("Ricky06662/refcoco_val", 8811, 8811)
    assert not papers("Ricky06662/ReasonSeg_val", 60, 60), "another set"
    assert not papers("Ricky06662/ReasonSeg_val", n=50), "a part"
    assert not papers("/data/ReasonSeg_val")
    assert not papers("somebody/ReasonSeg_val")


def test_published_figures_are_of_figures_that_there_are():
    for suite in SUITES.values():
        ours = {(f.name, f.protocol) for f in suite.figures} | ({("COCO AP", "upstream")} if suite.ranked else set())
        assert {key[1:] for key in suite.published} <= ours
