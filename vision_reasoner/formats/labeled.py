"""What every format is written from: the pictures of a results.jsonl with the objects that were found in each.

A reply that says that nothing matches makes a picture without objects, which is kept: to whoever trains on it that is
a verified negative. A picture that failed, or whose reply could not be used, says nothing about what is in it, and is
left out.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vision_reasoner.errors import DataError, VisionReasonerError, one_line
from vision_reasoner.files import unique_stem
from vision_reasoner.geometry import Size
from vision_reasoner.images import MAX_PIXELS, load_image
from vision_reasoner.prompts import normalize_query
from vision_reasoner.results import Instance, Prediction, Task

logger = logging.getLogger(__name__)

MAX_NAME = 200  # characters of an object's name; tools show it on a button
_NOT_TEXT = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEPT = {"PNG": ".png", "JPEG": ".jpg"}  # what all tools read; other pictures are written as PNG


class Object(NamedTuple):
    """An object and what it is called."""

    name: str
    instance: Instance


@dataclass(frozen=True)
class Labeled:
    """A picture and everything that was found in it.

    Attributes:
        file: the picture.
        stem: what its files are called in an export, without ending; unlike any other's, also in lower case.
        size: (width, height) of the upright picture in pixels.
        predictions: at least one, each of another query.
    """

    file: Path
    stem: str
    size: Size
    predictions: tuple[Prediction, ...]

    @property
    def objects(self) -> list[Object]:
        """All objects of all queries, in order."""
        return [Object(name_of(i, p), i) for p in self.predictions for i in p.instances]


def name_of(instance: Instance, prediction: Prediction) -> str:
    """What an object is called: its own label, else the query; one line of characters that XML can hold."""
    label = instance.label or normalize_query(prediction.query)
    return clean(label)[:MAX_NAME] or "object"


def clean(text: str) -> str:
    """The text in one line, with a replacement character for what XML, YAML and UTF-8 cannot hold."""
    return " ".join(_NOT_TEXT.sub("\ufffd", text).split())


def confidence_of(instance: Instance) -> float | None:
    """How sure the model is of an object, in [0, 1]; None if unknown.

    Its confidence where there is one (with several looks, tiles or verify), else the segmenter's estimate of its
    mask's IoU.
    """
    sure = instance.score if instance.confidence is None else instance.confidence
    return None if sure is None else min(max(float(sure), 0.0), 1.0)


def names_in(pictures: Iterable[Labeled]) -> list[str]:
    """The names of all objects, in the order in which they come up."""
    return list(dict.fromkeys(found.name for picture in pictures for found in picture.objects))


def read_results(results: Path) -> Iterator[tuple[Path, Prediction | None]]:
    """Each line of a results.jsonl: its picture, and the prediction; None where that failed.

    A picture's path counts from the current folder, or else from that of `results`.

    Raises:
        DataError: there is no such file, or a line is none of a result.
    """
    try:
        with results.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_line(line, f"{results}: line {number}", results.parent)
    except OSError as error:
        raise DataError(f"{results}: cannot be read ({error.strerror}); give the results.jsonl of a run") from error


def _read_line(line: bytes, where: str, folder: Path) -> tuple[Path, Prediction | None]:
    try:
        record: Any = json.loads(line)
        file = Path(record["image"])
        found = file if file.exists() else folder / file
        return found, None if "error" in record else Prediction.from_json(record)
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError, VisionReasonerError) as error:
        raise DataError(f"{where} is no result ({one_line(error)}); run it again, or take the line out") from error


def gather(results: Iterable[tuple[Path, Prediction | None]]) -> list[Labeled]:
    """The pictures of results (see `read_results`), each once, with all that is known of it; says what is left out.

    Of several results of one picture and query the last one counts.

    Raises:
        DataError: two results of one picture differ about its size.
    """
    files: dict[str, Path] = {}
    by_file: dict[str, dict[tuple[bool, str], Prediction]] = {}
    again = "a later one is of the same picture and query"
    left_out = {"the picture failed": 0, "the reply could not be used": 0, "the reply lists no objects": 0, again: 0}
    incomplete = 0
    for file, prediction in results:
        if prediction is None:
            left_out["the picture failed"] += 1
        elif not prediction.usable:
            left_out["the reply could not be used"] += 1
        elif prediction.is_count_alone:
            left_out["the reply lists no objects"] += 1
        else:
            incomplete += prediction.task is not Task.VQA and prediction.status not in ("ok", "none")
            place = os.path.realpath(file)
            files.setdefault(place, file)
            asked = prediction.task is Task.VQA, normalize_query(prediction.query)
            left_out[again] += asked in by_file.setdefault(place, {})
            by_file[place][asked] = prediction
    for reason, number in left_out.items():
        if number:
            logger.warning("warning: %d results left out: %s", number, reason)
    if incomplete:
        logger.warning(
            "warning: %d results may lack objects: their replies were cut off or partly unusable", incomplete
        )
    taken: set[str] = set()
    pictures = []
    for place, by_query in by_file.items():
        file, predictions = files[place], list(by_query.values())
        if len({prediction.image_size for prediction in predictions}) > 1:
            raise DataError(f"{file}: its results are of pictures of different sizes; run it again")
        stem = unique_stem(clean(file.stem), taken)
        pictures.append(Labeled(file, stem, predictions[0].image_size, tuple(predictions)))
    return pictures


def without_answers(pictures: Sequence[Labeled]) -> list[Labeled]:
    """The pictures and what was found in them, without questions and their answers."""
    kept = [tuple(p for p in picture.predictions if p.task is not Task.VQA) for picture in pictures]
    return [replace(picture, predictions=found) for picture, found in zip(pictures, kept, strict=True) if found]


def save_pictures(pictures: Sequence[Labeled], folder: Path) -> list[str]:
    """Put the pictures into a folder, as tools read them: upright, as JPEG or PNG. Gives each one's file name.

    A file that is so already is copied as it is.

    Raises:
        ImageError: a picture is missing or damaged.
        DataError: a picture has another size than its results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for picture in pictures:
        image = open_picture(picture.file, picture.size)
        with Image.open(picture.file) as opened:
            ending = keeps_as_it_is(opened)
        name = f"{picture.stem}{ending or '.png'}"
        if ending:
            shutil.copyfile(picture.file, folder / name)
        else:
            image.save(folder / name)
        names.append(name)
    return names


def open_picture(file: Path, size: Size) -> Image.Image:
    """The picture of a result, upright and RGB.

    Args:
        file: it.
        size: (width, height) that the result is of.

    Raises:
        ImageError: it is missing or damaged.
        DataError: it has another size.
    """
    width, height = size
    image = load_image(file, max_pixels=max(MAX_PIXELS, width * height))  # whatever limit it was predicted under
    if image.size != size:
        raise DataError(
            f"{file}: is {image.width}x{image.height}, and its results are of {width}x{height}; "
            "it has changed: run it again"
        )
    return image


def keeps_as_it_is(image: Image.Image) -> str | None:
    """The ending of an opened JPEG or PNG that every program shows as it is stored; None for all other pictures."""
    plain = image.mode in ("RGB", "L") and not image.getexif()
    return _KEPT.get(image.format or "") if plain else None
