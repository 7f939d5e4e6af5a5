"""Rows to train on: what is in one, how it is checked, and how tables of them are read and written.

A row is `id, problem, solution, image, img_height, img_width`: the request in plain words; the answer as JSON text,
`[{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}, ...]`, empty where nothing matches; the picture already squashed
to the model's frame, a square; and the height and width it had before. Boxes and points are pixels of that frame, x2
and y2 the last ones inside. The published Ricky06662/VisionReasoner_multi_object_* are such tables.

Training engines read tables of other layouts (`LAYOUTS`). Prompt texts come from `prompts` alone.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vision_reasoner.errors import DataError, VisionReasonerError, one_line
from vision_reasoner.geometry import Box, Point, Size
from vision_reasoner.images import load_image
from vision_reasoner.masks import Mask
from vision_reasoner.models.reasoner import frame_picture
from vision_reasoner.prompts import VISION_REASONER

if TYPE_CHECKING:
    import datasets

Row = dict[str, Any]

COLUMNS = ("id", "problem", "solution", "image", "img_height", "img_width")
ROWS_AT_ONCE = 16  # are held in memory before they are written
SHARD_BYTES = 500_000_000  # of pictures in one file


# --- one row ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Target:
    """One object of an answer, in pixels of the frame."""

    box: Box
    point: Point


def target_of(mask: Mask, size: Size) -> Target | None:
    """An object's box and innermost point in a frame, by the Euclidean distance transform of its mask there.

    Args:
        mask: (H, W) bool, in pixels of the picture.
        size: (width, height) of the frame that the picture is squashed to.

    Returns:
        None where nothing of it is left at the frame's resolution.
    """
    from vision_reasoner.scenes.scene import innermost

    squashed = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    rows, columns = np.flatnonzero(squashed.any(1)), np.flatnonzero(squashed.any(0))
    if not len(rows):
        return None
    box = Box.from_inclusive(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    row, column = innermost(squashed[box.y1 : box.y2, box.x1 : box.x2])
    return Target(box, Point(box.x1 + column, box.y1 + row))


def solution_of(targets: Iterable[Target]) -> str:
    """The answer's JSON text."""
    return json.dumps([{"bbox_2d": list(t.box.inclusive), "point_2d": list(t.point)} for t in targets])


def make_row(id: str, query: str, image: Image.Image, targets: Iterable[Target], frame_side: int) -> Row:
    """A row from a picture at its own size and targets in the frame."""
    return {
        "id": id,
        "problem": query,
        "solution": solution_of(targets),
        "image": encode_picture(frame_picture(image, (frame_side, frame_side))),
        "img_height": image.height,
        "img_width": image.width,
    }


def check_row(row: Mapping[str, Any]) -> int:
    """Look whether a row can be trained on; `image` may be decoded, or bytes as in the file.

    Returns:
        The frame's side.

    Raises:
        DataError: it cannot; the line names the row and what is wrong.
    """
    from vision_reasoner.training.grpo.rewards import read_solution

    try:
        picture = row["image"]
        if isinstance(picture, Mapping):
            picture = load_image(picture.get("bytes") or picture.get("path") or b"")
        if not isinstance(picture, Image.Image):
            raise DataError("it has no picture")
        if picture.width != picture.height:
            raise DataError(
                f"the picture is {picture.width}x{picture.height}, not squashed to a square; prepare this row again"
            )
        _check_problem(row["problem"])
        read_solution(row["solution"], model_size=picture.size)
    except VisionReasonerError as error:
        raise DataError(f"row {row.get('id')!r}: {error}") from error
    return picture.width


def _check_problem(problem: object) -> None:
    if not isinstance(problem, str) or not problem.strip():
        raise DataError("the problem is empty; write the request there")


def encode_picture(image: Image.Image) -> dict[str, Any]:
    """A picture as a cell of a table, without loss."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


# --- layouts of tables ------------------------------------------------------------------------------------------------
def _hub(row: Row, number: int, split: str) -> Row:  # noqa: ARG001 - all converters are called alike
    return {name: row[name] for name in COLUMNS}


def _trl(row: Row, number: int, split: str) -> Row:  # noqa: ARG001
    """TRL's GRPOTrainer puts the picture before the text of a conversation by itself."""
    prompt = [{"role": "user", "content": VISION_REASONER.text_for(row["problem"])}]
    return {"id": row["id"], "prompt": prompt, "image": row["image"], "solution": row["solution"]}


def _verl(row: Row, number: int, split: str) -> Row:
    return {
        "data_source": "vision_reasoner",
        "prompt": [{"role": "user", "content": _with_placeholder(row)}],
        "images": [row["image"]],
        "ability": "perception",
        "reward_model": {"style": "rule", "ground_truth": row["solution"]},
        "extra_info": {"index": number, "split": split, "id": row["id"], "frame_side": check_row(row)},
    }


def _easyr1(row: Row, number: int, split: str) -> Row:  # noqa: ARG001
    return {
        "id": row["id"],
        "problem": _with_placeholder(row),
        "answer": row["solution"],
        "images": [row["image"]],
    }


def _with_placeholder(row: Row) -> str:
    """The prompt after the mark that veRL and EasyR1 put the picture at; they split the text at every such mark."""
    text = VISION_REASONER.text_for(row["problem"])
    mark = re.search("<(image|video|audio)>", text)
    if mark:
        raise DataError(f"row {row['id']!r}: {mark[0]} in the problem would be taken for a picture; reword it")
    return "<image>" + text


LAYOUTS: dict[str, Callable[[Row, int, str], Row]] = {"hub": _hub, "trl": _trl, "verl": _verl, "easyr1": _easyr1}
"""What becomes of a row in each: from the row, its number and the split's name. `columns_of` has the types."""


