"""YOLO: a text file for each picture, and the names of the classes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vision_reasoner.data.annotations import OUTSIDE, Instances, OnBad, refuse
from vision_reasoner.data.formats.shared import Entry, Picture, Shape, assemble, list_files, read_text
from vision_reasoner.errors import DataError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.images import SUFFIXES, load_image

MAX_LEVELS = 4  # of brackets inside each other in a YAML file


def read_yolo(labels: str | Path, images: str | Path, names: str | Path, *, on_bad: OnBad = refuse) -> Instances:
    """Read YOLO's labels: on each line a class and a box (center, width, height) or an outline, as shares of the sides.

    A picture without a label file has no objects. Keypoints are not told apart from outlines: leave them out.

    Args:
        labels: the folder of text files.
        images: the folder of pictures.
        names: data.yaml, or a text file with a class on each line.
        on_bad: gets what is wrong with a file or a line.

    Raises:
        DataError: there are none.
    """
    classes = _yolo_names(Path(names))
    texts = {file.stem: file for file in list_files(labels, ".txt")}
    texts.pop("classes", None)  # labelImg's list of names
    folder = Path(images)
    pictures = {file.stem: file for file in list_files(folder, *SUFFIXES)}
    for stem in texts.keys() - pictures.keys():
        on_bad(
            DataError(f"{texts[stem]}: there is no picture {stem} in {folder}; delete it (--skip_bad leaves it out)")
        )
    makers = (partial(_yolo_picture, texts.get(stem), file, classes) for stem, file in pictures.items())
    return assemble(makers, folder, on_bad, classes.values())


def _yolo_picture(file: Path | None, picture: Path, classes: Mapping[int, str]) -> Picture:
    size = load_image(picture).size
    lines = read_text(file).splitlines() if file else []
    entries = []
    for line in lines:
        numbers = line.split()
        if numbers:
            index = int(numbers[0]) if numbers[0].isascii() and numbers[0].isdigit() else -1
            entries.append(Entry(classes.get(index), partial(_yolo_shape, numbers, size)))
    return Picture(str(file or picture), picture.name, size, entries)


def _yolo_shape(numbers: Sequence[str], size: Size) -> Shape:
    values = [float(number) for number in numbers[1:]]
    if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in values):
        raise ValueError("its numbers are not all from 0 to 1, as shares of the picture's sides")
    width, height = size
    if len(values) == 4:
        x, y, w, h = values
        return Shape(((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height))
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"it has {len(values)} numbers after the class: neither a box (4) nor an outline (6, 8, ...)")
    return Shape(polygons=[[v * size[i % 2] for i, v in enumerate(values)]])


def _yolo_names(file: Path) -> dict[int, str]:
    """Classes by number, from data.yaml or from lines."""
    text = read_text(file)
    found: Any = dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    if file.suffix.lower() in (".yaml", ".yml"):
        import yaml

        try:
            deep = 0
            for event in yaml.parse(text, yaml.SafeLoader):
                deep += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if deep > MAX_LEVELS or isinstance(event, yaml.AliasEvent):
                    raise DataError(f"{file}: has aliases or is too deep for a list of classes; get it again")
            data = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise DataError(f"{file}: is no YAML ({one_line(error)}); get it again") from error
        found = data.get("names") if isinstance(data, dict) else None
        found = dict(enumerate(found)) if isinstance(found, list) else found
    if not isinstance(found, dict) or not found:
        raise DataError(f"{file}: has no list of classes (names:); give data.yaml or a text file of names")
    try:
        return {int(number): str(name) for number, name in found.items()}
    except (TypeError, ValueError):
        raise DataError(f"{file}: `names` is neither a list nor by number; correct it") from None
