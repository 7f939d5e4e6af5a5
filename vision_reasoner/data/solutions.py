"""The answer of a row as JSON text, `[{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}, ...]`: written and read.

Boxes and points are pixels of the model's frame. In the text x2 and y2 are the last pixels inside, as in the published
rows; a `Target` has edges. Reading is strict: training data that is not exactly this is refused.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vision_reasoner.errors import DataError
from vision_reasoner.geometry import Box, Point, Size
from vision_reasoner.parsing import are_numbers

Candidate = tuple[list[float] | None, list[float] | None]
"""An object of an answer: its box and its point, None where that is missing or not well-formed."""


@dataclass(frozen=True)
class Target:
    """One object of an answer, in pixels of the frame."""

    box: Box
    point: Point


@dataclass(frozen=True, eq=False)
class Objects:
    """Boxes with a point each.

    Attributes:
        boxes: (N, 4) float64, xyxy, in pixels of the model's frame; x2 and y2 are the last pixels inside.
        points: (N, 2) float64, x and y in the same frame.
    """

    boxes: NDArray[np.float64]
    points: NDArray[np.float64]


def solution_of(targets: Iterable[Target]) -> str:
    """The answer's JSON text."""
    return json.dumps([{"bbox_2d": list(t.box.inclusive), "point_2d": list(t.point)} for t in targets])


def read_solution(solution: str, *, model_size: Size) -> Objects:
    """The objects of a row's solution, as arrays that cannot be written to.

    Args:
        solution: JSON text.
        model_size: (width, height) of the frame that the numbers are pixels of.

    Raises:
        DataError: it is no text of a JSON list; an object lacks a box of four or a point of two finite numbers;
            corners are out of order; something lies outside the frame of `model_size`.
    """
    if not isinstance(solution, str):
        raise _bad_solution(solution, "it is no JSON text")
    return _read_solution(solution, model_size)


@lru_cache(maxsize=256)  # the replies of a group share their solution
def _read_solution(solution: str, model_size: Size) -> Objects:
    candidates = read_objects(solution)
    if candidates is None:
        raise _bad_solution(solution, "it is no JSON list (for nothing to be found: [])")
    width, height = model_size
    for number, (box, point) in enumerate(candidates, start=1):
        if box is None or point is None:
            missing = "bbox_2d of four" if box is None else "point_2d of two"
            raise _bad_solution(solution, f"object {number} has no {missing} finite numbers")
        (x1, y1, x2, y2), (x, y) = box, point
        if x1 > x2 or y1 > y2:
            raise _bad_solution(solution, f"the corners of object {number} are not in the order x1, y1, x2, y2")
        if min(x1, y1, x, y) < 0 or max(x2, x) > width or max(y2, y) > height:
            raise _bad_solution(solution, f"object {number} leaves the frame of {width}x{height}")
    objects = Objects(
        np.array([box for box, _ in candidates], np.float64).reshape(-1, 4),
        np.array([point for _, point in candidates], np.float64).reshape(-1, 2),
    )
    objects.boxes.flags.writeable = objects.points.flags.writeable = False
    return objects


def read_objects(text: str) -> list[Candidate] | None:
    """The objects of a JSON list, well-formed or not; None where the text is no JSON list."""
    try:
        items = json.loads(text, parse_int=float)  # numbers of any length, too
    except (ValueError, RecursionError):
        return None
    if not isinstance(items, list):
        return None
    return [(_numbers(item, "bbox_2d", 4), _numbers(item, "point_2d", 2)) for item in items]


def _numbers(item: object, key: str, length: int) -> list[float] | None:
    value = item.get(key) if isinstance(item, dict) else None
    return value if are_numbers(value, length) else None


def _bad_solution(solution: object, why: str) -> DataError:
    return DataError(f"the solution {str(solution)[:100]!r} cannot be used: {why}; prepare this row again")