def columns_of(layout: str) -> dict[str, Any]:
    """The columns of one of LAYOUTS, with their types (of `datasets`)."""
    import datasets

    text, number, picture = datasets.Value("string"), datasets.Value("int64"), datasets.Image()
    conversation = datasets.List({"role": text, "content": text})
    if layout == "hub":
        return dict(zip(COLUMNS, (text, text, text, picture, number, number), strict=True))
    if layout == "trl":
        return {"id": text, "prompt": conversation, "image": picture, "solution": text}
    if layout == "easyr1":
        return {"id": text, "problem": text, "answer": text, "images": datasets.List(picture)}
    return {
        "data_source": text,
        "prompt": conversation,
        "images": datasets.List(picture),
        "ability": text,
        "reward_model": {"style": text, "ground_truth": text},
        "extra_info": {"index": number, "split": text, "id": text, "frame_side": number},
    }


# --- tables -----------------------------------------------------------------------------------------------------------
# `sources` opens data sets as well, but to another end: it has to do with whatever is out there (JSON lines,
# parts that bear no split's name) and never decodes a picture. Here a table says what it is for, and engines decode.
def load_table(source: str | Path, split: str) -> "datasets.Dataset":
    """A table of pictures and text, which are decoded when they are looked at.

    Args:
        source: a folder of parquet files (`<split>-*.parquet`), a `save_to_disk` folder, a parquet file or a Hub id.
        split: "train", "test", ...

    Raises:
        DataError: there is no such table, or it has no such split.
    """
    import datasets

    path = Path(source).expanduser()
    try:
        if path.is_file():
            return datasets.Dataset.from_parquet(str(path), split=datasets.NamedSplit(split))
        if path.is_dir():
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                table = datasets.load_from_disk(str(path))
                return table if isinstance(table, datasets.Dataset) else table[split]
            files = sorted(str(f) for f in path.rglob("*.parquet") if re.match(rf"{re.escape(split)}(-|\.)", f.name))
            if not files:
                raise DataError(f"{path}: no parquet files {split}-* and no save_to_disk folder; check path and split")
            return datasets.Dataset.from_parquet(files, split=datasets.NamedSplit(split))
        if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)) or path.parent.is_dir():
            raise DataError(f"{source}: no such file or folder, and no Hub id; check the path")
        return datasets.load_dataset(str(source), split=split)
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{source}: has no split {split!r}; check --split") from error
    except Exception as error:  # the library raises nearly anything
        raise DataError(f"{source}: cannot be read as a data set ({one_line(error)}); check it and --split") from error


def encoded(table: "datasets.Dataset") -> "datasets.Dataset":
    """The table with pictures as in their files, not decoded, so that `check_row` can name a bad one."""
    import datasets

    return table.cast_column("image", datasets.Image(decode=False))


def load_rows(source: str | Path, split: str = "train") -> "datasets.Dataset":
    """A table of rows to train on (see `load_table`); each row's text is looked at, pictures when they are read.

    Raises:
        DataError: it is none, or the first row that cannot be trained on.
    """
    from vision_reasoner.training.grpo.rewards import read_solution

    table = open_rows(source, split)
    side = check_row(encoded(table)[0])
    for row in table.select_columns(["id", "problem", "solution"]):
        try:
            _check_problem(row["problem"])
            read_solution(row["solution"], model_size=(side, side))
        except VisionReasonerError as error:
            raise DataError(f"{source}: row {row['id']!r}: {error}") from error
    return table


def open_rows(source: str | Path, split: str) -> "datasets.Dataset":
    """The same with no look at the rows: there are some, and they have the columns.

    Raises:
        DataError: it is no table of rows.
    """
    table = load_table(source, split)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"{source}: is no table of training rows, without {', '.join(missing)}; prepare one")
    if not len(table):
        raise DataError(f"{source}: has no rows in {split!r}")
    return table


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
        rows: pictures as `encode_picture` gives them, masks as (H, W) bool arrays or None.
        about: says, when all rows are written, what stands in the README.md.
        overwrite: replace the split's files that lie there.

    Returns:
        How many rows were written.

    Raises:
        DataError: the folder has that split already, it cannot be written, or there are no rows.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    before = sorted(folder.glob(f"{split}-*.parquet"))
    if before and not overwrite:
        raise DataError(f"{folder}: has {before[0].name} already; give another folder or --overwrite")
    schema = datasets.Features(dict(columns)).arrow_schema
    parts: list[Path] = []
    written = size = 0
    writer: pq.ParquetWriter | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chunk in _chunks(rows, ROWS_AT_ONCE):
            if writer is None or size > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                size = 0
                parts.append(folder / f".{split}-{len(parts):05d}.parquet.part")
                writer = pq.ParquetWriter(
                    parts[-1], schema, dictionary_pagesize_limit=1 << 26
                )  # equal pictures are kept once
            table = pa.Table.from_arrays([_column([r[f.name] for r in chunk], f.type) for f in schema], schema=schema)
            writer.write_table(table)
            written, size = written + len(chunk), size + table.nbytes
        if writer is None:
            raise DataError(f"{folder}: there are no rows to write")
        writer.close()
        writer = None
        for path in before:
            path.unlink()
        for number, part in enumerate(parts):
            part.replace(folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet")
        splits = sorted({path.name.partition("-")[0] for path in folder.glob("*.parquet")})
        files = "".join(f"  - split: {name}\n    path: {name}-*\n" for name in splits)
        card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n{about()}\n"
        (folder / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        if writer is not None:
            writer.close()
        for part in parts:
            part.unlink(missing_ok=True)
    return written


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
