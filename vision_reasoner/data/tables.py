"""Tables of images and text as folders of parquet files: read, written, and the command that prepares one.

Knows nothing of what the rows of a table are for. `sources` opens data sets as well, but to another end: it has to do
with whatever is out there (JSON lines, parts that bear no split's name) and never decodes an image. Here a table says
what it is for, and training engines decode.
"""

import argparse
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm.contrib.logging import logging_redirect_tqdm

from vision_reasoner.cli import add_output_options, make_parser, run_command
from vision_reasoner.data.sources import datasets_cache
from vision_reasoner.errors import DataError, one_line

if TYPE_CHECKING:
    import datasets

Row = dict[str, Any]

ROWS_AT_ONCE = 16  # are held in memory before they are written
SHARD_BYTES = 500_000_000  # of one parquet file, the size that the Hub's own are
DICTIONARY_BYTES = 1 << 26  # of a column's dictionary, so that an image that several rows have is stored once


def encode_image(image: Image.Image) -> dict[str, Any]:
    """An image as a cell of a table, as PNG."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def load_table(source: str | Path, split: str) -> "datasets.Dataset":
    """A table of images and text, which are decoded when they are looked at.

    Args:
        source: a folder of parquet files (`<split>-*.parquet`), a `save_to_disk` folder, a parquet file or a Hub id.
        split: "train", "test", ...

    Raises:
        DataError: there is no such table, or it has no such split.
    """
    import datasets

    try:
        path = Path(source).expanduser()
        if path.is_file():
            return datasets.Dataset.from_parquet(
                str(path), split=datasets.NamedSplit(split), cache_dir=datasets_cache()
            )
        if path.is_dir():
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                table = datasets.load_from_disk(str(path))
                return table if isinstance(table, datasets.Dataset) else table[split]
            files = sorted(str(f) for f in path.rglob("*.parquet") if re.match(rf"{re.escape(split)}(-|\.)", f.name))
            if not files:
                raise DataError(f"{path}: no parquet files {split}-* and no save_to_disk folder; check path and split")
            return datasets.Dataset.from_parquet(files, split=datasets.NamedSplit(split), cache_dir=datasets_cache())
        if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)) or path.parent.is_dir():
            raise DataError(f"{source}: no such file or folder, and no Hub id; check the path")
        return datasets.load_dataset(str(source), split=split, cache_dir=datasets_cache())
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{source}: has no split {split!r}; check --split") from error
    except Exception as error:  # the library raises nearly anything
        raise DataError(f"{source}: cannot be read as a data set ({one_line(error)}); check it and --split") from error


def encoded(table: "datasets.Dataset") -> "datasets.Dataset":
    """The table with images as in their files, not decoded, so that `check_row` can name a bad one."""
    import datasets

    return table.cast_column("image", datasets.Image(decode=False))


def write_table(
    folder: str | Path,
    split: str,
    columns: Mapping[str, Any],
    rows: Iterable[Row],
    *,
    about: Callable[[], str] = str,
    overwrite: bool = False,
) -> int:
    """Write a table as a folder of parquet files, as the Hub has them; they appear when all are complete.

    Args:
        folder: made if need be; gets `<split>-00000-of-0000N.parquet` and a README.md that data loaders know.
        split: "train", "test", ...
        columns: the columns' names and types (of `datasets`).
        rows: images as `encode_image` gives them, masks as (H, W) bool arrays or None.
        about: called when all rows are written; its text goes into the README.md.
        overwrite: replace the split's files that lie there.

    Returns:
        How many rows were written.

    Raises:
        DataError: the folder has that split already, it cannot be written, or there are no rows.
    """
    folder = Path(folder)
    before = sorted(folder.glob(f"{split}-*.parquet"))
    if before and not overwrite:
        raise DataError(f"{folder}: has {before[0].name} already; give another folder or --overwrite")
    parts: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = _write_shards(folder, split, columns, rows, parts)
        for path in before:
            path.unlink()
        for number, part in enumerate(parts):
            part.replace(folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet")
        (folder / "README.md").write_text(_card(folder, about()), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return written


def _write_shards(folder: Path, split: str, columns: Mapping[str, Any], rows: Iterable[Row], parts: list[Path]) -> int:
    """Write the rows into unfinished files, each added to `parts` before it is opened; returns the number of rows."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = datasets.Features(dict(columns)).arrow_schema
    written = size = 0
    writer: pq.ParquetWriter | None = None
    try:
        for chunk in _chunks(rows, ROWS_AT_ONCE):
            if writer is None or size > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                size = 0
                parts.append(folder / f".{split}-{len(parts):05d}.parquet.part")
                writer = pq.ParquetWriter(parts[-1], schema, dictionary_pagesize_limit=DICTIONARY_BYTES)
            table = pa.Table.from_arrays([_column([r[f.name] for r in chunk], f.type) for f in schema], schema=schema)
            writer.write_table(table)
            written, size = written + len(chunk), size + table.nbytes
    finally:
        if writer is not None:
            writer.close()
    if not written:
        raise DataError(f"{folder}: there are no rows to write")
    return written


