"""Masks and their run lengths, as COCO has them: the only module that hands run lengths to pycocotools.

pycocotools trusts what it is given: run lengths that do not add up to the mask's size make it hang, read memory that is
not its own, or crash. `check_run_lengths` reads them first, and every function here calls it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from vision_reasoner.errors import DataError
from vision_reasoner.geometry import Box

Mask = NDArray[np.bool_]
"""(H, W) bool, True inside the object, in pixels of the original image."""

MAX_MASK_PIXELS = 1 << 31  # pycocotools counts pixels in 32 bits
_MAX_DIGITS = 7  # of a run length: 5 bits each, so that 35 bits hold every length and difference of lengths


class RunLengths(TypedDict):
    """COCO's compressed run lengths of a mask, column by column, beginning with the pixels outside."""

    size: list[int]
    """[H, W]."""
    counts: str


def check_run_lengths(value: Any) -> RunLengths:
    """Run lengths from elsewhere, compressed if they were not, after a strict look at them.

    Args:
        value: `{"size": [H, W], "counts": ...}` with COCO's compressed text (str or bytes) or a list of lengths.

    Raises:
        DataError: the size is not two positive numbers, or the lengths are not text of COCO's alphabet, negative, or do
            not add up to H x W.
    """
    if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
        raise DataError('a mask\'s run lengths must be {"size": [H, W], "counts": ...}')
    height, width = _size(value["size"])
    counts = value["counts"]
    if isinstance(counts, str | bytes):
        lengths = _decompress(counts)
    elif isinstance(counts, Sequence) and counts and all(type(count) is int for count in counts):
        lengths = np.array([min(max(count, -1), MAX_MASK_PIXELS) for count in counts], dtype=np.int64)
    else:
        raise DataError("run lengths must be COCO's compressed text or a list of whole numbers")
    pixels = height * width
    if lengths.min() < 0 or lengths.max() > pixels or lengths.sum() != pixels:
        raise DataError(
            f"run lengths must add up to the mask's {height} x {width} = {pixels} pixels; "
            "these are damaged, or of another picture"
        )
    if isinstance(counts, str) and lengths[1:].all():
        return {"size": [height, width], "counts": counts}
    return _compress(_merged(lengths), height, width)


def encode_mask(mask: Mask) -> RunLengths:
    """The compressed run lengths of an (H, W) bool mask."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(encoded: Mapping[str, Any]) -> Mask:
    """The (H, W) bool mask of run lengths.

    Raises:
        DataError: they are damaged, see `check_run_lengths`.
    """
    from pycocotools import mask as coco_mask

    checked = check_run_lengths(encoded)
    decoded: NDArray[np.uint8] = coco_mask.decode({"size": checked["size"], "counts": checked["counts"].encode()})
    return decoded.astype(np.bool_)


def _size(value: Any) -> tuple[int, int]:
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise DataError(f"a mask's size must be [H, W], two positive whole numbers, got {str(value)[:60]}")
    height, width = sides
    if height * width > MAX_MASK_PIXELS:
        raise DataError(f"a mask of {height} x {width} is larger than any that can be scored")
    return height, width


def _merged(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same lengths without runs of no pixels, at which pycocotools stops merging; only the first may be 0."""
    inside = np.arange(len(lengths)) % 2
    inside, lengths = inside[lengths > 0], lengths[lengths > 0]
    starts = np.flatnonzero(np.diff(inside, prepend=-1))
    merged = np.add.reduceat(lengths, starts)
    return np.concatenate(([0], merged)) if inside[0] else merged


def _compress(lengths: NDArray[np.int64], height: int, width: int) -> RunLengths:
    from pycocotools import mask as coco_mask

    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _decompress(counts: str | bytes) -> NDArray[np.int64]:
    """The lengths in COCO's compressed text.

    Each number is written in digits of 5 bits, lowest first, as characters from `0` on; bit 6 says that another digit
    follows, and the highest bit of the last digit is the sign. From the fourth number on it is the difference to the
    number two places before. (`rleFrString` in cocoapi/common/maskApi.c)
    """
    try:
        data = counts if isinstance(counts, bytes) else counts.encode("ascii")
    except UnicodeEncodeError:
        raise DataError("run lengths have characters that COCO's compressed text does not have") from None
    digits = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        raise DataError("run lengths are empty")
    if digits.min() < 0 or digits.max() > 63:
        raise DataError("run lengths have characters that COCO's compressed text does not have")
    last = digits & 32 == 0
    if not last[-1]:
        raise DataError("run lengths end in the middle of a number; they are cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() >= _MAX_DIGITS:
        raise DataError("run lengths have a number that is larger than any picture")
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((digits & 31) << (5 * places), starts)
    values -= np.where(digits[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    if len(values) > 3:
        values[1::2] = np.cumsum(values[1::2])
        values[2::2] = np.cumsum(values[2::2])
    return values


def box_around(mask: Mask) -> Box | None:
    """The smallest box that holds a mask, edges in its pixels; None where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return Box.from_inclusive(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
