"""Boxes and points, the frames they live in, and how they pass from one frame to another: the one home of both.

A size is always (width, height). A frame of that size spans x from 0 to width and y from 0 to height, both ends
included: a box that touches the right border has x2 == width. Public values are pixels of the original image;
numbers in a model's frame exist only between prompt and parser.
"""

from collections.abc import Iterable
from typing import NamedTuple

Size = tuple[int, int]
"""(width, height) in pixels."""


class Box(NamedTuple):
    """A box in pixels of the original image, xyxy: x1 < x2 and y1 < y2, edges in [0, width] and [0, height]."""

    x1: int
    y1: int
    x2: int
    y2: int

    @classmethod
    def from_inclusive(cls, x1: int, y1: int, x2: int, y2: int) -> "Box":
        """The box whose last pixels are x2 and y2, as the published rows and reward have it."""
        return cls(x1, y1, x2 + 1, y2 + 1)

    @property
    def inclusive(self) -> tuple[int, int, int, int]:
        """First and last pixels inside, (x1, y1, x2, y2), for the published rows and reward."""
        return self.x1, self.y1, self.x2 - 1, self.y2 - 1

    @property
    def area(self) -> int:
        """Width times height in square pixels."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)


class Point(NamedTuple):
    """A point in pixels of the original image, x in [0, width] and y in [0, height]."""

    x: int
    y: int


def clamp(values: Iterable[float], size: Size) -> list[float]:
    """Move coordinates that lie outside a frame onto its border.

    Args:
        values: x and y in turn (a point, a box, or several), finite, in the frame of `size`.
        size: (width, height) of the frame.
    """
    return [min(max(value, 0), size[i % 2]) for i, value in enumerate(values)]


def rescale(values: Iterable[float], *, from_size: Size, to_size: Size, truncate: bool = False) -> list[int]:
    """Bring coordinates from one frame to another, rounded to whole pixels: `int(v * (to / from) + 0.5)` per axis.

    Args:
        values: x and y in turn (a point, a box, or several), finite, in the frame of `from_size`.
        from_size: (width, height) of the frame they are in.
        to_size: (width, height) of the frame they are wanted in.
        truncate: `int(v * (to / from))` instead, as the original treats its baselines.

    Raises:
        ValueError: `from_size` is not positive.
    """
    if min(from_size) <= 0:
        raise ValueError(f"from_size must be positive (width, height), got {from_size}")
    factors = (to_size[0] / from_size[0], to_size[1] / from_size[1])
    half = 0.0 if truncate else 0.5
    return [int(value * factors[i % 2] + half) for i, value in enumerate(values)]
