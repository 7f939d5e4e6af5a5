"""A data set, wherever it lies, as rows by number: plain values, images as the bytes they are stored as.

Read are a Hub id, a folder of `Dataset.save_to_disk`, parquet (a file, a folder, a clone of a Hub repository), and JSON
lines whose images are paths. What a row is for, `evaluation.suites` says.
"""

import atexit
import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
from PIL import ExifTags

from vision_reasoner.errors import DataError, VisionReasonerError, one_line
from vision_reasoner.files import sha256
from vision_reasoner.geometry import Size
from vision_reasoner.images import MAX_BYTES, open_image, without_warnings

logger = logging.getLogger(__name__)

Row = dict[str, Any]
"""A row's values by column; a list of lists of bool is an (H, W) array, an image `{"bytes": …, "path": …}`."""

IMAGE_COLUMNS = ("image", "mask", "ignore")  # fields whose columns hold images
MAX_JSON_BYTES = 2 << 30  # of a file that is read whole; LVIS has 1.2 GB
_PNG_TURNS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks that may say that a PNG is turned
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_SPLIT_NAME = re.compile(r"(train|training|validation|valid|val|test[abc]?|testing|dev|eval)(?![a-z])", re.I)


@dataclass(frozen=True)
class Source:
    """A data set that is open.

    Attributes:
        name: for people and file names.
        path: what it was opened by; absolute where it is local.
        split: the split that was asked for.
        fingerprint: of its files' bytes; the same wherever they lie.
        n: how many rows it has.
        columns: their names.
        row: the row with a number from 0 to n - 1.
        column: all values of a column; for short ones.
    """

    name: str
    path: str
    split: str
    fingerprint: str
    n: int
    columns: tuple[str, ...]
    row: Callable[[int], Row]
    column: Callable[[str], list[Any]]


def open_source(
    path: str | Path,
    *,
    split: str = "test",
    config: str | None = None,
    image_columns: Collection[str] = IMAGE_COLUMNS,
    offline: bool = False,
) -> Source:
    """Open a data set.

    Args:
        path: what is there locally, or else a Hub id ("owner/name").
        split: which part of it; a folder or file of a single part is taken as it is.
        config: for a Hub id whose repository holds several data sets.
        image_columns: columns that hold images: in them a text is a path, relative to the file, and a list of one image
            is that image.
        offline: make no network attempt; a Hub id must then be in the local cache.

    Raises:
        DataError: there is no such data set or split, or it cannot be read.
    """
    try:
        local = Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{str(path)[:200]}: there is no such user; give the whole path") from error
    if not _exists(local):
        if not _HUB_ID.fullmatch(str(path)) or local.parent.is_dir():
            raise DataError(f"{path}: there is no such data set; give a folder, a file, or a Hub id (owner/name)")
        return _open_hub(str(path), split, config, image_columns, offline=offline)
    local = local.resolve()
    if not (local.is_file() or local.is_dir()):
        raise DataError(f"{local}: is neither a file nor a folder (a pipe or a device?); give the data set's file")
    if local.suffix == ".jsonl":
        return _open_lines(local, split, image_columns)
    if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
        return _open_saved(local, split, image_columns)
    files = [local] if local.suffix == ".parquet" else _files(local.rglob("*.parquet"))
    if files:
        return _open_parquet(local, _of_split(files, split, local), split, image_columns)
    files = _files(local.glob("*.jsonl"))
    if files:
        chosen = _of_split(files, split, local)
        if len(chosen) > 1:
            raise DataError(f"{local}: holds {len(chosen)} .jsonl files; give one of them, such as {chosen[0]}")
        return _open_lines(chosen[0], split, image_columns)
    raise DataError(
        f"{local}: is no data set that can be read; give parquet (file or folder), a folder of Dataset.save_to_disk, "
        "a .jsonl file, or a Hub id"
    )


def upright_sizes(image: Any) -> tuple[Size, ...]:
    """What (width, height) a stored image has when it is upright, by its header; no pixel is decoded.

    Both ways where the header does not tell whether it is turned (PNG may say so behind its pixels); none where it
    cannot be read.
    """
    data = image.get("bytes") if isinstance(image, dict) else None
    if not data or not isinstance(data, bytes):
        return ()
    try:
        with without_warnings(), open_image("the image", data) as opened:  # remarks on odd metadata
            size = opened.size
            if opened.format == "TIFF":  # Pillow turns it by itself
                return (size,)
            if opened.format == "PNG" and "exif" not in opened.info:  # asking Pillow would decode it
                return (size, size[::-1]) if any(chunk in data for chunk in _PNG_TURNS) else (size,)
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
            return (size[::-1],) if turned else (size,)
    except Exception:  # noqa: BLE001 - `load_image` says what is wrong with it when it is asked about
        return ()


