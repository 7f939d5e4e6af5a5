"""Further looks: which views are allowed, how boxes come back, how views become one result."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.looks import (
    MAX_LOOKS,
    View,
    auto_tiles,
    check_looks,
    combine,
    is_about_all,
    merge,
    parse_tiles,
    views,
    whole,
)
from vision_reasoner.results import Instance, Prediction, Status, Task

SIZE = (100, 80)
WHOLE = whole(SIZE)
MIRROR = View(WHOLE.window, mirrored=True)
DOG = Instance(Box(10, 20, 30, 40), Point(15, 25))
CAT = Instance(Box(60, 50, 90, 70))


def mirrored(instance: Instance) -> Instance:
    """How a mirrored view of the whole image shows an object."""
    box, point = instance.box, instance.point
    moved = Box(SIZE[0] - box.x2, box.y1, SIZE[0] - box.x1, box.y2)
    return Instance(moved, point and Point(SIZE[0] - point.x, point.y))


def boxes(instances: list[Instance]) -> list[tuple[int, ...]]:
    return [tuple(instance.box) for instance in instances]


@pytest.mark.parametrize("view", views(SIZE, "dogs", MAX_LOOKS, (2, 2)) + views(SIZE, "left dog", MAX_LOOKS))
def test_a_box_in_a_view_comes_back_to_where_it_is_in_the_image(view):
    x1, y1, x2, y2 = view.window
    box = Box(
        (max(x1, 0) + x2) // 2 - 8, (max(y1, 0) + y2) // 2 - 6, (max(x1, 0) + x2) // 2 + 5, (max(y1, 0) + y2) // 2 + 4
    )
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).rectangle(box.inclusive, fill="black")
    shown = view.show(image)
    assert shown.size == view.size
    rows, columns = np.nonzero(np.asarray(shown.convert("L")) == 0)
    seen = Instance(Box.from_inclusive(int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())))
    back = view.back(seen, SIZE)
    assert back is not None
    assert back.box == box


def test_the_plain_view_is_the_image_itself():
    image = Image.new("RGB", SIZE)
    assert WHOLE.show(image) is image


def test_what_is_found_beside_the_image_is_left_out():
    view = View(Box(-20, -20, 100, 80))
    assert view.back(Instance(Box(0, 0, 10, 10)), SIZE) is None
    clipped = view.back(Instance(Box(10, 10, 40, 40), Point(15, 15)), SIZE)
    assert clipped == Instance(Box(0, 0, 20, 20), Point(0, 0))


@pytest.mark.parametrize("looks", range(1, MAX_LOOKS + 1))
@pytest.mark.parametrize("query", ["the dogs", "the dog on the left"])
def test_there_are_as_many_different_views_as_looks(looks, query):
    found = views(SIZE, query, looks)
    assert found[0] == WHOLE
    assert len({*found}) == looks


@pytest.mark.parametrize(
    ("query", "mirror", "tiles"),
    [
        ("the dogs", True, True),
        ("please segment the red cars", True, True),
        ("How many airplanes are there in this image?", True, True),
        ("upright chairs", True, True),
        ("bright lights", True, True),
        ("the dog on the left", False, False),
        ("LEFT shoe", False, False),
        ("the man to the right of the car", False, False),
        ("the leftmost bottle", False, False),
        ("the clock that reads ten", False, True),
        ("the sign with the word stop", False, False),
        ("the player numbered 7", False, True),
        ("左边的狗", False, False),
        ("the largest dog", True, False),
        ("the dog next to the tree", True, False),
        ("the second car from the top", True, False),
        ("what can make the woman stand higher?", True, False),
        ("the person in front", True, False),
        ("大象", True, True),
    ],
)
def test_views_that_would_change_the_meaning_are_not_used(query, mirror, tiles):
    found = views(SIZE, query, MAX_LOOKS, (2, 2))
    assert any(view.mirrored for view in found) == mirror
    assert (len(found) > MAX_LOOKS) == tiles
    assert is_about_all(query) != tiles


def test_tiles_cover_the_image_and_overlap():
    tiles = [view.window for view in views(SIZE, "dogs", 1, (3, 2))[1:]]
    assert len(tiles) == 6
    seen = np.zeros((SIZE[1], SIZE[0]), dtype=int)
    for x1, y1, x2, y2 in tiles:
        assert 0 <= x1 < x2 <= SIZE[0]
        assert 0 <= y1 < y2 <= SIZE[1]
        seen[y1:y2, x1:x2] += 1
    assert seen.min() == 1
    assert seen.max() == 4


@pytest.mark.parametrize(
    ("size", "frame", "grid"),
    [((640, 480), 840, None), ((1600, 1200), 280, (3, 3)), ((4000, 1000), 840, (1, 3)), ((9000, 9000), 28, (8, 8))],
)
def test_auto_tiles_are_for_images_of_several_frames(size, frame, grid):
    assert auto_tiles(size, frame) == grid


@pytest.mark.parametrize("text", ["", "2", "1x1", "0x3", "9x9", "2x-1", "two", "2x2x2"])
def test_strange_tiles_are_refused(text):
    with pytest.raises(UsageError, match="--tiles"):
        parse_tiles(text)


def test_an_object_that_several_views_show_is_kept_once_with_the_mean_of_its_boxes():
    near = Instance(Box(12, 22, 34, 42))
    found = merge([[DOG], [mirrored(near), mirrored(CAT)]], [WHOLE, MIRROR], SIZE)
    assert boxes(found) == [(11, 21, 32, 41), tuple(CAT.box)]
    assert found[0].point == DOG.point
    assert [instance.votes for instance in found] == [(2, 2), (1, 2)]


def test_two_objects_of_one_view_stay_two():
    overlapping = Instance(Box(12, 20, 32, 40))
    assert len(merge([[DOG, overlapping], [mirrored(DOG)]], [WHOLE, MIRROR], SIZE)) == 2


def test_another_reading_of_an_object_is_no_object():
    other = Instance(Box(20, 30, 44, 44))  # overlaps the dog too little to be the same, and too much to be another
    found = merge([[DOG], [mirrored(other)]], [WHOLE, MIRROR], SIZE)
    assert boxes(found) == boxes([DOG])
    assert found[0].votes == (1, 2)


def test_likelihoods_are_averaged_where_they_are_known():
    first, second = replace(DOG, likelihood=-0.1), replace(mirrored(DOG), likelihood=-0.3)
    [found] = merge([[first], [second], [mirrored(DOG)]], [WHOLE, MIRROR, MIRROR], SIZE)
    assert found.likelihood == pytest.approx(-0.2)


@pytest.mark.parametrize(("how", "kept"), [("first", [DOG]), ("union", [DOG, CAT]), ("vote", [CAT])])
def test_what_is_kept_goes_by_first_look_union_or_vote(how, kept):
    shown = [WHOLE, MIRROR, MIRROR]
    found = merge([[DOG], [mirrored(CAT)], [mirrored(CAT)]], shown, SIZE, how)
    assert boxes(found) == boxes(kept)


def test_a_box_cut_by_a_tiles_edge_is_left_to_its_neighbor():
    left, right = View(Box(0, 0, 60, 80)), View(Box(40, 0, 100, 80))
    cut = Instance(Box(45, 10, 60, 30))
    full = Instance(Box(5, 10, 35, 30))  # the same object, whole, in the right tile
    found = merge([[], [cut], [full]], [WHOLE, left, right], SIZE)
    assert boxes(found) == [(45, 10, 75, 30)]
    assert found[0].votes == (1, 2)  # the left tile could not see all of it


def prediction(instances: list[Instance], status: Status = Status.OK, **more: object) -> Prediction:
    return Prediction(SIZE, "dogs", Task.COUNTING, status=status, instances=instances, **more)  # type: ignore[arg-type]


def test_text_and_status_are_those_of_the_first_look_and_seconds_add_up():
    first = prediction([DOG], thinking="a dog", timings={"decode": 1.0})
    second = prediction([mirrored(DOG)], thinking="another", warnings=["odd"], timings={"decode": 2.0})
    both = combine([first, second], [WHOLE, MIRROR], SIZE, "union")
    assert (both.thinking, both.status, both.count) == ("a dog", Status.OK, 1)
    assert both.warnings == ("look 2: odd",)
    assert both.timings == {"decode": 3.0}


def test_what_only_a_further_look_finds_is_said():
    both = combine([prediction([], Status.NONE), prediction([mirrored(DOG)])], [WHOLE, MIRROR], SIZE, "union")
    assert (both.status, both.count) == (Status.OK, 1)
    assert "the first look found nothing (none)" in both.warnings[0]


def test_objects_that_a_further_look_lists_take_the_place_of_a_count_in_words():
    both = combine([prediction([], answer="5"), prediction([mirrored(DOG)])], [WHOLE, MIRROR], SIZE, "union")
    assert (both.count, both.answer) == (1, None)
    neither = combine([prediction([], answer="5"), prediction([])], [WHOLE, MIRROR], SIZE, "union")
    assert neither.answer == "5"


@pytest.mark.parametrize("looks", [0, 6, 1.5, "2", True, None])
def test_looks_that_are_no_such_number_are_refused(looks):
    with pytest.raises(UsageError, match="looks must be"):
        check_looks(looks)


def test_objects_that_are_all_voted_out_leave_nothing_there():
    empty = prediction([], Status.NONE)
    both = combine([prediction([DOG]), empty, empty], [WHOLE, MIRROR, MIRROR], SIZE, "vote")
    assert (both.status, both.count) == (Status.NONE, 0)
    assert both.warnings == ("no object was found by more than half of the looks",)
