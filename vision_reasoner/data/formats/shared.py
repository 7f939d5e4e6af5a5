"""What the readers of all formats share: pictures with entries become `annotations.Instances`; files read safely."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vision_reasoner.data.annotations import (
    UNREADABLE,
    XYXY,
    AnnotatedImage,
    Annotation,
    Instances,
    OnBad,
    check_inside,
    outline_of,
)
from vision_reasoner.errors import DataError, ImageError, UsageError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.images import SUFFIXES

MAX_TEXT_BYTES = 64 * 1024**2  # of one file of annotations
CIRCLE_CORNERS = 64


@dataclass(frozen=True)
class Shape:
    """What one entry says of an object: a box as xyxy edges in pixels, polygons as COCO has them, or both.

    Attributes:
        box: None: that of the polygons.
        polygons: None: a box alone.
        crowd: whether it is to be passed over in evaluation (VOC's "difficult").
    """

    box: XYXY | None = None
    polygons: list[list[float]] | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Entry:
    """An object that is not read yet.

    Attributes:
        category: its name; None where the entry has none.
        read: gives what it says, or raises a ValueError, KeyError or TypeError.
    """

    category: str | None
    read: Callable[[], Shape]


@dataclass(frozen=True)
class Picture:
    """A picture's entries.

    Attributes:
        source: the file that says so, for messages.
        name: of the picture, in its folder.
        size: (width, height).
        entries: in the file's order.
    """

    source: str
    name: str
    size: Size
    entries: list[Entry] = field(default_factory=list)


def renamed(instances: Instances, names: Mapping[str, str]) -> Instances:
    """The same with other names of categories, such as words for abbreviations.

    Categories that have one name, in whatever case, become one.

    Raises:
        UsageError: there is no such category.
    """
    unknown = names.keys() - set(instances.categories.values())
    if unknown:
        there = ", ".join(sorted(instances.categories.values()))
        raise UsageError(f"--rename: there is no category {', '.join(sorted(unknown))}; there are: {there[:300]}")
    return _merged({k: names.get(name, name) for k, name in instances.categories.items()}, instances)


def _merged(names: Mapping[int, str], instances: Instances) -> Instances:
    """The same with these names of categories, of which those with the same name are the first one of them."""
    first: dict[str, int] = {}
    of = {k: first.setdefault(name.casefold(), k) for k, name in names.items()}
    if len(first) == len(names):
        return replace(instances, categories=dict(names))
    annotations = {i: replace(a, category=of[a.category]) for i, a in instances.annotations.items()}
    by_image: dict[int, list[Annotation]] = {}
    for a in annotations.values():
        by_image.setdefault(a.image_id, []).append(a)
    parents: dict[int, frozenset[int]] = {}
    for k, above in instances.parents.items():
        parents[of[k]] = parents.get(of[k], frozenset()) | {of[p] for p in above} - {of[k]}

    def looked_for(there_are_none: Sequence[int]) -> list[int]:
        """What is not there under any of its old categories."""
        others = {of[k] for k in of.keys() - set(there_are_none)}
        return list(dict.fromkeys(of[k] for k in there_are_none if k in of and of[k] not in others))

    negatives = instances.negatives
    return replace(
        instances,
        categories={k: names[k] for k in first.values()},
        annotations=annotations,
        by_image=by_image,
        negatives=None if negatives is None else {i: looked_for(found) for i, found in negatives.items()},
        not_exhaustive={i: frozenset(of.get(k, k) for k in found) for i, found in instances.not_exhaustive.items()},
        parents=parents,
    )


def assemble(
    makers: Iterable[Callable[[], Picture | None]], folder: Path, on_bad: OnBad, names: Iterable[str] = ()
) -> Instances:
    """Instances of pictures; `on_bad` gets what is wrong with those that cannot be made, and with their entries.

    Args:
        makers: of each picture, None where it is not annotated.
        folder: where they lie.
        on_bad: see above.
        names: of categories, in their order; those that are found follow, sorted.
    """
    pictures: list[Picture] = []
    for make in makers:
        try:
            found = make()
        except (DataError, ImageError) as error:
            on_bad(DataError(str(error)))
        except UNREADABLE as error:
            on_bad(DataError(f"{_source_of(make)}: cannot be used ({one_line(error)}); correct it"))
        else:
            pictures += [found] if found else []
    if not pictures:
        raise DataError(f"{folder}: there are no annotated pictures; check the folders")
    known = dict.fromkeys(names)
    known |= dict.fromkeys(sorted({e.category for p in pictures for e in p.entries if e.category} - known.keys()))
    number = {name: k for k, name in enumerate(known, start=1)}
    annotations: dict[int, Annotation] = {}
    by_image: dict[int, list[Annotation]] = {}
    unsure: dict[int, frozenset[int]] = {}
    for i, picture in enumerate(pictures, start=1):
        unsure[i] = frozenset()
        for place, entry in enumerate(picture.entries, start=1):
            try:
                found_one = _annotation(entry, str(len(annotations) + 1), i, number, picture.size)
            except UNREADABLE as error:
                what = f"has no {error}" if isinstance(error, KeyError) else f"is not usable: {error}"
                on_bad(
                    DataError(f"{picture.source}: object {place} {what:.200}; correct it, or leave it out (--skip_bad)")
                )
                unsure[i] |= {number[entry.category]} if entry.category else set(number.values())
            else:
                annotations[len(annotations) + 1] = found_one
                by_image.setdefault(i, []).append(found_one)
    return Instances(
        images={i: AnnotatedImage(str(i), folder, p.name, p.size) for i, p in enumerate(pictures, start=1)},
        categories={k: name.replace("_", " ") for name, k in number.items()},
        annotations=annotations,
        by_image=by_image,
        negatives=None,
        not_exhaustive=unsure,
    )


def _source_of(make: Callable[[], Picture | None]) -> str:
    """The file or task that a maker reads, for messages."""
    arguments = getattr(make, "args", ("",))
    return str(next((a for a in arguments if a), ""))


def _annotation(entry: Entry, id: str, image: int, number: Mapping[str, int], size: Size) -> Annotation:
    """The object of an entry.

    Raises:
        ValueError: it has no class, its box or outline is none, or lies outside its picture.
    """
    if entry.category is None:
        raise ValueError("it has no class, or one that is not listed")
    shape = entry.read()
    outline = outline_of(shape.polygons)
    if shape.box is None and outline is None:
        raise ValueError("its outline has no area")
    box = shape.box if shape.box is not None else box_of([v for part in outline for v in part])
    (x1, y1, x2, y2), (width, height) = box, size
    if not all(map(math.isfinite, box)):
        raise ValueError("a number is none")
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"its box ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) has no area, or its corners are swapped")
    check_inside(box, size)
    inside = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
    return Annotation(id, image, number[entry.category], inside, outline, size, shape.crowd)


def box_of(numbers: Sequence[float]) -> XYXY:
    """The box around corners x, y, x, y, ..."""
    if len(numbers) < 4 or len(numbers) % 2:
        raise ValueError("it has fewer than two corners")
    x, y = numbers[::2], numbers[1::2]
    return min(x), min(y), max(x), max(y)


def ellipse(x: float, y: float, across: float, down: float) -> Iterator[tuple[float, float]]:
    """Corners of an ellipse around (x, y)."""
    for k in range(CIRCLE_CORNERS):
        angle = 2 * math.pi * k / CIRCLE_CORNERS
        yield x + across * math.cos(angle), y + down * math.sin(angle)


def beside(images: Path, stem: str) -> str | None:
    """The name of a picture in a folder, with whatever suffix it has."""
    return next(
        (stem + s for suffix in SUFFIXES for s in (suffix, suffix.upper()) if (images / (stem + s)).is_file()), None
    )


def list_files(folder: str | Path, *suffixes: str) -> list[Path]:
    """The files of a folder with one of the suffixes, by name.

    Raises:
        DataError: there are none.
    """
    try:
        found = sorted(f for f in Path(folder).iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give the folder of the annotations") from error
    if not found:
        raise DataError(
            f"{folder}: has no file {'/'.join('*' + suffix for suffix in suffixes)[:60]}; give another folder"
        )
    return found


def read_bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(f"{file}: has more than {MAX_TEXT_BYTES:,} bytes, so it is no annotation")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error


def read_text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is no text in UTF-8; save it as such") from error
