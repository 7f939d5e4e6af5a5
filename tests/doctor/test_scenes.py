"""Drawn pictures: what is said to be in them is in them, and no other reading fits as well."""

import numpy as np
import pytest

from vision_reasoner.doctor.scenes import GROUND, N_OBJECTS, SIZES, draw_disks, draw_scenes
from vision_reasoner.matching import match_boxes


@pytest.mark.parametrize("kind", ["airplanes", "red circles"])
def test_boxes_are_the_borders_of_what_is_drawn(kind):
    for scene in draw_scenes(kind):
        drawn = np.abs(np.asarray(scene.image, dtype=int) - GROUND).max(axis=2) > 8
        for x1, y1, x2, y2 in scene.boxes:
            rows, columns = np.nonzero(drawn[y1:y2, x1:x2])
            edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.abs(edges - [0, 0, x2 - x1, y2 - y1]).max() <= 2, "an edge may be half transparent"
            drawn[y1:y2, x1:x2] = False
        assert not drawn.any(), "nothing else is there"


def test_there_are_square_wide_tall_small_and_large_ones():
    scenes = {scene.name: scene for scene in draw_scenes("airplanes")}
    assert {name: scene.image.size for name, scene in scenes.items()} == SIZES
    assert all(len(scene.boxes) == N_OBJECTS for scene in scenes.values())


def test_they_are_the_same_every_time():
    one, other = draw_scenes("airplanes"), draw_scenes("airplanes")
    assert all(a.boxes == b.boxes and a.image.tobytes() == b.image.tobytes() for a, b in zip(one, other, strict=True))


def test_mirrored_and_turned_the_boxes_are_elsewhere():
    for scene in draw_scenes("airplanes"):
        boxes = np.array(scene.boxes) / np.tile(scene.image.size, 2)
        others = {
            "x mirrored": boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0],
            "y mirrored": boxes[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1],
            "turned": boxes[:, [1, 0, 3, 2]],
        }
        for name, other in others.items():
            assert len(match_boxes(other, boxes)) <= N_OBJECTS / 2, (scene.name, name)


def test_masks_of_disks_fill_their_boxes():
    image, disks = draw_disks()
    for box, point, mask in disks:
        assert mask.shape == image.size[::-1]
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == box
        assert mask.sum() == pytest.approx(np.pi / 4 * (box[2] - box[0]) ** 2, rel=0.01)
        assert mask[point.y, point.x]
        assert (np.asarray(image)[mask] != GROUND).any(axis=1).all()
