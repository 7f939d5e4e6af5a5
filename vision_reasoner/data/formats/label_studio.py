"""Label Studio's export: one JSON file for all pictures."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vision_reasoner.data.annotations import AnnotatedImage, Instances, OnBad, read_json, refuse
from vision_reasoner.data.formats.shared import Entry, Picture, Shape, assemble, ellipse
from vision_reasoner.errors import DataError
from vision_reasoner.geometry import Size
from vision_reasoner.images import SUFFIXES, load_image

KINDS = {
    "polygon": {"points"},
    "ellipse": {"radiusX"},
    "brush": {"rle"},
    "rectangle": {"x", "y", "width", "height"},
    "keypoint": {"x", "y", "width"},
}
"""What the numbers of each kind of shape have; the first that fits is it."""
NUMBERS = {"x", "y", "width", "height", "rotation", "points", "closed", "radiusX", "radiusY", "rle", "format"}
OF_PICTURE = {"original_width", "original_height", "image_rotation"}


def read_label_studio(file: str | Path, images: str | Path, *, on_bad: OnBad = refuse) -> Instances:
    """Read Label Studio's export, as JSON or as JSON-MIN.

    Rectangles, polygons and ellipses are objects. Of several annotations of a picture the first that was not cancelled
    is taken; a picture without any is not annotated, and is left out. Keypoints are passed over. Brush strokes: export
    them as COCO.

    Args:
        file: the export.
        images: the folder of the pictures; Label Studio's prefix of uploaded files' names may be gone.
        on_bad: gets what is wrong with a task or a shape.

    Raises:
        DataError: it is none.
    """
    tasks = read_json(Path(file))
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{file}: is no export of Label Studio (a JSON list of tasks); export as JSON")
    makers = (partial(_task_picture, f"{file}: task {_task_id(t, n)}", t, Path(images)) for n, t in enumerate(tasks, 1))
    return assemble(makers, Path(images), on_bad)


def _task_id(task: Mapping[str, Any], number: int) -> str:
    return str(task.get("id", f"number {number}"))[:40]


def _task_picture(source: str, task: Mapping[str, Any], images: Path) -> Picture | None:
    fields = task["data"] if isinstance(task.get("data"), dict) else task
    if "annotations" in task:
        kept = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
        if not kept:
            return None
        results = kept[0].get("result", [])
    else:  # JSON-MIN: shapes are a field of the task
        lists = [v for v in fields.values() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
        if not lists:
            return None
        results = [shape for found in lists for shape in found]
    name = _picture_name(source, fields, images)
    shapes = _objects([r for r in results if isinstance(r, dict) and _shape_kind(r) != ""])
    sizes = {(int(r["original_width"]), int(r["original_height"])) for r in shapes if "original_width" in r}
    if len(sizes) > 1:
        raise DataError(f"{source}: its shapes are of pictures of different sizes; correct it")
    size = sizes.pop() if sizes else load_image(AnnotatedImage("", images, name).file).size
    return Picture(source, name, size, [Entry(_shape_label(r), partial(_task_shape, r, size)) for r in shapes])


def _picture_name(source: str, fields: Mapping[str, Any], images: Path) -> str:
    """The picture's file in `images`: Label Studio has a path or an address, with a prefix where it was uploaded."""
    texts = [v for v in fields.values() if isinstance(v, str)]
    for text in texts:
        address = urlsplit(text)
        path = parse_qs(address.query).get("d", [unquote(address.path)])[0]
        name = PureWindowsPath(path).name
        if name.lower().endswith(SUFFIXES):
            plain = re.sub(r"^[0-9a-f]{8}-", "", name)
            return next((n for n in (path, name, plain) if (images / n).is_file()), name)
    raise DataError(f"{source}: names no picture; its data has {', '.join(map(str, fields))[:100]}")


def _value(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A shape's numbers and labels: under "value" in JSON, in the shape itself in JSON-MIN."""
    value = result.get("value", result)
    return value if isinstance(value, dict) else {}


def _shape_kind(result: Mapping[str, Any]) -> str:
    """One of KINDS; "" for what is no shape, such as a choice.

    Labels may be of a kind ("rectanglelabels"). Where they are apart from it (<Labels> beside <Rectangle>), a shape is
    there twice, without any and with "labels". A choice or a text about a shape repeats its numbers, too.
    """
    value = _value(result)
    keys = [str(key) for key in (*value, result.get("type", ""))]
    kind = next((kind for kind in KINDS if f"{kind}labels" in keys), "")
    if kind or value.keys() - NUMBERS - OF_PICTURE - {"labels"}:
        return kind
    return next((kind for kind, has in KINDS.items() if has <= value.keys()), "")


def _shape_label(result: Mapping[str, Any]) -> str | None:
    value = _value(result)
    labels = value.get(f"{_shape_kind(result)}labels", value.get("labels"))
    return str(labels[0]) if isinstance(labels, list) and labels else None


def _objects(shapes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The shapes that are objects.

    Keypoints are none. Nor is what only repeats one: a shape without a label that is the same as one with a label, and
    the brush of a box in exports of `vision-reasoner`.
    """
    ids = {str(shape.get("id")) for shape in shapes}

    def numbers(shape: Mapping[str, Any]) -> str:
        return json.dumps({key: value for key, value in _value(shape).items() if key in NUMBERS}, sort_keys=True)

    labeled = {numbers(shape) for shape in shapes if _shape_label(shape) is not None}

    def repeats(shape: Mapping[str, Any]) -> bool:
        number, _, control = str(shape.get("id")).rpartition("-")
        has_box = control == "mask" and f"{number}-box" in ids
        return has_box or (_shape_label(shape) is None and numbers(shape) in labeled)

    return [shape for shape in shapes if _shape_kind(shape) != "keypoint" and not repeats(shape)]


def _task_shape(result: Mapping[str, Any], size: Size) -> Shape:
    value, kind = _value(result), _shape_kind(result)
    across, down = size[0] / 100, size[1] / 100
    if kind == "polygon":
        return Shape(polygons=[[v for x, y in value["points"] for v in (float(x) * across, float(y) * down)]])
    if kind not in ("rectangle", "ellipse"):
        raise ValueError(f"a {kind} stroke is no outline; export such pictures as COCO")
    x, y = float(value["x"]) * across, float(value["y"]) * down
    turn = math.radians(float(value.get("rotation") or 0))
    if kind == "ellipse":
        rim = ellipse(x, y, float(value["radiusX"]) * across, float(value["radiusY"]) * down)
        return Shape(polygons=[_turned(rim, (x, y), turn)])
    w, h = float(value["width"]) * across, float(value["height"]) * down
    if not turn:
        return Shape((x, y, x + w, y + h))
    return Shape(polygons=[_turned([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], (x, y), turn)])


def _turned(corners: Iterable[tuple[float, float]], at: tuple[float, float], turn: float) -> list[float]:
    """Corners turned clockwise around a point, as a polygon."""
    polygon: list[float] = []
    for x, y in corners:
        dx, dy = x - at[0], y - at[1]
        polygon += [
            at[0] + dx * math.cos(turn) - dy * math.sin(turn),
            at[1] + dx * math.sin(turn) + dy * math.cos(turn),
        ]
    return polygon