def _card(folder: Path, about: str) -> str:
    """The README.md of a folder: the YAML that tells data loaders which file belongs to which split, then `about`."""
    splits = sorted({path.name.partition("-")[0] for path in folder.glob("*.parquet")})
    files = "".join(f"  - split: {name}\n    path: {name}-*\n" for name in splits)
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n{about}\n"


def _chunks(rows: Iterable[Row], n: int) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == n:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _column(values: Sequence[Any], type: Any) -> Any:
    """An Arrow array; masks without a detour over lists of Python's."""
    import pyarrow as pa

    if not any(isinstance(value, np.ndarray) for value in values):
        return pa.array(values, type=type)
    masks = [np.zeros((0, 0), np.bool_) if value is None else value for value in values]
    outer = np.cumsum([0, *(len(mask) for mask in masks)], dtype=np.int32)
    inner = np.cumsum([0, *(mask.shape[1] for mask in masks for _ in mask)], dtype=np.int32)
    pixels = pa.array(np.concatenate([mask.ravel() for mask in masks]))
    lines = pa.ListArray.from_arrays(inner, pixels)
    nothing = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(outer, lines, mask=nothing).cast(type)


# --- the command line -------------------------------------------------------------------------------------------------
def table_command(
    prog: str,
    description: str | None,
    sources: Mapping[str, str],
    add_flags: Callable[[argparse.ArgumentParser, str], None],
    prepare: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """A command that prepares a table: `training.prepare` for rows to train on, `evaluation.prepare` to evaluate on.

    Args:
        prog: how it is called.
        description: for --help.
        sources: what a table can be prepared from: names of sub-commands, with a line about each.
        add_flags: gives a sub-command the flags of its own.
        prepare: does what was asked and returns the number of rows.
        argv: the arguments; None for those that the process was started with.
    """
    parser = make_parser(prog, description)
    commands = parser.add_subparsers(dest="source", required=True, metavar="source")
    for source, text in sources.items():
        sub = commands.add_parser(source, help=text, description=text, allow_abbrev=False)
        add_flags(sub, source)
        add = sub.add_argument
        add("--skip_bad", action="store_true", help="leave out what cannot be used, and say so, rather than stop")
        add("--output_dir", required=True, metavar="DIR", help="gets parquet files and a README.md")
        add("--overwrite", action="store_true", help="replace the split that lies there")
        add_output_options(sub)

    def run(arguments: argparse.Namespace) -> int:
        with logging_redirect_tqdm():  # so that a warning does not end up in a progress bar
            number = prepare(arguments)
        print(f"{arguments.output_dir}: {number} rows")
        return 0

    return run_command(parser, run, argv)
