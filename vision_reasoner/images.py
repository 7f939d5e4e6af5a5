"""Whatever picture a user has becomes an upright 8-bit RGB image; untrusted bytes are met here and nowhere else."""

import ctypes
import io
import re
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from vision_reasoner.errors import ImageError, UsageError

# Pillow's decoders for what cameras, screens and the web produce; the others are rarer than their faults.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 1024**3 // 4 // 3  # 89 megapixels, where Pillow begins to warn; it refuses twice as many by itself
MAX_BYTES = 256 * 1024**2
MAX_PIECES = 1 << 19  # strips or tiles of a TIFF; 89 megapixels have 350,000 tiles of the least size, 16 x 16
MAX_SECONDS = 10.0  # of computing for one picture; 89 megapixels of any format take about 3
DECODER_BYTES = 1 << 13  # that Pillow hands a decoder at a time: between two portions the time is looked at

# Tags of TIFF files and some of their values.
BITS_PER_SAMPLE, PHOTOMETRIC, STRIPS, TILES, SAMPLE_FORMAT = 258, 262, 273, 324, 339
BIG_TIFF = 43
WHITE_IS_ZERO = 0
UNSIGNED, SIGNED = 1, 2

# A JPEG may have any number of fill bytes before a marker, each of which Pillow looks at by itself.
_FILL = b"\xff" * 4096
MAX_FILLS = 64

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")

# What undoes each EXIF orientation. (ImageOps.exif_transpose also rewrites the metadata, which may be broken.)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _TimedBytes(io.BytesIO):
    """The bytes of an image file for Pillow, whose decoders come back for more until their time is used up.

    A file can ask for any amount of work: chunks, directories, tiles and scans may be millions. The time is that which
    the thread has computed, so that a busy machine refuses no picture.
    """

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self._name = name
        self._end = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._end:
            raise ImageError(f"{self._name}: decoding takes more than {MAX_SECONDS:g} seconds; save it anew")
        return super().read(size)


ImageSource = str | Path | bytes | Image.Image | NDArray[Any]

