"""The model card's scores, on predictions whose score is known."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from evaluation import measure
from tests.support.drawings import sprites
from vision_reasoner.errors import DataError
from vision_reasoner.results import Instance, Prediction, Status, Task
from vision_reasoner.scenes.requests import Request
from vision_reasoner.scenes.scene import Scene, random_scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return random_scene(sprites(), random.Random(3), (160, 120), max_objects=6, min_objects=4)


def found(scene: Scene, indices: list[int], **more: object) -> Prediction:
    boxes = measure.truth_boxes(scene, Request(Task.DETECTION, "name", "", tuple(indices)))
    instances = [Instance(box, None, scene.objects[i].mask, 1.0) for box, i in zip(boxes, indices, strict=True)]
    fields: dict[str, object] = {"status": Status.OK if indices else Status.NONE, "instances": instances, **more}
    return Prediction(scene.size, "it", Task.SEGMENTATION, **fields)  # type: ignore[arg-type]


def test_the_right_objects_score_full_marks_in_every_row(scene: Scene) -> None:
    request = Request(Task.SEGMENTATION, "name", "it", (0, 2))
    assert measure.score_boxes(scene, request, found(scene, [0, 2])) == {"acc": 1.0, "f1": 1.0}
    assert measure.score_mask(scene, request, found(scene, [0, 2])) == {"giou": 1.0}
    assert measure.score_count(scene, request, found(scene, [0, 2])) == {"exact": 1.0}


def test_f1_counts_what_is_missing_and_what_is_too_many(scene: Scene) -> None:
    request = Request(Task.DETECTION, "name", "it", (0, 2))
    assert measure.score_boxes(scene, request, found(scene, [0])) == {"acc": 1.0, "f1": pytest.approx(2 / 3)}
    assert measure.score_boxes(scene, request, found(scene, [1, 0, 2])) == {"acc": 0.0, "f1": pytest.approx(4 / 5)}
    assert measure.score_boxes(scene, request, found(scene, [])) == {"acc": 0.0, "f1": 0.0}


def test_masks_are_compared_as_unions(scene: Scene) -> None:
    request = Request(Task.SEGMENTATION, "name", "it", (0, 2))
    a, b = (int(scene.objects[i].mask.sum()) for i in (0, 2))
    assert measure.score_mask(scene, request, found(scene, [0])) == {"giou": pytest.approx(a / (a + b))}
    assert measure.score_mask(scene, request, found(scene, [])) == {"giou": 0.0}


def test_only_an_empty_list_is_the_right_answer_where_nothing_is_there(scene: Scene) -> None:
    request = Request(Task.SEGMENTATION, "absent", "it")
    assert measure.score_none(scene, request, found(scene, [])) == {"empty": 1.0}
    for status in (Status.NO_ANSWER, Status.TRUNCATED):
        assert measure.score_none(scene, request, found(scene, [], status=status)) == {"empty": 0.0}


def test_intervals_hold_the_mean_and_narrow_with_more_samples() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 800):
        values = (rng.random(n) < 0.8).astype(float).tolist()
        mean, low, high = (measure.figure("row", "train", "exact", 0, values)[key] for key in ("mean", "low", "high"))
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_a_difference_is_of_the_same_scenes_and_narrower_than_either_figure(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = rng.random(200).round(4)
    figures = [measure.figure("row", "train", "exact", 0, values.tolist()) for values in (before, before + 0.1)]
    file = tmp_path / "before.jsonl"
    file.write_text(json.dumps(figures[0]) + "\n", encoding="utf-8")
    known = measure.read_figures(file)
    assert measure.difference(known[measure.what(figures[1])], figures[1]) == "+0.100 (+0.100 – +0.100)"
    other_scenes = measure.figure("row", "train", "exact", 1, before.tolist())
    assert measure.what(other_scenes) not in known


@pytest.mark.parametrize("text", ['{"row": "counting", "mean": 0.5}\n', "", '{"row": "coun'])
def test_a_file_without_the_scenes_values_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.jsonl: no figures"):
        measure.read_figures(file)


@pytest.mark.parametrize("row", measure.ROWS, ids=lambda row: row.name)
def test_every_row_finds_requests_of_its_kinds_in_held_out_wordings(
    row: measure.Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "load_sprites", lambda split: sprites())  # noqa: ARG005
    asked = list(measure.make_requests(row, 3, "train", pixels=160 * 120))
    assert len(asked) == 3
    assert {a.request.kind for a in asked} <= set(row.kinds)
