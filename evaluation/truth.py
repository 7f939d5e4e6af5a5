"""What a data set's rows say is true (masks, boxes, counts, answers, ids), read strictly: the one place that does.

Each function takes a row by fields and the name of one, and gives plain values or raises a `FieldError` that says which
field it is, what was found, and what was expected. Nothing is guessed: a value with two readings is an error.
"""

import ast
import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from evaluation.runner.schema import Truth
from vision_reasoner.data.sources import Row
from vision_reasoner.errors import DataError, ImageError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.images import load_image, open_image, without_warnings
from vision_reasoner.masks import Mask, RunLengths, check_run_lengths, encode_mask
from vision_reasoner.matching import pairwise_iou

MAX_COUNT = 1_000_000
"""No image shows more objects; squares of errors stay exact."""
MAX_COORDINATE = 1e9
"""Pixels; no image is larger."""
TOLERANCE = 1.0
"""Pixels that a box may reach beyond its image, by rounding."""

A_BOX = "[x1, y1, x2, y2] in pixels with x1 < x2 and y1 < y2"
A_MASK = "a mask image, COCO's run lengths, or an (H, W) list of true and false"
AN_IMAGE = "an image: the bytes of its file, its path, or a list of one of these"

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 60
_shown.maxlist = _shown.maxtuple = 8
_shown.maxlevel, _shown.maxdict = 3, 4


class FieldError(ValueError):
    """A field of a row that cannot be used.

    Attributes:
        field: its name.
        what: what was found and what was expected.
    """

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field, self.what = field, what


def refuse(field: str, found: object, expected: str, why: str = "") -> NoReturn:
    """Raise a FieldError about a value."""
    shown = _shown.repr(found).replace("\n", " ")[:200]
    raise FieldError(field, f"found {shown}{f' ({why})' if why else ''}; expected {expected}")


# --- requests and ids -------------------------------------------------------------------------------------------------
def text_of(row: Mapping[str, Any], field: str) -> str:
    """A text that is not blank and is valid Unicode."""
    value = row[field]
    if not isinstance(value, str):
        refuse(field, value, "text")
    if not value.strip():
        refuse(field, value, "text", "it is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(field, value, "text", "it is not valid Unicode")
    return value


def id_text(value: Any) -> str | None:
    """An id as text, whole numbers without a fraction; None for what is no id."""
    if isinstance(value, str):
        return value
    number = _whole(value)
    return None if number is None else str(number)


def id_of(row: Mapping[str, Any], field: str) -> int:
    """A number that names something: a whole number, or one as text."""
    value = row[field]
    number = int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value) else _whole(value)
    return refuse(field, value, "a whole number") if number is None else number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _whole(value: Any) -> int | None:
    """A whole number of any number type; None for others. Columns with nulls come as floats from pandas."""
    if not _is_number(value):
        return None
    if isinstance(value, int | np.integer):
        return int(value) if abs(int(value)) < 1 << 63 else None
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else None


# --- counts and answers -----------------------------------------------------------------------------------------------
def count_of(row: Mapping[str, Any], field: str) -> int:
    """A number of objects."""
    value = row[field]
    number = _whole(value)
    if number is None or not 0 <= number <= MAX_COUNT:
        refuse(field, value, f"a whole number from 0 to {MAX_COUNT:,}")
    return number


def answers_of(row: Mapping[str, Any], field: str) -> list[str]:
    """The true answers: a text or a number, or a list of these; also as VQAv2 has them (dicts with an "answer"), and
    either as JSON text."""
    value = row[field]
    if isinstance(value, str) and value[:1] in ("[", "{"):
        value = _unpacked(field, value)
    found = [_answer(field, one) for one in (value if isinstance(value, list | tuple) else [value])]
    if not any(answer.strip() for answer in found):
        refuse(
            field, value, "a text or a list of texts", "no answers; is this a split whose answers are not published?"
        )
    return found


def _answer(field: str, value: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("answer"), str):
        return value["answer"]
    if isinstance(value, str):
        return value
    if (number := _whole(value)) is not None:
        return str(number)
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return str(float(value))
    return refuse(field, value, 'answers as text, a list of texts, or dicts with an "answer"', "no answers")


def _unpacked(field: str, text: str) -> Any:
    """What JSON text holds where that is answers; the text itself where it is none ("[1]" may be what is written)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if text[:2] in ("['", "{'") and len(text) < 10_000 and _is_python(text):
            refuse(field, text, "a list of texts", "a list of Python as text")
        return text
    if isinstance(value, list) and not all(isinstance(one, str | Mapping) for one in value):
        return text
    return value


def _is_python(text: str) -> bool:
    """Whether it is what Python prints of a list or dict."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