_WARNINGS_LOCK = threading.Lock()
_WARNINGS_BEFORE: list["warnings.catch_warnings[None]"] = []  # one for each `without_warnings` that is open


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore warnings while Pillow reads a file.

    The filters are the process's. With several threads they are set back when the last of them leaves, which
    `warnings.catch_warnings` alone does not do.
    """
    with _WARNINGS_LOCK:
        before = warnings.catch_warnings()
        before.__enter__()
        warnings.simplefilter("ignore")
        _WARNINGS_BEFORE.append(before)
    try:
        yield
    finally:
        with _WARNINGS_LOCK:
            _WARNINGS_BEFORE.pop().__exit__(None, None, None)


def load_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    notes: list[str] | None = None,
) -> Image.Image:
    """Load a picture as people see it: upright (EXIF), 8 bits per channel, RGB, on white where it is transparent.

    16-bit grays are scaled to 8 bits by the depth that they use; of an animation the first frame is taken.

    Args:
        source: a path, the bytes of an image file, a Pillow image of any mode, or an array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) of bool, uint8, uint16 (0 to 65535) or float (0 to 1, else 0 to 255).
        max_pixels: refuse pictures with more, before they are decoded.
        max_bytes: refuse files with more, before they are read.
        notes: a list that remarks on how the picture was taken are appended to (one line each).

    Returns:
        A new image of mode RGB without any metadata, so that loading it again gives the same pixels. The given one is
        left as it was.

    Raises:
        ImageError: the picture is missing, unreadable, too large, or not of an accepted format.
        UsageError: the source is of another type.
    """
    remarks = notes if notes is not None else []
    if isinstance(source, np.ndarray):
        _check_pixels("the array", source.shape[1::-1], max_pixels)
        return _from_array(source, remarks)
    if isinstance(source, Image.Image):
        name, image = "the given image", source
        _check_pixels(name, image.size, max_pixels)
    elif isinstance(source, str | Path | bytes):
        name = "the given bytes" if isinstance(source, bytes) else str(source)
        data = source if isinstance(source, bytes) else _read(source, max_bytes)
        image = open_image(name, data, max_pixels=max_pixels, max_bytes=max_bytes)
    else:
        raise UsageError(
            f"a picture is a path, bytes, a Pillow image or an array, not {type(source).__name__}; give one of these"
        )

    with without_warnings():  # Pillow's remarks on odd metadata
        raw_mode = _raw_mode(image)  # of the file; known until it is decoded
        if isinstance(image, ImageFile.ImageFile):
            image.decodermaxblock = DECODER_BYTES
        try:
            image.load()
        except (MemoryError, ImageError):
            raise
        except Exception as error:  # damaged files make decoders raise nearly anything
            raise ImageError(
                f"{name}: the picture is damaged or cut off ({image.format or 'unknown format'}); get it again"
            ) from error
        rgb = _upright(_to_rgb(image, raw_mode, name, remarks), image, name, remarks)
        several = _has_several_frames(image)
    # Pillow copies EXIF, XMP, and transparency along; read a second time, they would turn or bleach the image again.
    rgb.info = {}
    if several:
        remarks.append(f"{name}: only the first of its frames is used")
    return rgb


def check_is_no_address(path: str) -> None:
    """Raise an ImageError that says that addresses are not fetched, if `path` is one."""
    if _URL.match(path):
        raise ImageError(f"{path[:200]}: addresses are not fetched; download the image first and give its path")


def _read(path: str | Path, max_bytes: int) -> bytes:
    """The bytes of a regular file that is not too large."""
    if isinstance(path, str):
        check_is_no_address(path)
    if str(path) in ("", "."):
        raise ImageError("no picture is given; give the path of an image file")
    file = Path(path)
    try:
        size = file.stat().st_size
        if file.is_dir():
            raise ImageError(f"{path}: this is a folder; give the path of one image file")
        if not file.is_file():
            raise ImageError(f"{path}: this is not a regular file; give the path of an image file")
        if size > max_bytes:
            raise ImageError(f"{path}: the file has {size:,} bytes, more than {max_bytes:,}; give a smaller one")
        if not size:  # of the system's own, which are read by waiting or without end, too
            raise ImageError(f"{path}: the file is empty; give another")
        with file.open("rb") as stream:
            return stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid path"
        raise ImageError(f"{path}: the file cannot be read ({reason}); check the path and its permissions") from error


def open_image(
    name: str, data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> ImageFile.ImageFile:
    """A Pillow image whose header is read and whose size is allowed, not decoded yet."""
    if not data:
        raise ImageError(f"{name}: the file is empty; give another")
    if len(data) > max_bytes:
        raise ImageError(f"{name}: {len(data):,} bytes are more than {max_bytes:,}; give a smaller picture")
    if data.startswith(b"\xff\xd8") and data.count(_FILL) > MAX_FILLS:
        raise ImageError(f"{name}: the picture is damaged (it is mostly fill bytes); get it again")
    if data.startswith((b"II", b"MM")):
        _silence_libtiff()
        if (pieces := _tiff_pieces(data)) > MAX_PIECES:
            raise ImageError(f"{name}: a TIFF of {pieces:,} strips or tiles is not read; save it anew")
    with without_warnings():  # Pillow's own limit on pixels: ours is checked below
        try:
            image = Image.open(_TimedBytes(name, data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name}: the picture has more pixels than Pillow decodes; give a smaller one") from error
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{name}: this is no picture that can be read here (another format, or damaged); "
                f"get it again or convert it to one of {', '.join(FORMATS)}"
            ) from error
        except (MemoryError, ImageError):
            raise
        except Exception as error:  # damaged files make decoders raise nearly anything
            raise ImageError(f"{name}: the picture is damaged; get it again") from error
    _check_pixels(name, image.size, max_pixels)
    return image


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to standard error by itself; Pillow raises what is wrong, and we say it.

    Pillow silences its warnings alone. Where libtiff is part of Pillow's own library (Windows) it cannot be reached.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def _tiff_pieces(data: bytes) -> int:
    """How many strips or tiles the first directory of a TIFF (classic or BigTIFF) lists; 0 where there is no such list.

    Pillow makes an object of each when it opens the file, before its size can be looked at.
    """
    order = "<" if data.startswith(b"II") else ">"
    try:
        big = struct.unpack_from(f"{order}H", data, 2)[0] == BIG_TIFF
        start, number, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
        (place,) = struct.unpack_from(order + start, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + number, data, place)
        place += struct.calcsize(f"={number}")
        size = struct.calcsize(f"={entry}")
        end = min(place + entries * size, len(data) - size + 1)
        listed = (struct.unpack_from(order + entry, data, at) for at in range(place, end, size))
        return max((count for tag, _, count, _ in listed if tag in (STRIPS, TILES)), default=0)
    except struct.error:
        return 0


def _check_pixels(name: str, size: tuple[int, ...], max_pixels: int) -> None:
    """Refuse an empty or too large picture; `size` is (width, height)."""
    if len(size) == 2 and min(size) <= 0:
        raise ImageError(f"{name}: the picture has no pixels ({size[0]}x{size[1]}); give another")
    if len(size) == 2 and size[0] * size[1] > max_pixels:
        raise ImageError(
            f"{name}: {size[0]}x{size[1]} is {size[0] * size[1]:,} pixels, more than {max_pixels:,}; "
            "give a smaller picture or raise the limit (--max_image_pixels)"
        )


def _upright(rgb: Image.Image, image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """`rgb`, turned as the EXIF orientation of the loaded `image` says."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken metadata raises nearly anything, and the pixels are fine
        notes.append(f"{name}: its EXIF data cannot be read; it is taken to be upright")
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def _has_several_frames(image: Image.Image) -> bool:
    """Whether it is an animation or has pages; not a photograph with a preview inside (MPO).

    They are not counted: a document may have a hundred thousand.
    """
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - damage behind the first frame, which is all that is wanted
        return False


