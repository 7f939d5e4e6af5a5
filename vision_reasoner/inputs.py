"""What callers give, checked and brought into one form: requests, tasks, boxes and points."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Box, Point, Size
from vision_reasoner.results import Instance, Task


def check_texts(queries: Sequence[str]) -> None:
    if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
        raise UsageError("queries must be a list of texts, one for each image")


def tasks_of(task: Task | str | Sequence[Task | str | None] | None, n: int) -> list[Task | None]:
    """`task` as one for each of `n` requests."""
    wanted = [task] * n if task is None or isinstance(task, str) else list(task)
    if len(wanted) != n:
        raise UsageError(f"{n} requests need as many tasks (or one for all), got {len(wanted)}")
    known = tuple(Task)
    for name in wanted:
        if name is not None and name not in known:
            raise UsageError(f"no task {name!r}: give one of {', '.join(known)}")
    return [None if name is None else Task(name) for name in wanted]


Boxes = Sequence[Instance | Sequence[float]] | NDArray[Any]
Points = Sequence[Sequence[float] | None] | NDArray[Any] | None


def instances_of(objects: Boxes, points: Points, size: Size) -> list[Instance]:
    """What `segment` is given, as instances in an image of `size`."""
    if points is not None and len(points) != len(objects):
        raise UsageError(f"{len(objects)} boxes need as many points (None where there is none), got {len(points)}")
    inside = [None] * len(objects) if points is None else list(points)
    return [
        replace(found, box=_box(found.box, size), point=_point(found.point, size))
        if isinstance(found, Instance)
        else Instance(_box(found, size), _point(point, size))
        for found, point in zip(objects, inside, strict=True)
    ]


def _box(values: Sequence[float] | NDArray[Any], size: Size) -> Box:
    x1, y1, x2, y2 = _whole(values, "box", ("x1", "y1", "x2", "y2"))
    if not (0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]):
        raise UsageError(
            f"box {(x1, y1, x2, y2)}: must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2 inside the image of "
            f"{size[0]}x{size[1]} pixels"
        )
    return Box(x1, y1, x2, y2)


def _point(values: Sequence[float] | NDArray[Any] | None, size: Size) -> Point | None:
    if values is None:
        return None
    x, y = _whole(values, "point", ("x", "y"))
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        raise UsageError(f"point {(x, y)}: lies outside the image of {size[0]}x{size[1]} pixels")
    return Point(x, y)


def _whole(values: Sequence[float] | NDArray[Any], what: str, names: Sequence[str]) -> list[int]:
    """As many numbers as there are names, rounded to whole pixels."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a {what} must be {len(names)} numbers ({', '.join(names)}), got {values!r}") from error
    if numbers.shape != (len(names),) or not np.isfinite(numbers).all():
        raise UsageError(
            f"a {what} must be {len(names)} finite numbers ({', '.join(names)}), got {str(values)[:80]} of shape "
            f"{numbers.shape}"
        )
    return [int(number) for number in np.floor(numbers + 0.5)]
