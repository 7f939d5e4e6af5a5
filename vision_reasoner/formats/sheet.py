"""A table for spreadsheets: a line for each object, and one for each picture without any."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from vision_reasoner.formats.labeled import Labeled, confidence_of, name_of
from vision_reasoner.results import Prediction

PICTURE = ("image", "width", "height", "query", "task", "status", "count", "answer")
OBJECT = ("number", "label", "x1", "y1", "x2", "y2", "point_x", "point_y", "mask_pixels", "score")
Cell = str | int | float | None


def write_csv(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write `objects.csv`, in UTF-8 with the mark that spreadsheets know it by; the pictures stay where they are."""
    with (folder / "objects.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        table = csv.writer(stream)
        table.writerow((*PICTURE, *OBJECT))
        for picture in pictures:
            for prediction in picture.predictions:
                table.writerows([_harmless(cell) for cell in line] for line in _lines(picture, prediction))


def _lines(picture: Labeled, prediction: Prediction) -> Iterator[tuple[Cell, ...]]:
    width, height = picture.size
    of = (str(picture.file), width, height, prediction.query, prediction.task, prediction.status, prediction.count)
    about = (*of, prediction.answer)
    if not prediction.instances:
        yield (*about, *(None for _ in OBJECT))
    for number, instance in enumerate(prediction.instances, start=1):
        mask, point = instance.mask, instance.point or (None, None)
        pixels = None if mask is None else int(mask.sum())
        yield (*about, number, name_of(instance, prediction), *instance.box, *point, pixels, confidence_of(instance))


def _harmless(cell: Cell) -> Cell:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; no lone surrogates."""
    if not isinstance(cell, str):
        return cell
    text = cell.encode("utf-8", "replace").decode()
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