def _raw_mode(image: Image.Image) -> str:
    """How Pillow unpacks the pixels of a file that is not decoded yet, such as "L;2"; empty where it does not say."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, str) else next((a for a in arguments or () if isinstance(a, str)), "")


def _to_rgb(image: Image.Image, raw_mode: str, name: str, notes: list[str]) -> Image.Image:
    """A loaded image of any Pillow mode as RGB."""
    if image.mode[0] in "IF" or (image.mode == "L" and _sample_format(image) == SIGNED):
        values = _gray_values(image)
        gray = _to_uint8(values, name, notes).copy()
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            gray[values == transparent] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.mode in ("1", "L") and isinstance(image.info.get("transparency"), int):
        # Pillow widens the pixels to 8 bits, but not the value that is transparent.
        gray = np.asarray(image.convert("L")).copy()
        widened = {"1": 255, "L;2": 85, "L;4": 17}.get(raw_mode, 1)
        gray[gray == image.info["transparency"] * widened] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:
        # Pillow knows no way from La (gray with its alpha multiplied in) but through LA.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _gray_values(image: Image.Image) -> NDArray[Any]:
    """The brightness values of a gray image of more than 8 bits, or of signed ones, as its file means them."""
    values = np.asarray(image)
    # Pillow reads 16-bit PGM as 32-bit integers.
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        values = values.astype(np.uint16)
        return np.uint16(65535) - values if _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO else values
    if image.mode == "L":
        return values.view(np.int8)
    bits = _tag(image, BITS_PER_SAMPLE)
    if image.mode == "I" and _sample_format(image) == UNSIGNED and bits in (32, (32,)):
        return values.view(np.uint32)
    return values


def _tag(image: Image.Image, number: int) -> Any:
    """A TIFF's tag; None where there is none."""
    return image.tag_v2.get(number) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _sample_format(image: Image.Image) -> int | None:
    value = _tag(image, SAMPLE_FORMAT)
    return value[0] if isinstance(value, tuple) and value else value


def _from_array(array: NDArray[Any], notes: list[str]) -> Image.Image:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as RGB."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"the array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise ImageError(f"the array must hold whole numbers, floats or bools, got {array.dtype}")
    values = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _to_rgb(Image.fromarray(_to_uint8(values, "the array", notes)), "", "the array", notes)


def _to_uint8(values: NDArray[Any], name: str, notes: list[str]) -> NDArray[np.uint8]:
    """Brightness values of any number type as 0 to 255, same shape.

    bool is black and white. uint16 is scaled by the depth that its values use (10, 12, 14 or 16 bits), floats from 0 to
    1 by theirs. Other values within 0 to 255 stay, within 0 to 65535 are scaled like uint16, and anything else is
    stretched from its least to its greatest.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.bool_:
        return np.where(values, np.uint8(255), np.uint8(0))
    if values.dtype == np.uint16:
        return _scale_depth(values, name, notes)
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.all():
        notes.append(f"{name}: values that are not finite are taken as black")
        numbers[~finite] = 0
    low, high = float(numbers.min()), float(numbers.max())
    if low < 0 or high > 65535:
        notes.append(f"{name}: values from {low:g} to {high:g} are stretched to 0 to 255")
        numbers = (numbers - low) * (255 / (high - low)) if high > low else np.zeros_like(numbers)
    elif values.dtype.kind == "f" and high <= 1:
        numbers *= 255
    elif high > 255:
        return _scale_depth(numbers, name, notes)
    return np.rint(numbers).astype(np.uint8)


def _scale_depth(values: NDArray[Any], name: str, notes: list[str]) -> NDArray[np.uint8]:
    """Values within 0 to 65535 as 0 to 255, by the depth that they use: cameras store 10, 12 or 14 bits in 16."""
    high = int(values.max())
    depth = 16 if high < 256 else next(bits for bits in (10, 12, 14, 16) if high < 1 << bits)
    if depth < 16:
        notes.append(f"{name}: values up to {high} are taken as {depth} bits in 16 and are scaled to 8")
    return np.rint(values * np.float32(255 / ((1 << depth) - 1))).astype(np.uint8)
