"""Scenes: what is painted is what the truth says."""

import random

import numpy as np
import pytest

from tests.support.drawings import sprites
from vision_reasoner.geometry import Box
from vision_reasoner.scenes.scene import GRID, Layout, Placement, innermost, paint, random_layout, random_scene


@pytest.mark.parametrize("seed", range(6))
def test_boxes_and_points_are_those_of_the_visible_pixels(seed: int) -> None:
    scene = random_scene(sprites(), random.Random(seed), (280, 280), max_objects=14)
    for o in scene.objects:
        rows, columns = np.nonzero(o.mask)
        assert o.box == Box.from_inclusive(columns.min(), rows.min(), columns.max(), rows.max())
        assert o.mask[o.point.y, o.point.x]
    assert (np.sum([o.mask for o in scene.objects], axis=0) <= 1).all(), "a pixel belongs to one object"


@pytest.mark.parametrize("seed", range(6))
def test_objects_come_in_reading_order_each_in_a_cell_of_its_own(seed: int) -> None:
    scene = random_scene(sprites(), random.Random(seed), (280, 280), max_objects=20)
    cells = [o.cell for o in scene.objects]
    assert cells == sorted(set(cells))
    for o in scene.objects:
        center = (o.box.y1 + o.box.y2) / 2 / 280 * GRID, (o.box.x1 + o.box.x2) / 2 / 280 * GRID
        assert o.cell == (int(center[0]), int(center[1]))


def test_one_seed_gives_one_image() -> None:
    first, second = (random_scene(sprites(), random.Random(4)) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert [o.box for o in first.objects] == [o.box for o in second.objects]


def test_a_layout_painted_larger_has_its_objects_in_the_same_places() -> None:
    layout = random_layout(sprites(), random.Random(2), max_objects=5)
    small, large = paint(layout, (280, 280)), paint(layout, (840, 840))
    assert small is not None
    assert large is not None
    for a, b in zip(small.objects, large.objects, strict=True):
        assert np.abs(np.array(a.box) * 3 - np.array(b.box)).max() <= 8


def test_a_layout_that_hides_an_object_is_not_painted() -> None:
    behind, before = (
        Placement(sprites()[0][0], 0.3, 0.3, 0.2, 0.2),
        Placement(sprites()[1][0], 0.25, 0.25, 0.3, 0.3),
    )
    assert paint(Layout([before, behind], 1.0, 0), (280, 280)) is None, "both share a cell, and one is covered"
    assert paint(Layout([behind], 1.0, 0), (280, 280)) is not None


def test_the_innermost_pixel_is_farthest_from_the_edge_and_from_the_border() -> None:
    mask = np.zeros((20, 30), bool)
    mask[0:9, 0:15] = True
    mask[4:7, 15:30] = True
    row, column = innermost(mask)
    assert row == 4
    assert 4 <= column <= 10


def test_colors_are_given_only_to_what_was_painted() -> None:
    rng = random.Random(0)
    objects = [o for _ in range(10) for o in random_scene(sprites(), rng, (280, 280)).objects]
    assert any(o.color for o in objects)
    assert all(o.color is None for _ in range(5) for o in random_scene(sprites(), rng, (280, 280), plain=True).objects)
