"""Photographs: rows of one picture come together, and boxes stay where the objects are whatever is done to a view."""

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vision_reasoner.errors import DataError
from vision_reasoner.scenes.classes import CLASS_INDEX
from vision_reasoner.training.tiny import photographs as module
from vision_reasoner.training.tiny.architecture import CELLS, NO_CLASS, SIDE, CellTruth, ConceptCodebook
from vision_reasoner.training.tiny.photographs import (
    TEMPLATES,
    Photographs,
    cell_weights,
    objects_seen,
    photograph_requests,
    random_view,
    read_photographs,
)

SQUARES = ((60, 80, 99, 119), (180, 160, 239, 199))  # last pixels inside


def picture(red: int = 220) -> Image.Image:
    """Two bright rectangles on black."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for x1, y1, x2, y2 in SQUARES:
        pixels[y1 : y2 + 1, x1 : x2 + 1] = red, 200, 200
    return Image.fromarray(pixels)


def row(problem: str, *boxes: tuple[int, ...], image: Image.Image | None = None) -> dict[str, Any]:
    objects = [f'{{"bbox_2d": {list(b)}, "point_2d": [{b[0] + 5}, {b[1] + 5}]}}' for b in boxes]
    return {"id": problem, "problem": problem, "solution": f"[{', '.join(objects)}]", "image": image or picture()}


@pytest.fixture
def two() -> Photographs:
    return read_photographs([row("Red Blood Cell", SQUARES[0]), row("dog", SQUARES[1]), row("platelet")])


def test_rows_of_a_picture_are_one_scene_and_names_that_are_known_keep_their_class(two: Photographs) -> None:
    (scene,) = two.scenes
    assert [two.classes[o.label].name for o in scene.objects] == ["red blood cell", "dog"]
    assert [o.box.inclusive for o in scene.objects] == list(SQUARES)
    assert scene.objects[1].label == CLASS_INDEX["dog"]
    assert [c.plural for c in two.added] == ["red blood cells", "platelets"]
    assert two.asked == [{NO_CLASS + 1, CLASS_INDEX["dog"], NO_CLASS + 2}]
    assert len(read_photographs([row("cell"), row("cell", image=picture(90))]).scenes) == 2


def test_classes_that_were_added_before_keep_their_labels() -> None:
    again = read_photographs([row("platelet", SQUARES[0]), row("cell")], ["cell", "nucleus"])
    assert [c.name for c in again.added] == ["cell", "nucleus", "platelet"]
    assert again.scenes[0].objects[0].label == NO_CLASS + 3
    assert again.asked == [{NO_CLASS + 1, NO_CLASS + 3}]


def test_rows_that_join_requests_are_refused() -> None:
    with pytest.raises(DataError, match="--group_share 0"):
        read_photographs([row("cup", SQUARES[0]), row("dog", SQUARES[1]), row("cup and dog", *SQUARES)])


def test_boxes_follow_zoom_shift_and_mirroring(two: Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_in_another_light", lambda pixels, _rng: pixels)
    seen = 0
    for i in range(40):
        view = random_view(two, 0, Random(i), ("horizontal", "vertical"))
        bright = view.scene.image.min(2) > 100
        for o in view.scene.objects:
            x1, y1, x2, y2 = o.box
            assert bright[y1:y2, x1:x2].mean() > 0.9
            assert bright[o.point.y, o.point.x]
            outside = bright.copy()
            outside[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = False
            others = [other.box for other in view.scene.objects if other is not o]
            if len(others) == 1:
                seen += 1
                x1, y1, x2, y2 = others[0]
                outside[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = False
                assert not outside.any()
    assert seen > 20


def test_a_view_of_a_part_shows_what_the_whole_is_too_small_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_in_another_light", lambda pixels, _rng: pixels)
    monkeypatch.setattr(module, "ZOOM", (0.5, 0.5))
    monkeypatch.setattr(module, "STRETCH", 1)
    stripes = np.tile(np.array([0, 255], np.uint8).reshape(1, 2, 1), (2 * SIDE, SIDE, 3))  # of one pixel
    photographs = read_photographs([row("cell", (100, 200, 199, 299), image=Image.fromarray(stripes))])
    assert photographs.scenes[0].objects[0].box == (100, 200, 200, 300)
    views = [random_view(photographs, 0, Random(i), ()).scene for i in range(10)]
    assert all(view.image.std() > 120 for view in views)
    assert (100, 100) in {(o.box.x2 - o.box.x1, o.box.y2 - o.box.y1) for view in views for o in view.objects}


def test_an_object_that_is_mostly_outside_is_neither_asked_for_nor_denied() -> None:
    edge = read_photographs([row("cell", (0, 100, 19, 119)), row("platelet")])
    cell, platelet = NO_CLASS + 1, NO_CLASS + 2
    kinds = set()
    for i in range(60):
        view = random_view(edge, 0, Random(i))
        there = bool(view.scene.objects)
        kinds.add((there, cell in view.looked_for))
        assert platelet in view.looked_for
    assert (True, True) in kinds
    assert (False, False) in kinds


def test_requests_are_about_what_is_there_and_deny_only_what_was_looked_for(two: Photographs) -> None:
    kinds = {}
    for i in range(60):
        view = random_view(two, 0, Random(i))
        for request in photograph_requests(view, two.classes, Random(i), 3):
            kinds[request.kind] = request
            asked = {view.scene.objects[k].label for k in request.targets}
            assert asked <= {o.label for o in view.scene.objects}
            if not request.targets:
                assert "platelet" in request.query or "cell" in request.query or "dog" in request.query
    assert {"name", "count", "absent", "several"} <= kinds.keys()
    assert len(kinds) <= len(TEMPLATES)


def test_small_and_rare_objects_weigh_more_and_scenes_as_before(two: Photographs) -> None:
    many = row("cell", *[(x, y, x + 39, y + 39) for x in range(0, 160, 45) for y in range(0, 160, 45)])
    crowded = read_photographs([many, row("platelet", (220, 220, 229, 229))])
    truth = CellTruth([crowded.scenes[0].objects, two.scenes[0].objects])
    weights = cell_weights(truth, 1)
    photograph, there = weights[:CELLS], truth.label[:CELLS] != NO_CLASS
    assert photograph[there].mean() == pytest.approx(1, abs=1e-5)
    assert (
        photograph[truth.label[:CELLS] == NO_CLASS + 2].min()
        > 3 * photograph[truth.label[:CELLS] == NO_CLASS + 1].max()
    )
    assert torch.equal(weights[CELLS:], torch.ones(CELLS))
    assert torch.equal(cell_weights(CellTruth([[]]), 1), torch.ones(CELLS))


def test_what_the_tower_sees_are_its_claims_and_each_object_once(two: Photographs) -> None:
    codebook, scene = ConceptCodebook(two.added), two.scenes[0]
    truth = CellTruth([scene.objects])
    assert truth.positive.sum() > len(scene.objects)  # several cells claim each

    def seen(objectness: torch.Tensor) -> set[tuple[int, Any, Any]]:
        numbers = torch.cat([truth.numbers[:, :-1], objectness[:, None]], 1)
        return {(o.label, o.box, o.point) for o in objects_seen(codebook.tokens(truth, numbers), codebook)}

    assert seen(truth.positive.float()) == {(o.label, o.box, o.point) for o in scene.objects}
    assert seen(truth.one_each(torch.rand(CELLS)).float()) == {(o.label, o.box, o.point) for o in scene.objects}
    assert seen(0.4 * truth.positive) == set()


def test_added_classes_have_vectors_that_nothing_else_has(two: Photographs) -> None:
    plain, code = ConceptCodebook(), ConceptCodebook(two.added)
    assert torch.equal(code.classes[: len(plain.classes)], plain.classes)
    everything = torch.cat([code.classes, code.colors, code.companies, code.numbers])
    assert torch.allclose(everything @ everything.T, torch.eye(len(everything)), atol=1e-5)
    assert torch.equal(code.names["platelets"], code.classes[-1])
    with pytest.raises(DataError, match="too many"):
        ConceptCodebook([two.added[0]] * 100)
