"""LabelMe: a JSON file of shapes for each picture."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vision_reasoner.data.annotations import AnnotatedImage, Instances, OnBad, read_json, refuse
from vision_reasoner.data.formats.shared import (
    Entry,
    Picture,
    Shape,
    assemble,
    beside,
    box_of,
    ellipse,
    list_files,
)
from vision_reasoner.errors import DataError
from vision_reasoner.images import load_image


def read_labelme(folder: str | Path, images: str | Path | None = None, *, on_bad: OnBad = refuse) -> Instances:
    """Read LabelMe's JSON files.

    Rectangles, polygons and circles are objects; shapes of one label and one group are parts of one object.

    Args:
        folder: of the JSON files.
        images: the folder of the pictures; None: as each file says, relative to itself.
        on_bad: gets what is wrong with a file or a shape.

    Raises:
        DataError: there are none.
    """
    where = Path(folder if images is None else images)
    makers = (partial(_labelme_picture, file, where) for file in list_files(folder, ".json"))
    return assemble(makers, where, on_bad)


def _labelme_picture(file: Path, images: Path) -> Picture:
    data = read_json(file)
    shapes = data.get("shapes") if isinstance(data, dict) else None
    if not isinstance(shapes, list):
        raise DataError(f'{file}: is no file of LabelMe (no list "shapes"); take it out of the folder')
    name = str(data.get("imagePath") or "") or beside(images, file.stem) or file.stem
    try:
        size = int(data["imageWidth"]), int(data["imageHeight"])
    except (KeyError, TypeError, ValueError, OverflowError):
        size = 0, 0
    if min(size) < 1:  # some tools leave it out
        size = load_image(AnnotatedImage("", images, name).file).size
    groups: dict[Any, list[Any]] = {}
    for i, shape in enumerate(shapes):
        known = isinstance(shape, dict)
        group = shape.get("group_id") if known else None
        key = i if group is None else (str(group), str(shape.get("label")))
        groups.setdefault(key, []).append(shape)
    entries = [Entry(_labelme_label(parts[0]), partial(_labelme_shape, parts)) for parts in groups.values()]
    return Picture(str(file), name, size, entries)


def _labelme_label(shape: Any) -> str | None:
    label = shape.get("label") if isinstance(shape, dict) else None
    return label.strip() or None if isinstance(label, str) else None


def _labelme_shape(parts: Sequence[Any]) -> Shape:
    polygons = []
    for part in parts:
        kind = part.get("shape_type") or "polygon"
        corners = [(float(x), float(y)) for x, y in part["points"]]
        if kind == "rectangle" and len(parts) == 1:
            return Shape(box_of([v for corner in corners for v in corner]))
        if kind == "circle" and len(corners) == 2:
            (x, y), rim = corners
            corners = list(ellipse(x, y, *[math.dist((x, y), rim)] * 2))
        elif kind == "rectangle" and len(corners) == 2:
            (x1, y1), (x2, y2) = corners
            corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        elif kind not in ("polygon", "rectangle"):
            raise ValueError(f"a {kind!s:.20} is no outline; draw a polygon or a rectangle")
        polygons.append([v for corner in corners for v in corner])
    return Shape(polygons=polygons)