def check_json_size(file: Path) -> None:
    """Refuse what is too large to be read whole, or no file at all, before it is read.

    Raises:
        DataError: it is one of these.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    if not file.is_file():
        raise DataError(f"{file}: is no regular file; give another")
    if size > MAX_JSON_BYTES:
        raise DataError(f"{file}: has {size:,} bytes, more than {MAX_JSON_BYTES:,}, too many for JSON; give parquet")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or a null character in it
        return False


def _files(found: Iterable[Path]) -> list[Path]:
    return sorted(path for path in found if path.is_file())


# --- JSON lines -------------------------------------------------------------------------------------------------------
def _open_lines(file: Path, split: str, image_columns: Collection[str]) -> Source:
    """A line that is no JSON object costs its row alone, unless all are: `row` raises for it, `column` has None."""
    check_json_size(file)
    rows: list[Row] = []
    bad: dict[int, DataError] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            row = {}
            bad[len(rows)] = DataError(f"{file}: line {number} is no JSON object; put it right")
        rows.append(row)
    if not rows:
        raise DataError(f"{file}: is empty; give another")
    if len(bad) == len(rows):
        raise bad[0]

    def get(i: int) -> Row:
        if i in bad:
            raise bad[i]
        images = {key: _image_of(rows[i][key], file.parent) for key in image_columns if key in rows[i]}
        return dict.fromkeys(columns) | rows[i] | images

    named = {path for row in rows for key in image_columns if (path := _named(row.get(key)))}
    fingerprint = _digest([file, *(file.parent / name for name in sorted(named))])
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    name = file.parent.name if file.stem == split else file.stem
    return Source(name, str(file), split, fingerprint, len(rows), columns, get, lambda key: [r.get(key) for r in rows])


def _image_of(value: Any, folder: Path) -> Any:
    """An image as `datasets.Image` keeps it, `{"bytes", "path"}`, of whatever a column of images holds.

    Bytes, a path relative to `folder`, such a dict, or a list of one of these; all else is left as it is.
    """
    one = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    if isinstance(one, bytes):
        return {"bytes": one, "path": None}
    if isinstance(one, str):
        return _read_image(None, folder / one)
    if isinstance(one, dict) and one.keys() == {"bytes", "path"}:
        path = folder / one["path"] if isinstance(one["path"], str) and one["path"] else None
        return _read_image(one["bytes"], path)
    return value


def _named(value: Any) -> str | None:
    """The path that a column of images holds; None for others."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    return one if isinstance(one, str) else None


def _read_image(data: Any, path: Path | None) -> dict[str, Any]:
    """An image as `datasets.Image` keeps it; a file that is not there, or is none, keeps its path alone."""
    if not data and path is not None and _is_readable(path):
        data = path.read_bytes()
    return {"bytes": data or None, "path": None if path is None else str(path)}


def _is_readable(path: Path) -> bool:
    """Whether it is a file that is not larger than any image."""
    try:
        return path.is_file() and path.stat().st_size <= MAX_BYTES
    except (OSError, ValueError):
        return False


# --- what the datasets library reads ----------------------------------------------------------------------------------
def _open_parquet(path: Path, files: Sequence[Path], split: str, image_columns: Collection[str]) -> Source:
    import datasets

    with _without_progress_bars(), _read_errors(path):
        data = datasets.load_dataset(
            "parquet", data_files=[str(file) for file in files], split="train", cache_dir=datasets_cache()
        )
    name = path.parent.name if path.stem == split else path.name.removesuffix(".parquet")
    return _source(data, name, str(path), split, _digest(files), image_columns)


def _open_saved(folder: Path, split: str, image_columns: Collection[str]) -> Source:
    import datasets

    with _without_progress_bars(), _read_errors(folder):
        data = datasets.load_from_disk(str(folder))
        if isinstance(data, datasets.DatasetDict):
            if split not in data:
                raise DataError(f"{folder}: has no split {split!r}; give --split {' or '.join(data)}")
            data = data[split]
    return _source(data, folder.name, str(folder), split, _digest_cached(data), image_columns)


