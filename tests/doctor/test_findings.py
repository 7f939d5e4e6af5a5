"""What is said of each fault, and that nothing is said where there is none."""

import re

import numpy as np
import pytest

from tests.doctor.test_frame import sightings, tiled
from vision_reasoner.doctor.findings import diagnose
from vision_reasoner.prompts import QWEN2_5_VL, QWEN2_VL, VISION_REASONER

FRAMES = {
    "square": (VISION_REASONER, None),
    "processed": (QWEN2_5_VL, lambda size: (28 * round(size[0] / 28), 28 * round(size[1] / 28))),
    "normalized_1000": (QWEN2_VL, lambda _: (1000, 1000)),
}
LONG = 1.8  # sides of wide and tall pictures


def verdict_on(writes, kind="square", *, served=True, **options):
    dialect, frame = FRAMES[kind]
    return diagnose(sightings(writes, frame=frame, **options), dialect, served=served)


def right(boxes, _, seen):
    return boxes * tiled(seen)


def corner_and_size(boxes, _, seen):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) * tiled(seen)


def center_and_size(boxes, _, seen):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1) * tiled(seen)


def lower_where_wide(boxes, size, seen):
    return (boxes + ([0, 0.06, 0, 0.06] if size[0] > LONG * size[1] else 0)) * tiled(seen)


def at_most(side):
    return lambda boxes, _, seen: boxes * tiled(seen) * min(1, side / max(seen))


def at_least(side):
    return lambda boxes, _, seen: boxes * tiled(seen) * max(1, side / max(seen))


def padded(boxes, _, seen):
    longest = max(seen)
    return boxes * tiled(seen) + tiled([(longest - side) / 2 for side in seen])


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.02])
def test_the_right_frame_is_confirmed(kind, noise):
    found = verdict_on(right, kind, noise=noise)
    assert (found.state, found.advice) == ("confirmed", "")
    assert not any(picture.off for picture in found.pictures)


@pytest.mark.parametrize(
    ("writes", "kind", "told", "advised"),
    [
        (lambda boxes, *_: boxes * 1000, "square", "in 0 to 1000, not in 840x840", r"--model .*\bqwen2\b"),
        (lambda boxes, *_: boxes * 1000, "processed", "in 0 to 1000", "--model "),
        (lambda boxes, *_: boxes, "square", "in 0 to 1, not", "chat template"),
        (lambda boxes, *_: boxes * 100, "square", "in 0 to 100, not", "chat template"),
        (lambda boxes, *_: boxes * 756, "square", "a frame of 756x756", "--frame_side 756"),
        (lambda boxes, *_: boxes * 1024, "square", "a frame of 1024x1024", "--frame_side 1024"),
        (lambda boxes, *_: boxes * 448, "processed", "a frame of 448x448", "resizes"),
        (lambda boxes, *_: boxes * 840, "normalized_1000", "a frame of 840x840, not in 0 to 1000", "vision_reasoner"),
        (lambda boxes, *_: boxes * tiled((840, 630)), "square", r"a frame of 840x63\d", "resizes"),
        (lambda boxes, size, _: boxes * tiled(size), "square", "in pixels of the picture", "--model qwen"),
        (lambda boxes, size, _: boxes * tiled(size), "normalized_1000", "in pixels of the picture", "--model qwen"),
        (lambda boxes, _, seen: boxes * tiled(seen[::-1]), "processed", "are exchanged", "(height, width)"),
        (lambda boxes, _, seen: right(boxes, _, seen)[:, [1, 0, 3, 2]], "square", "y1 x1 y2 x2", "--model"),
        (lambda boxes, *_: (boxes * 1000)[:, [1, 0, 3, 2]], "square", "y1 x1 y2 x2.*0 to 1000", "--model"),
        (corner_and_size, "square", "x y width height", "--model"),
        (center_and_size, "square", "center x, center y, width, height", "--model"),
        (lambda boxes, _, seen: (boxes + [0, 0.08, 0, 0.08]) * tiled(seen), "square", r"every picture.*y by \+8 %", ""),
        (lower_where_wide, "processed", r"y by \+6 % on wide pictures", "send square pictures"),
        (at_most(1400), "processed", r"x and y by a factor of 0\.8\d on large pictures", "limit of pixels"),
        (at_least(400), "processed", r"x and y by a factor of 1\.7\d on small pictures", "least number of pixels"),
        (at_most(320), "processed", "each picture has a frame of its own|off", "resizes"),
        (padded, "processed", "each picture has a frame of its own", "resizes"),
    ],
)
def test_faults(writes, kind, told, advised):
    found = verdict_on(writes, kind, noise=0.004)
    assert found.state == "wrong"
    assert re.search(told, found.summary), found.summary
    assert re.search(advised, found.advice), found.advice


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["square", "processed"])
def test_errors_of_the_model_are_no_fault_of_the_frame(kind, seed):
    found = verdict_on(right, kind, noise=0.02, missed=0.3, invented=2, seed=seed)
    assert found.state != "wrong", found.summary


@pytest.mark.parametrize(
    ("writes", "told", "advised"),
    [
        (lambda *_: np.empty((0, 4)), "no boxes were written", "--json"),
        (lambda boxes, _, seen: right(boxes, _, seen)[:2], "too few objects were found: 10 boxes for 30", "--json"),
        (lambda boxes, _, seen: np.roll(boxes, 1, axis=1) * tiled(seen), "in no frame lie on them", "get the pictures"),
    ],
)
def test_where_too_little_is_found_nothing_is_decided(writes, told, advised):
    found = verdict_on(writes)
    assert found.state == "undecided"
    assert told in found.summary
    assert advised in found.advice


def test_pictures_in_which_too_little_is_found_are_named():
    found = verdict_on(lambda boxes, size, seen: right(boxes, size, seen)[: 2 if size[1] > size[0] else None])
    assert found.state == "confirmed"
    assert "of tall pictures" in found.summary


def test_pictures_in_which_boxes_lie_on_nothing_leave_it_undecided():
    def writes(boxes, size, seen):
        return np.roll(boxes, 1, axis=1) * tiled(seen) if size[1] > size[0] else right(boxes, size, seen)

    found = verdict_on(writes)
    assert found.state == "undecided"
    assert "but for tall pictures" in found.summary


def test_the_frame_of_a_checkpoint_here_is_in_its_config():
    assert "config" in verdict_on(lambda boxes, *_: boxes * 756, served=False).advice


def test_each_picture_tells_its_frame():
    found = verdict_on(padded, "processed")
    measured = {picture.sighting.name: picture.measured for picture in found.pictures}
    assert measured["square"] == "644x644"
    assert measured["wide"] == "1288x476 at 0,406"
    assert measured["tall"] == "476x1288 at 406,0"
