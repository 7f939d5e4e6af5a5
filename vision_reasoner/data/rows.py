"""Rows to train on: what is in one, how it is checked, and the layouts that training engines read.

A row is `id, problem, solution, image, img_height, img_width`: the request in plain words; the answer as JSON text
(`solutions`), empty where nothing matches; the image, already resized to the model's frame, a square, without keeping
its aspect ratio; and the height and width it had before. Boxes and points are pixels of that frame. The published
Ricky06662/VisionReasoner_multi_object_* are such tables.

`LAYOUTS` has the conversions to other engines' layouts. Prompt texts come from `prompts` alone.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vision_reasoner.data.solutions import Target, read_solution, solution_of
from vision_reasoner.data.tables import Row, encode_image, encoded, load_table
from vision_reasoner.errors import DataError, VisionReasonerError
from vision_reasoner.geometry import Point, Size
from vision_reasoner.images import load_image
from vision_reasoner.masks import Mask, box_around
from vision_reasoner.models.engine import check_text, frame_image
from vision_reasoner.prompts import VISION_REASONER

if TYPE_CHECKING:
    import datasets

ControlToken = Callable[[str], str | None]
"""Finds a control token of a model in a text."""

COLUMNS = ("id", "problem", "solution", "image", "img_height", "img_width")


# --- one row ----------------------------------------------------------------------------------------------------------
def target_of(mask: Mask, size: Size) -> Target | None:
    """An object's box and innermost point in a frame, by the Euclidean distance transform of its mask there.

    Args:
        mask: (H, W) bool, in pixels of the image.
        size: (width, height) of the frame that the image is resized to.

    Returns:
        None where nothing of it is left at the frame's resolution.
    """
    from vision_reasoner.scenes.scene import innermost

    resized = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    if (box := box_around(resized)) is None:
        return None
    row, column = innermost(resized[box.y1 : box.y2, box.x1 : box.x2])
    return Target(box, Point(box.x1 + column, box.y1 + row))


def make_row(id: str, query: str, image: Image.Image, targets: Iterable[Target], frame_side: int) -> Row:
    """A row from an image at its own size and targets in the frame."""
    return {
        "id": id,
        "problem": query,
        "solution": solution_of(targets),
        "image": encode_image(frame_image(image, (frame_side, frame_side))),
        "img_height": image.height,
        "img_width": image.width,
    }


def check_row(row: Mapping[str, Any]) -> int:
    """Check that a row can be trained on; `image` may be decoded, or bytes as in the file.

    Returns:
        The frame's side.

    Raises:
        DataError: it cannot; the line names the row and what is wrong.
    """
    return checked_image(row).width


def checked_image(row: Mapping[str, Any]) -> Image.Image:
    """The decoded image of a row, which is checked as `check_row` does: its width and height are the frame's side."""
    try:
        image = row["image"]
        if isinstance(image, Mapping):
            image = load_image(image.get("bytes") or image.get("path") or b"")
        if not isinstance(image, Image.Image):
            raise DataError("it has no picture")
        if image.width != image.height:
            raise DataError(
                f"the picture is {image.width}x{image.height}, not resized to a square; prepare this row again"
            )
        _check_problem(row["problem"])
        read_solution(row["solution"], model_size=image.size)
    except VisionReasonerError as error:
        raise DataError(f"row {row.get('id')!r}: {error}") from error
    return image


def _check_problem(problem: object) -> None:
    if not isinstance(problem, str) or not problem.strip():
        raise DataError("the problem is empty; write the request there")


def check_single_classes(asked: Mapping[str, str]) -> None:
    """Check that no request is for several classes at once that others are for alone.

    Args:
        asked: by the name of a class, which is a whole request, the id of a row that has it.

    Raises:
        DataError: one is.
    """
    for name, id in asked.items():
        parts = re.split(", | and ", name)
        if len(parts) > 1 and all(part in asked for part in parts):
            raise DataError(f"row {id!r} asks for several classes at once; prepare rows with --group_share 0")


# --- layouts of tables ------------------------------------------------------------------------------------------------
def _hub(row: Row, number: int, split: str) -> Row:  # noqa: ARG001 - all converters are called alike
    return {name: row[name] for name in COLUMNS}


def _trl(row: Row, number: int, split: str) -> Row:  # noqa: ARG001
    """TRL's GRPOTrainer puts the image before the text of a conversation by itself."""
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
    """The prompt with the placeholder of its image in front; veRL and EasyR1 split the text at every placeholder."""
    text = VISION_REASONER.text_for(row["problem"])
    mark = re.search("<(image|video|audio)>", text)
    if mark:
        raise DataError(f"row {row['id']!r}: {mark[0]} in the problem would be taken for a picture; reword it")
    return "<image>" + text


LAYOUTS: dict[str, Callable[[Row, int, str], Row]] = {"hub": _hub, "trl": _trl, "verl": _verl, "easyr1": _easyr1}
"""Converters to each layout, from a row, its number and the split's name. `columns_of` has the types."""


def columns_of(layout: str) -> dict[str, Any]:
    """The columns of one of LAYOUTS, with their types (of `datasets`)."""
    import datasets

    text, number, image = datasets.Value("string"), datasets.Value("int64"), datasets.Image()
    conversation = datasets.List({"role": text, "content": text})
    if layout == "hub":
        return dict(zip(COLUMNS, (text, text, text, image, number, number), strict=True))
    if layout == "trl":
        return {"id": text, "prompt": conversation, "image": image, "solution": text}
    if layout == "easyr1":
        return {"id": text, "problem": text, "answer": text, "images": datasets.List(image)}
    return {
        "data_source": text,
        "prompt": conversation,
        "images": datasets.List(image),
        "ability": text,
        "reward_model": {"style": text, "ground_truth": text},
        "extra_info": {"index": number, "split": text, "id": text, "frame_side": number},
    }


# --- tables of rows ---------------------------------------------------------------------------------------------------
def load_rows(
    source: str | Path, split: str = "train", *, control_token: ControlToken | None = None
) -> "datasets.Dataset":
    """A table of rows to train on (see `load_table`); texts are checked now, images when they are read.

    Args:
        source: a folder or a Hub id.
        split: of it.
        control_token: finds one of the model's in a request, which then cannot be asked; see `Engine.control_token`.

    Raises:
        DataError: it is none, or the first row that cannot be trained on.
    """
    table = open_rows(source, split)
    side = check_row(encoded(table)[0])
    for row in table.select_columns(["id", "problem", "solution"]):
        try:
            _check_problem(row["problem"])
            if control_token is not None:
                check_text(VISION_REASONER.query_for(row["problem"]), control_token)
            read_solution(row["solution"], model_size=(side, side))
        except VisionReasonerError as error:
            raise DataError(f"{source}: row {row['id']!r}: {error}") from error
    return table


def open_rows(source: str | Path, split: str) -> "datasets.Dataset":
    """The same without a check of single rows: there are some, and they have the columns.

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