# --- boxes and points -------------------------------------------------------------------------------------------------
def boxes_of(row: Mapping[str, Any], field: str) -> list[list[float]]:
    """One box or a list of them as a list, xyxy in pixels; an empty list where it says that there are none."""
    value = row[field]
    found = _listed(value)
    if found is None:
        refuse(field, value, f"a box {A_BOX}, or a list of boxes")
    if found and not any(_listed(one) is not None for one in found):
        found = [found]
    return [_box(field, one) for one in found]


def _box(field: str, value: Any) -> list[float]:
    numbers = _listed(value)
    if numbers is None or len(numbers) != 4:
        why = f"{len(numbers)} values" if numbers is not None else ""
        if numbers is not None and len(numbers) == 8:
            why = "8 numbers: four corners?"
        refuse(field, value, A_BOX, why)
    box = [_number(one) for one in numbers]
    if None in box:
        refuse(field, value, A_BOX, "not 4 numbers of pixels")
    x1, y1, x2, y2 = (one for one in box if one is not None)
    for first, second, axis in ((x1, x2, "x"), (y1, y2, "y")):
        if second <= first:
            sign = "<" if second < first else "="
            refuse(field, value, A_BOX, f"{axis}2 {sign} {axis}1; x, y, width, height?")
    return [x1, y1, x2, y2]


def point_of(row: Mapping[str, Any], field: str) -> list[int]:
    """A point (x, y) in pixels."""
    numbers = _listed(row[field])
    found = [_number(one) for one in numbers or ()]
    if len(found) != 2 or None in found:
        refuse(field, row[field], "a point [x, y] in pixels")
    return [int(one) for one in found if one is not None]


def _listed(value: Any) -> list[Any] | None:
    """A list, tuple or array as a list; None for others."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim else None
    return list(value) if isinstance(value, list | tuple) else None


def _number(value: Any) -> float | None:
    """A coordinate, as int where it is whole; None for others."""
    if not _is_number(value):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not abs(number) < MAX_COORDINATE:  # NaN neither
        return None
    return int(number) if number == int(number) else number


# --- masks ------------------------------------------------------------------------------------------------------------
def mask_of(row: Mapping[str, Any], field: str) -> RunLengths:
    """A mask, however it is stored, as run lengths: (H, W), COCO's run lengths, or an image that is not 0 inside."""
    value = row[field]
    if isinstance(value, Mapping) and "counts" in value:
        try:
            return check_run_lengths(value)
        except DataError as error:
            refuse(field, value, A_MASK, one_line(error))
    if isinstance(value, Mapping):
        return encode_mask(_mask_image(field, stored_image(row, field)))
    if isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.ndim == 2 and value.size:
        return encode_mask(value)
    return encode_mask(_mask_list(field, value))


def _mask_list(field: str, value: Any) -> Mask:
    """Where a list of rows of labels, (H, W), is not 0."""
    lines = _listed(value)
    if not lines or not all(isinstance(line, list | tuple | np.ndarray) for line in lines):
        refuse(field, value, A_MASK)
    if len({len(line) for line in lines}) > 1:
        refuse(field, value, A_MASK, "its rows are of different length")
    # Looked at one by one: numpy would give each value the room of the longest text.
    if not all(issubclass(kind, int | float | np.number | np.bool_) for line in lines for kind in set(map(type, line))):
        refuse(field, value, A_MASK, "a list of something else")
    array = np.asarray(lines)
    if array.ndim != 2 or not array.size:
        refuse(field, value, A_MASK, f"a list of shape {array.shape}")
    return _labels(field, array, "a list")


def _labels(field: str, values: NDArray[Any], name: str) -> Mask:
    """Where a label image is not 0."""
    if values.dtype.kind not in "buif":
        raise FieldError(field, f"found {name} of {values.dtype}; expected {A_MASK}")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise FieldError(field, f"found {name} with fractions; expected labels, 0 outside of the object")
    inside: Mask = values != 0
    if inside.all() and len(np.unique(values)) > 1:
        raise FieldError(field, f"found {name} in which nothing is 0; expected labels, 0 outside of the object")
    return inside


def stored_image(row: Mapping[str, Any], field: str) -> bytes | Path:
    """An image as its file's bytes, or the path of a file that is there."""
    value = row[field]
    if not isinstance(value, Mapping) or not {"bytes", "path"} <= value.keys():
        refuse(field, value, AN_IMAGE)
    if isinstance(value["bytes"], bytes) and value["bytes"]:
        return value["bytes"]
    if not isinstance(value["path"], str) or not value["path"]:
        refuse(field, value, AN_IMAGE)
    path = Path(value["path"])
    try:
        there = path.exists()
    except (OSError, ValueError):
        there = False
    if not there:
        raise FieldError(field, f"found {value['path'][:200]!r}: there is no such file; expected {AN_IMAGE}")
    return path