def _open_hub(hub_id: str, split: str, config: str | None, image_columns: Collection[str], *, offline: bool) -> Source:
    import datasets

    if offline:
        datasets.config.HF_HUB_OFFLINE = True
    with _read_errors(hub_id):
        data = datasets.load_dataset(hub_id, config, split=split, cache_dir=datasets_cache())
    return _source(data, hub_id.rpartition("/")[2], hub_id, split, _digest_cached(data), image_columns)


@cache
def datasets_cache() -> str | None:
    """Where the datasets library is to put the tables that it reads: None is its own cache.

    Where that cannot be written (a home folder that is not there, or read-only) it is a temporary folder.
    """
    import datasets

    own = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        own.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=own):
            return None
    except OSError as error:
        folder = TemporaryDirectory(prefix="vision-reasoner-", ignore_cleanup_errors=True)
        atexit.register(folder.cleanup)
        logger.info("%s cannot be written (%s); tables that are read go into a temporary folder", own, error.strerror)
        return folder.name


def _digest_cached(data: Any) -> str:
    """Of the files that a `datasets.Dataset` is read from; what the Hub gave lies in the cache."""
    return _digest([Path(file["filename"]) for file in data.cache_files])


def _source(data: Any, name: str, path: str, split: str, fingerprint: str, image_columns: Collection[str]) -> Source:
    """A source of a `datasets.Dataset`, whose own decoding of images and lists is passed by."""
    arrow = data.with_format("arrow")
    base = Path(path) if Path(path).is_dir() else Path(path).parent

    def get(i: int) -> Row:
        table = arrow[i]
        row = {key: _plain(table[key].combine_chunks(), key) for key in table.column_names}
        for key, value in row.items():
            if key in image_columns or (isinstance(value, dict) and value.keys() == {"bytes", "path"}):
                row[key] = _image_of(value, base)
        return row

    return Source(name, path, split, fingerprint, len(data), tuple(data.column_names), get, lambda key: data[key][:])


def _plain(array: Any, column: str) -> Any:
    """The one value of an Arrow array of length 1; a list of lists of bool as (H, W) array, all else as Python has it.

    Raises:
        ValueError: such a list has rows of different length.
    """
    import pyarrow as pa

    def is_list(kind: Any) -> bool:
        return pa.types.is_list(kind) or pa.types.is_large_list(kind)

    kind = array.type
    if not (array.is_valid()[0].as_py() and is_list(kind) and is_list(kind.value_type)):
        return array[0].as_py()
    if not pa.types.is_boolean(kind.value_type.value_type):
        return array[0].as_py()
    lines = array.flatten()
    widths = set(lines.value_lengths().to_pylist())
    if len(widths) > 1:
        raise ValueError(f"column {column!r}: rows of {min(widths)} to {max(widths)} values are no mask")
    cells = lines.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(cells, dtype=np.bool_).reshape(len(lines), -1)


# --- what they share --------------------------------------------------------------------------------------------------
def _of_split(files: Sequence[Path], split: str, path: Path) -> list[Path]:
    """The files whose name or folder begins with the split's name; all of them where none bears that of a split."""

    def named(file: Path) -> set[str]:
        parts = file.relative_to(path).parts if file != path else ()
        return {match[1].lower() for part in parts if (match := _SPLIT_NAME.match(part))}

    if chosen := [file for file in files if split.lower() in named(file)]:
        return chosen
    if others := sorted(set().union(*map(named, files))):
        raise DataError(f"{path}: has no split {split!r}; give --split {' or '.join(others)}")
    return list(files)


def _digest(files: Sequence[Path]) -> str:
    """Of the files' contents, in their order; one that is missing counts as such."""
    digests = (sha256(file) if _is_file(file) else "missing" for file in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """No progress bars of the datasets library, which for local files are over before they can be read."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    enabled = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            enable_progress_bar()


@contextmanager
def _read_errors(path: str | Path) -> Iterator[None]:
    """Turn whatever the datasets library raises into a DataError of one line."""
    try:
        yield
    except VisionReasonerError:
        raise
    except ConnectionError as error:
        raise DataError(
            f"{path}: is not on this machine and the Hub cannot be reached; check the name, or fetch it where there is "
            "a network and give its folder"
        ) from error
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); check the name, --split and the files") from error
