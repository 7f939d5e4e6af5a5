"""Boxes, points and frames."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_reasoner.geometry import Box, Point, clamp, rescale

sides = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (1, 0), (2, 1), (420, 160), (839, 320), (840, 320), (1.3, 0), (1.4, 1)]
)
def test_rescaling_multiplies_by_the_ratio_of_the_sides_and_rounds_half_up(value, expected):
    assert rescale([value, value], from_size=(840, 840), to_size=(320, 320)) == [expected, expected]


def test_rescaling_takes_x_by_width_and_y_by_height():
    assert rescale(Box(84, 84, 420, 420), from_size=(840, 840), to_size=(1000, 500)) == [100, 50, 500, 250]
    assert rescale(Point(84, 84), from_size=(840, 420), to_size=(1000, 500)) == [100, 100]


@given(sides, sides, sides, sides)
def test_the_borders_of_one_frame_are_the_borders_of_the_other(from_width, from_height, to_width, to_height):
    values = rescale(
        (0, 0, from_width, from_height), from_size=(from_width, from_height), to_size=(to_width, to_height)
    )
    assert values == [0, 0, to_width, to_height]


@given(st.lists(st.integers(0, 10_000), min_size=4, max_size=4), sides, sides)
def test_rescaling_to_the_same_frame_changes_nothing(values, width, height):
    assert rescale(values, from_size=(width, height), to_size=(width, height)) == values


def test_a_frame_without_area_cannot_be_rescaled_from():
    with pytest.raises(ValueError, match=r"from_size must be positive .*\(0, 5\)"):
        rescale([1, 1], from_size=(0, 5), to_size=(10, 10))


@given(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4), sides, sides)
def test_clamped_coordinates_lie_in_the_frame_and_those_inside_stay(values, width, height):
    clamped = clamp(values, (width, height))
    for value, result, side in zip(values, clamped, (width, height, width, height), strict=True):
        assert 0 <= result <= side
        assert math.isfinite(result)
        assert result == value or not 0 <= value <= side


def test_area_is_width_times_height():
    assert Box(10, 20, 40, 25).area == 150
