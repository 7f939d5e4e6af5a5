"""A data set, wherever it lies, as rows by number: plain values, images as the bytes they are stored as.

Read are a Hub id, a folder of `Dataset.save_to_disk`, parquet (a file, a folder, a clone of a Hub repository), and JSON
lines whose images are paths. What a row is for, `evaluation.suites` says.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vision_reasoner.errors import DataError, VisionReasonerError, one_line
from vision_reasoner.files import sha256
from vision_reasoner.geometry import Size

Row = dict[str, Any]
"""A row's values by column; a list of lists of bool is an (H, W) array, an image `{"bytes": …, "path": …}`."""

IMAGE_COLUMNS = ("image", "mask", "ignore")  # columns that may hold paths in JSON lines
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
        image_columns: columns of JSON lines in which a text is the path of an image, relative to the file.
        offline: make no network attempt; a Hub id must then be in the local cache.

    Raises:
        DataError: there is no such data set or split, or it cannot be read.
    """
    local = Path(path).expanduser()
    if not local.exists():
        if not _HUB_ID.fullmatch(str(path)) or local.parent.is_dir():
            raise DataError(f"{path}: there is no such data set; give a folder, a file, or a Hub id (owner/name)")
        return _open_hub(str(path), split, config, offline)
    local = local.resolve()
    if local.suffix == ".jsonl":
        return _open_lines(local, split, image_columns)
    if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
        return _open_saved(local, split)
    files = [local] if local.suffix == ".parquet" else sorted(local.rglob("*.parquet"))
    if files:
        return _open_parquet(local, _of_split(files, split, local), split)
    files = sorted(local.glob("*.jsonl"))
    if files:
        chosen = _of_split(files, split, local)
        if len(chosen) > 1:
            raise DataError(f"{local}: holds {len(chosen)} .jsonl files; give one of them, such as {chosen[0]}")
        return _open_lines(chosen[0], split, image_columns)
    raise DataError(
        f"{local}: is no data set that can be read; give parquet (file or folder), a folder of Dataset.save_to_disk, "
        "a .jsonl file, or a Hub id"
    )


def stored_size(image: Any) -> Size | None:
    """(width, height) that a stored image's header says; None where it does not."""
    data = image.get("bytes") if isinstance(image, dict) else None
    if not data:
        return None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return opened.size
    except Exception:  # noqa: BLE001 - `load_image` says what is wrong with it when it is asked about
        return None


# --- JSON lines -------------------------------------------------------------------------------------------------------
def _open_lines(file: Path, split: str, image_columns: Collection[str]) -> Source:
    rows: list[Row] = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise DataError(f"{file}: line {number} is no JSON object; put it right") from error
        rows.append(row)
    if not rows:
        raise DataError(f"{file}: is empty; give another")

    def get(i: int) -> Row:
        paths = {key: file.parent / rows[i][key] for key in image_columns if isinstance(rows[i].get(key), str)}
        return rows[i] | {key: _read_image(None, path) for key, path in paths.items()}

    named = {row[key] for row in rows for key in image_columns if isinstance(row.get(key), str)}
    fingerprint = _digest([file, *(file.parent / name for name in sorted(named))])
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    name = file.parent.name if file.stem == split else file.stem
    return Source(name, str(file), split, fingerprint, len(rows), columns, get, lambda key: [r.get(key) for r in rows])


def _read_image(data: bytes | None, path: Path | None) -> dict[str, Any]:
    """An image as `datasets.Image` keeps it; a file that is not there keeps its path alone."""
    if not data and path is not None and path.is_file():
        data = path.read_bytes()
    return {"bytes": data or None, "path": None if path is None else str(path)}


# --- what the datasets library reads ----------------------------------------------------------------------------------
def _open_parquet(path: Path, files: Sequence[Path], split: str) -> Source:
    import datasets

    with _without_progress_bars(), _read_errors(path):
        data = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    name = path.parent.name if path.stem == split else path.name.removesuffix(".parquet")
    return _source(data, name, str(path), split, _digest(files))


def _open_saved(folder: Path, split: str) -> Source:
    import datasets

    with _without_progress_bars(), _read_errors(folder):
        data = datasets.load_from_disk(str(folder))
        if isinstance(data, datasets.DatasetDict):
            if split not in data:
                raise DataError(f"{folder}: has no split {split!r}; give --split {' or '.join(data)}")
            data = data[split]
    return _source(data, folder.name, str(folder), split, _digest_cached(data))


def _open_hub(hub_id: str, split: str, config: str | None, offline: bool) -> Source:
    import datasets

    if offline:
        datasets.config.HF_HUB_OFFLINE = True
    with _read_errors(hub_id):
        data = datasets.load_dataset(hub_id, config, split=split)
    return _source(data, hub_id.rpartition("/")[2], hub_id, split, _digest_cached(data))


def _digest_cached(data: Any) -> str:
    """Of the files that a `datasets.Dataset` is read from; what the Hub gave lies in the cache."""
    return _digest([Path(file["filename"]) for file in data.cache_files])


def _source(data: Any, name: str, path: str, split: str, fingerprint: str) -> Source:
    """A source of a `datasets.Dataset`, whose own decoding of images and lists is passed by."""
    arrow = data.with_format("arrow")
    base = Path(path) if Path(path).is_dir() else Path(path).parent

    def get(i: int) -> Row:
        table = arrow[i]
        row = {key: _plain(table[key].combine_chunks()) for key in table.column_names}
        for key, value in row.items():
            if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
                row[key] = _read_image(value["bytes"], base / value["path"] if value["path"] else None)
        return row

    return Source(name, path, split, fingerprint, len(data), tuple(data.column_names), get, lambda key: data[key][:])


def _plain(array: Any) -> Any:
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
        raise ValueError(f"rows of {min(widths)} to {max(widths)} values are no mask")
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
    digests = (sha256(file) if file.is_file() else "missing" for file in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


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