def _mask_image(field: str, source: bytes | Path) -> Mask:
    """Where a mask image is inside: labels that are not 0, in any mode.

    Where only the transparency varies it is the mask. Of a JPEG, whose values are not exact, the bright half counts.
    """
    try:
        load_image(source)  # says what is wrong with a file that cannot be decoded
    except ImageError as error:
        raise FieldError(field, f"{one_line(error)}; expected {A_MASK}") from error
    data = source if isinstance(source, bytes) else source.read_bytes()
    with without_warnings():  # remarks on odd metadata
        image = open_image("the mask", data)
        name, deep = f"a mask image of mode {image.mode}", ";16" in str(image.tile)
        if deep and not image.mode.startswith("I"):  # Pillow keeps the upper 8 bits of each channel
            raise FieldError(field, f"found {name} of 16 bits for each channel; expected one channel of labels")
        format_ = image.format
        upright = ImageOps.exif_transpose(image)
    if upright.mode in ("P", "PA"):
        return _agreeing(field, _indices(upright), _colors(upright.convert("RGB")), name, "its labels and its colors")
    if upright.mode in ("LA", "La", "RGBA", "RGBa"):
        alpha = np.asarray(upright.getchannel("A"))
        colors = np.asarray(upright)[..., :-1]
        if alpha.min() < alpha.max() or not alpha.any():
            if (colors == colors[0, 0]).all():
                return np.asarray(alpha != 0)
            return _agreeing(field, alpha != 0, (colors != 0).any(axis=2), name, "its transparency and its colors")
        return _labels(field, colors.max(axis=2), name)
    if upright.mode not in ("1", "L", "RGB", "F") and not upright.mode.startswith("I"):
        raise FieldError(field, f"found {name}; expected labels in gray, a palette or RGB")
    values = np.asarray(upright)
    values = values.max(axis=2) if values.ndim == 3 else values
    if format_ == "JPEG":
        if 0 < values.max() < 192:
            raise FieldError(field, f"found {name} in JPEG, whose labels are not exact; expected a PNG")
        bright: Mask = np.greater_equal(values, 128)
        return bright
    return _labels(field, values, name)


def _indices(image: Image.Image) -> Mask:
    labels = np.asarray(image)
    return np.asarray((labels if labels.ndim == 2 else labels[..., 0]) != 0)


def _colors(image: Image.Image) -> Mask:
    return np.asarray(np.asarray(image).any(axis=2))


def _agreeing(field: str, first: Mask, second: Mask, name: str, what: str) -> Mask:
    """One of two readings of a mask image, where they are the same."""
    if not np.array_equal(first, second):
        raise FieldError(field, f"found {name} of which {what} mean two masks; expected one channel of labels")
    return first


# --- against the image ------------------------------------------------------------------------------------------------
def check_fits(truth: Truth, sizes: Sequence[Size]) -> None:
    """Refuse masks of another size than their image, and boxes and points outside of it.

    Args:
        truth: of a row.
        sizes: (width, height) that the image may have, upright; empty where that is not known.

    Raises:
        FieldError: one does not fit.
    """
    if not sizes:
        return
    width, height = sizes[0]
    for name in ("mask", "ignore"):
        if name in truth and (truth[name]["size"][1], truth[name]["size"][0]) not in sizes:
            rows, columns = truth[name]["size"]
            turned = " (turned by its EXIF orientation?)" if (rows, columns) == (width, height) else ""
            what = f"its {name} is {columns}x{rows} and its image {width}x{height}{turned}; prepare the data set anew"
            raise FieldError(name, what)
    for box in truth.get("boxes", ()):
        if not any(_is_inside(box, size) for size in sizes):
            raise FieldError("bbox", f"found {box}, outside of its image of {width}x{height}; expected {A_BOX}")
    if "point" in truth and not any(_is_inside(truth["point"], size) for size in sizes):
        raise FieldError("point", f"found {truth['point']}, outside of its image of {width}x{height}; expected [x, y]")


def check_box_of_mask(row: Row, truth: Truth) -> None:
    """Refuse the one box of a mask that is not around it, but is when it is read as x, y, width, height."""
    from pycocotools import mask as coco_mask

    if len(truth["boxes"]) != 1:
        return
    encoded = {"size": truth["mask"]["size"], "counts": truth["mask"]["counts"].encode()}
    x, y, w, h = coco_mask.toBbox(encoded).tolist()
    if not w * h:
        return
    x1, y1, third, fourth = truth["boxes"][0]
    readings = np.array([truth["boxes"][0], [x1, y1, x1 + third, y1 + fourth]], dtype=np.float64)
    corners, sides = pairwise_iou(readings, np.array([[x, y, x + w, y + h]]))[:, 0]
    if corners < 0.5 and sides > 0.9:
        refuse("bbox", row["bbox"], A_BOX, "x, y, width, height, by the mask")


def _is_inside(values: Sequence[float], size: Size) -> bool:
    return all(-TOLERANCE <= value <= size[i % 2] + TOLERANCE for i, value in enumerate(values))
