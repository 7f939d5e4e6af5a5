"""Readers of the formats that annotated images are published in. They give plain data in pixels of the image.

    read_instances   COCO and LVIS v1: one JSON of images, categories and outlines (polygons, run lengths, crowds)
    read_references  refer's RefCOCO, RefCOCO+, RefCOCOg (a pickle) and gRefCOCO (a JSON): phrases for COCO's objects
    read_reasonseg   LISA's ReasonSeg: beside each image a JSON of polygons and the phrases for them
    read_pixmo_count, read_countbench   tables of the Hub: images, what to count, how many there are

Masks are decoded when they are asked for. A file of another format or a damaged one is a DataError of one line. A
single bad entry goes to the reader's `on_bad`, which raises it by default; where it returns, the entry is left out.
This module knows nothing of prompts, of frames, or of what the data is for.
"""

import json
import logging
import math
import pickle
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from vision_reasoner.errors import DataError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.images import SUFFIXES, load_image
from vision_reasoner.masks import Mask, decode_mask

logger = logging.getLogger(__name__)

XYXY = tuple[float, float, float, float]
T = TypeVar("T")
OnBad = Callable[[DataError], None]
"""Called with what is wrong with an entry; raises it, or returns to have the entry left out."""

UNREADABLE = (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, OSError)
"""What readers of entries raise where these are not as they should be; OSError for a file name that cannot be one."""

MIN_POLYGON = 6  # numbers of a polygon with an area; pycocotools takes parts of 4 for boxes and fills others wrongly
MAX_DISTANCE = 10  # sides of the image that a polygon may reach beyond it; pycocotools' time and memory grow with it
OUTSIDE = 0.02  # of the image's side: boxes that reach farther beyond it are of another image, or another size
_COCO_PREFIX = re.compile(r"COCO_(train|val|test)\d{4}_")  # of the names of 2014 and 2015


def refuse(error: DataError) -> None:
    """The `on_bad` that lets no bad entry pass."""
    raise error


@dataclass(frozen=True)
class AnnotatedImage:
    """An image that is annotated.

    Attributes:
        id: as published; text, since some sets number and some name their images.
        folder: where the images of its set lie.
        name: of the file, or its path in there.
        size: (width, height) that the annotations refer to; None where they do not say.
    """

    id: str
    folder: Path
    name: str
    size: Size | None = None

    @property
    def file(self) -> Path:
        """`folder/name`; or where only these are there, the name's last part, or COCO's 2017 name for one of 2014.

        The name may be a path of Windows.
        """
        path = PureWindowsPath(self.name)  # takes / and \\
        names = [self.name, path.as_posix(), path.name, _COCO_PREFIX.sub("", path.name)]
        candidates = [self.folder / name for name in names]
        return next((path for path in candidates if path.is_file()), candidates[0])

    def open(self) -> Image.Image:
        """The image, upright and RGB.

        Raises:
            ImageError: it is missing or cannot be read.
            DataError: it has another size than its annotations.
        """
        file = self.file
        image = load_image(file)
        if self.size is not None and image.size != self.size:
            turned = "turned by its EXIF orientation, or " if image.size == self.size[::-1] else ""
            raise DataError(
                f"{file}: is {image.width}x{image.height}, but annotated as {self.size[0]}x{self.size[1]} "
                f"({turned}another picture); get the original"
            )
        if self.size is not None:
            _note_orientation(file)
        return image


@lru_cache(maxsize=4096)
def _note_orientation(file: Path) -> None:
    """Warn, once, where an image that could be loaded is turned by EXIF without a change of its size."""
    try:
        with Image.open(file) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - broken metadata raises nearly anything; `load_image` takes the image as upright
        return
    if orientation in range(2, 9):
        logger.warning(
            "%s: its EXIF orientation %d turns or mirrors it, and its size does not tell whether it was annotated so; "
            "the annotations are taken to be for the upright image: look at one",
            file,
            orientation,
        )


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object.

    Attributes:
        id: as published.
        image_id: id of its image.
        category: id of its category.
        box: xyxy edges in pixels, as published (not computed from the outline).
        segmentation: polygons ([[x, y, x, y, ...], ...]) with an area, COCO run lengths ({"size", "counts"}), or None
            for a box alone.
        size: (width, height) of the image.
        crowd: whether it stands for a group that was not told apart.
        area: in square pixels, as published; None: that of the box.
    """

    id: str
    image_id: int
    category: int
    box: XYXY
    segmentation: Any
    size: Size
    crowd: bool = False
    area: float | None = None

    def mask(self) -> Mask:
        """The object's pixels, (H, W) bool, as pycocotools fills its polygons.

        Raises:
            DataError: there is no outline, or it cannot be drawn.
        """
        from pycocotools import mask as coco_mask

        width, height = self.size
        if not self.segmentation:
            raise DataError(
                f"annotation {self.id}: has a box but no outline; to train on boxes alone: --boxes_as_masks"
            )
        if isinstance(self.segmentation, dict) and list(self.segmentation.get("size", ())) != [height, width]:
            raise DataError(f"annotation {self.id}: its run lengths are not of its picture's size ({width}x{height})")
        if isinstance(self.segmentation, dict):
            try:
                return decode_mask(self.segmentation)
            except DataError as error:
                raise DataError(f"annotation {self.id}: {error}") from error
        self._check_polygons()
        try:
            encoded = coco_mask.merge(coco_mask.frPyObjects(self.segmentation, height, width))
            mask: Mask = coco_mask.decode(encoded).astype(np.bool_)
            return mask
        except Exception as error:  # the C extension raises nearly anything
            raise DataError(f"annotation {self.id}: its outline is neither polygons nor run lengths") from error

    def _check_polygons(self) -> None:
        """Refuse what makes pycocotools crash or take all memory."""
        try:
            parts = [np.asarray(part, np.float64) for part in self.segmentation]
        except (TypeError, ValueError):
            parts = []
        if not parts or any(part.ndim != 1 for part in parts):
            raise DataError(f"annotation {self.id}: its outline is neither polygons nor run lengths")
        if any(len(part) % 2 for part in parts):
            raise DataError(f"annotation {self.id}: a polygon has an x without a y")
        limit = MAX_DISTANCE * max(self.size)
        if not all((np.abs(part) <= limit).all() for part in parts):  # NaN is not
            raise DataError(
                f"annotation {self.id}: a polygon has a corner that is no number, or farther away than {MAX_DISTANCE} "
                f"times the size of its picture ({self.size[0]}x{self.size[1]})"
            )


def check_inside(box: XYXY, size: Size) -> None:
    """Check that a box is of a picture of this size.

    Args:
        box: xyxy edges in pixels.
        size: (width, height).

    Raises:
        ValueError: it reaches farther beyond the picture than by OUTSIDE of its side.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    if min(x1 / width, y1 / height) < -OUTSIDE or max(x2 / width, y2 / height) > 1 + OUTSIDE:
        raise ValueError(f"its box ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) leaves its picture of {width}x{height}")


def outline_of(value: Any) -> Any:
    """A segmentation without the parts of polygons that have no area; None where nothing is left."""
    if isinstance(value, list):
        value = [part for part in value if not isinstance(part, list) or len(part) >= MIN_POLYGON]
    return value or None


@dataclass(frozen=True)
class Instances:
    """An instances file of COCO or LVIS.

    Attributes:
        images: by id.
        categories: names by id, as people write them ("bow (weapon)" for LVIS's "bow_(weapon)").
        annotations: by id, in the file's order.
        by_image: annotations of each image, in the file's order.
        negatives: categories that were looked for in an image and are not there (LVIS); None where every category
            was looked for in every image (COCO).
        not_exhaustive: categories of which an image may have more objects than are annotated: those that LVIS names,
            and those of entries that were left out.
        parents: for each category those above it (COCO's supercategory, where it is a category itself).
    """

    images: dict[int, AnnotatedImage]
    categories: dict[int, str]
    annotations: dict[int, Annotation]
    by_image: dict[int, list[Annotation]]
    negatives: dict[int, list[int]] | None
    not_exhaustive: dict[int, frozenset[int]]
    parents: dict[int, frozenset[int]] = field(default_factory=dict)

    def uncertain(self, image_id: int) -> frozenset[int]:
        """Categories of which that image may have more objects than are annotated as such.

        Those that are not exhaustive, and those above a category that is there: who asks for tableware means cups, too.
        """
        above = (self.parents.get(a.category, frozenset()) for a in self.by_image.get(image_id, ()))
        return self.not_exhaustive[image_id].union(*above)

    def absent(self, image_id: int) -> list[int]:
        """Categories of which that image has no object for certain.

        A category is not, if one below it or above it is there: a cup is tableware, and tableware may be a cup. Nor is
        one that others are below and that nothing in the whole file is of: it is a heading, and nobody looked for it.
        """
        there = {a.category for a in self.by_image.get(image_id, ())}
        looked_for = self.categories if self.negatives is None else self.negatives[image_id]
        unknown = there | self.uncertain(image_id) | self._headings
        return [c for c in looked_for if c not in unknown and there.isdisjoint(self.parents.get(c, ()))]

    @cached_property
    def _headings(self) -> set[int]:
        """Categories that others are below and that no object in the file is of."""
        headings = {parent for above in self.parents.values() for parent in above}
        return headings - {a.category for a in self.annotations.values()}

    def objects_of(self, reference: "Reference") -> list[Annotation]:
        """The objects that a reference means.

        Raises:
            DataError: it belongs to other instances.
        """
        try:
            self.images[reference.image_id]
            found = [self.annotations[i] for i in reference.objects]
        except KeyError as error:
            raise DataError(
                f"reference {reference.id}: the instances have no picture or annotation {error}; give those that "
                "the references were made for"
            ) from error
        for a in found:
            if a.image_id != reference.image_id:
                raise DataError(
                    f"reference {reference.id}: is of picture {reference.image_id}, but its annotation {a.id} is of "
                    f"picture {a.image_id}; give the instances that the references were made for"
                )
        return found


@dataclass(frozen=True)
class Reference:
    """Phrases for the same objects of one image.

    Attributes:
        id: as published.
        image_id: id of the image.
        split: "train", "val", "testA", ...
        phrases: at least one, where it comes from `read_references`.
        objects: ids of the annotations that are meant; none where nothing in the image is.
    """

    id: str
    image_id: int
    split: str
    phrases: tuple[str, ...]
    objects: tuple[int, ...]


@dataclass(frozen=True)
class ReasonSegImage:
    """An image of ReasonSeg: phrases that all mean the same region.

    Attributes:
        image: without a size, for the JSON has none.
        phrases: at least one.
        polygons: (label, [(x, y), ...]) in the file's order; the label says "target" or "ignore".
    """

    image: AnnotatedImage
    phrases: tuple[str, ...]
    polygons: list[tuple[str, list[tuple[int, int]]]] = field(repr=False)

    def masks(self, size: Size) -> tuple[Mask, Mask]:
        """The target and what is to be ignored, each (H, W) bool, apart from each other.

        As LISA paints them: corners cut to whole pixels, outline and inside, the largest shape first, so that a small
        one on top of a large one counts. (Its OpenCV and our Pillow differ in 3 of 10,000 of a shape's pixels.)

        Args:
            size: (width, height) of the image.

        Raises:
            DataError: a corner lies far outside.
        """
        shapes: list[tuple[str, Mask]] = []
        limit = MAX_DISTANCE * max(size)
        for label, corners in self.polygons:
            if any(abs(value) > limit for corner in corners for value in corner):
                raise DataError(
                    f"{self.image.file}: a polygon has a corner farther away than {MAX_DISTANCE} times the picture's "
                    f"size ({size[0]}x{size[1]}); correct it"
                )
            canvas = Image.new("1", size)
            draw = ImageDraw.Draw(canvas)
            if len(corners) > 1:
                draw.polygon(corners, fill=1, outline=1)
            draw.line([*corners, corners[0]], fill=1)
            shapes.append((label, np.array(canvas)))
        target = np.zeros(size[::-1], np.bool_)
        ignore = np.zeros(size[::-1], np.bool_)
        for label, shape in sorted(shapes, key=lambda found: -int(found[1].sum())):
            over, under = (ignore, target) if "ignore" in label.lower() else (target, ignore)
            over |= shape
            under &= ~shape
        return target, ignore


@dataclass(frozen=True)
class CountedImage:
    """An image of a counting set: `source` is a file's bytes, or the address it is published at.

    Attributes:
        id: of the image.
        source: bytes, or a URL.
        what: a noun (PixMo-Count) or a whole question (CountBench).
        count: how many there are.
    """

    id: str
    source: bytes | str = field(repr=False)
    what: str
    count: int


# --- COCO, LVIS -------------------------------------------------------------------------------------------------------
def read_instances(file: str | Path, folder: str | Path, *, on_bad: OnBad = refuse) -> Instances:
    """Read COCO's or LVIS v1's instances.

    Where the annotation of an image is left out, its category is not exhaustive in that image; without a category that
    is listed, all of them are.

    Args:
        file: the JSON.
        folder: where the images lie.
        on_bad: gets what is wrong with a category, an image or an annotation.

    Raises:
        DataError: it is missing, no JSON, or not of this format.
    """
    file, folder = Path(file), Path(folder)
    data = read_json(file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(f'{file}: is no COCO or LVIS instances file (no list "{key}"); give another')
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that the pictures lie in")
    categories = dict(_entries(file, data["categories"], "category", _category, on_bad))
    images: dict[int, AnnotatedImage] = {}
    negatives: dict[int, list[int] | None] = {}
    not_exhaustive: dict[int, frozenset[int]] = {}
    for number, (name, size, absent, unsure) in _entries(file, data["images"], "image", _image, on_bad):
        images[number] = AnnotatedImage(str(number), folder, name, size)
        negatives[number], not_exhaustive[number] = absent, unsure
    annotations: dict[int, Annotation] = {}
    by_image: dict[int, list[Annotation]] = {}
    read = partial(_annotation, images=images, categories=categories)
    for number, found in _entries(file, data["annotations"], "annotation", read, on_bad):
        annotations[number] = found
        by_image.setdefault(found.image_id, []).append(found)
    for entry in data["annotations"] if len(annotations) < len(data["annotations"]) else ():
        image, category = _number(entry, "image_id"), _number(entry, "category_id")
        if image in not_exhaustive and _number(entry, "id") not in annotations:
            not_exhaustive[image] |= {category} if category in categories else categories.keys()
    said = any(found is not None for found in negatives.values())
    return Instances(
        images=images,
        categories={number: name for number, (name, _) in categories.items()},
        annotations=annotations,
        by_image=by_image,
        negatives={number: found or [] for number, found in negatives.items()} if said else None,
        not_exhaustive=not_exhaustive,
        parents=_parents(categories),
    )


def instances_json(instances: Instances, asked: Collection[tuple[int, int]]) -> dict[str, Any]:
    """What a table's rows ask for as COCO's JSON; an outline stays one, and boxes alone have none.

    Objects that no row asks for would count as missed in figures that divide by all of a file.

    Args:
        instances: that the rows are of.
        asked: the ids of image and category of each row.
    """
    images = {image for image, _ in asked}
    return {
        "images": [
            {"id": number, "file_name": image.name, "width": image.size[0], "height": image.size[1]}
            for number, image in instances.images.items()
            if number in images and image.size is not None
        ],
        "categories": [{"id": number, "name": name} for number, name in instances.categories.items()],
        "annotations": [
            {
                "id": number,
                "image_id": a.image_id,
                "category_id": a.category,
                "bbox": [a.box[0], a.box[1], a.box[2] - a.box[0], a.box[3] - a.box[1]],
                "area": (a.box[2] - a.box[0]) * (a.box[3] - a.box[1]) if a.area is None else a.area,
                "iscrowd": int(a.crowd),
                "segmentation": a.segmentation or [],
            }
            for number, a in instances.annotations.items()
            if (a.image_id, a.category) in asked
        ],
    }


def _entries(
    file: Path, entries: Sequence[Any], kind: str, read: Callable[[Any], T], on_bad: OnBad
) -> Iterator[tuple[int, T]]:
    """Id and content of each entry that `read` can read and whose id no other entry has.

    Args:
        file: that they are from.
        entries: of one of its lists.
        kind: what they are, for messages.
        read: gives an entry's content, or raises.
        on_bad: gets what is wrong with the others.
    """
    used = Counter(_number(entry, "id") for entry in entries)
    for place, entry in enumerate(entries, start=1):
        number = _number(entry, "id")
        try:
            if number is None:
                raise ValueError('it has no "id" that is a number')
            if used[number] > 1:
                raise ValueError("another one has the same id")
            content = read(entry)
        except UNREADABLE as error:
            name = f"number {place}" if number is None else number
            what = f'has no "{error.args[0]}"' if isinstance(error, KeyError) else f"is not usable: {error}"
            on_bad(DataError(f"{file}: {kind} {name} {what:.200}; correct it, or leave it out (--skip_bad)"))
        else:
            yield number, content


def _category(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Its name, and the name of the category above it."""
    return str(entry["name"]).replace("_", " "), str(entry.get("supercategory", "")).replace("_", " ")


def _image(entry: Mapping[str, Any]) -> tuple[str, Size, list[int] | None, frozenset[int]]:
    """File name, size, categories that are not there (None: not said), and categories that are not exhaustive.

    LVIS v1 has the URL alone, whose last folder says which of COCO's the file lies in.
    """
    name = str(entry.get("file_name") or "/".join(str(entry["coco_url"]).split("/")[-2:]))
    size = int(entry["width"]), int(entry["height"])
    if min(size) < 1:
        raise ValueError(f"it is {size[0]}x{size[1]}")
    absent = [int(c) for c in entry["neg_category_ids"]] if "neg_category_ids" in entry else None
    return name, size, absent, frozenset(entry.get("not_exhaustive_category_ids", ()))


def _annotation(
    entry: Mapping[str, Any], images: Mapping[int, AnnotatedImage], categories: Mapping[int, Any]
) -> Annotation:
    image, category = _number(entry, "image_id"), _number(entry, "category_id")
    if image is None or image not in images:
        raise ValueError(f"it is of image {entry['image_id']!s:.40}, which is not listed")
    if category is None or category not in categories:
        raise ValueError(f"it has category {entry['category_id']!s:.40}, which is not listed")
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)) or min(box[2:]) < 0:
        raise ValueError(f'its "bbox" is {box!s:.60} and not [x, y, width, height]')
    x, y, w, h = box
    size = images[image].size
    assert size is not None
    edges = (x, y, x + w, y + h)
    check_inside(edges, size)
    return Annotation(
        id=str(entry["id"]),
        image_id=image,
        category=category,
        box=edges,
        segmentation=outline_of(entry.get("segmentation")),
        size=size,
        crowd=bool(entry.get("iscrowd", 0)),
        area=float(entry["area"]) if _is_finite(entry.get("area")) and entry["area"] >= 0 else None,
    )


def _number(entry: Any, key: str) -> int | None:
    """An id of an entry; None where it has none."""
    try:
        return int(entry[key])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parents(categories: Mapping[int, tuple[str, str]]) -> dict[int, frozenset[int]]:
    """For each category all those above it, by the names that others give as their supercategory."""
    by_name: dict[str, set[int]] = {}
    for number, (name, _) in categories.items():
        by_name.setdefault(name.casefold(), set()).add(number)
    parents = {}
    for number in categories:
        found: set[int] = set()
        new = {number}
        while new:
            new = {p for n in new for p in by_name.get(categories[n][1].casefold(), ())} - found - {number}
            found |= new
        parents[number] = frozenset(found)
    return parents


# --- refer, gRefCOCO --------------------------------------------------------------------------------------------------
class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, text and numbers; whatever would have to be imported is refused, so that nothing is run."""

    def __init__(self, file: Any, name: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")  # written by Python 2, whose str are bytes
        self.name = name

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(
            f"{self.name}: wants {module}.{name} imported, which lists of references never do; it may be malicious: "
            "get it from refer's authors"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError(f"{self.name}: refers to something outside it ({pid!r:.40}); get it from refer's authors")


def read_references(file: str | Path, *, split: str | None = None, on_bad: OnBad = refuse) -> list[Reference]:
    """Read refer's `refs(*).p` or gRefCOCO's `grefs(*).json`.

    References without a sentence, which gRefCOCO as published has, are passed over with a warning.

    Args:
        file: the pickle or the JSON.
        split: whose references are wanted; None: all.
        on_bad: gets what is wrong with a reference.

    Raises:
        DataError: it is missing, damaged, of another format, a pickle of more than plain data, or without that split.
    """
    file = Path(file)
    if file.suffix == ".json":
        data = read_json(file)
    else:
        with _open(file) as opened:
            try:
                data = _PlainUnpickler(opened, file).load()
            except DataError:
                raise
            except Exception as error:  # damaged pickles raise nearly anything
                raise DataError(f"{file}: is no pickle, or damaged ({one_line(error)}); get it again") from error
    if not isinstance(data, list):
        raise DataError(f"{file}: is no list of references as refer or gRefCOCO has it; give another")
    references: list[Reference] = []
    silent: list[Reference] = []
    for place, entry in enumerate(data, start=1):
        try:
            reference = _reference(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"reference number {place} is not as refer or gRefCOCO has it ({one_line(error)})"
            on_bad(DataError(f"{file}: {what}; correct it, or leave it out (--skip_bad)"))
            continue
        (references if reference.phrases else silent).append(reference)
    silent = [r for r in silent if split in (None, r.split)]
    if silent:
        ids = ", ".join(r.id for r in silent[:5]) + (", ..." if len(silent) > 5 else "")
        logger.warning(
            "%s: %d of %d references have no sentence and are passed over: %s", file, len(silent), len(data), ids
        )
    if split is None:
        return references
    found = [r for r in references if r.split == split]
    if not found:
        there = ", ".join(sorted({r.split for r in references})) or "none"
        raise DataError(f"{file}: has no split {split!r}; it has {there}")
    return found


def _reference(entry: Mapping[str, Any]) -> Reference:
    ids = entry["ann_id"] if isinstance(entry["ann_id"], list) else [entry["ann_id"]]
    objects = () if entry.get("no_target") else tuple(int(i) for i in ids if int(i) != -1)
    phrases = tuple(phrase for s in entry["sentences"] if (phrase := s["sent"].strip()))
    return Reference(str(entry["ref_id"]), int(entry["image_id"]), str(entry["split"]), phrases, objects)


# --- ReasonSeg --------------------------------------------------------------------------------------------------------
def read_reasonseg(folder: str | Path, *, keep_empty: bool = False, on_bad: OnBad = refuse) -> Iterator[ReasonSegImage]:
    """Read a folder of ReasonSeg (`val/`, `test/`, ...), sorted by name.

    A JSON without a target polygon does not say whether there is nothing to find or the polygon was lost.

    Args:
        folder: of images and JSON files.
        keep_empty: take a JSON without a target polygon as one with nothing to find; it is left out otherwise. Either
            way there is a warning.
        on_bad: gets what is wrong with a JSON file.

    Raises:
        DataError: there is no such folder, or no JSON in it.
    """
    folder = Path(folder)
    there = sorted(path for path in folder.glob("*") if not path.name.startswith("._"))  # of macOS
    files = [path for path in there if path.suffix.lower() == ".json"]
    if not files:
        raise DataError(f"{folder}: no JSON files here; give a folder of ReasonSeg with pictures and JSON files")
    images: dict[str, Path] = {}
    for path in there:
        if path.suffix.lower() in SUFFIXES and path.is_file():
            images.setdefault(path.stem, path)
    for file in files:
        try:
            found = _reasonseg(file, images.get(file.stem))
        except DataError as error:
            on_bad(error)
            continue
        if not any("ignore" not in label.lower() for label, _ in found.polygons):
            action = "taken as nothing to find" if keep_empty else "left out (--keep_empty takes it as nothing to find)"
            logger.warning("%s: has no target polygon; %s", file, action)
            if not keep_empty:
                continue
        yield found


def _reasonseg(file: Path, image: Path | None) -> ReasonSegImage:
    data = read_json(file)
    if image is None:
        raise DataError(f"{file}: no picture of the same name beside it; get the data set again")
    try:
        texts = [data["text"]] if isinstance(data["text"], str) else data["text"]
        phrases = tuple(text.strip() for text in texts if text.strip())
        polygons = [
            (str(shape["label"]), [(int(x), int(y)) for x, y in shape["points"]])
            for shape in data["shapes"]
            if shape["label"].lower() != "flag" and shape["points"]  # flags are left-overs without a meaning
        ]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"{file}: is not as ReasonSeg has it ({one_line(error)}); get it again") from error
    if not phrases:
        raise DataError(f'{file}: has no phrase in "text"; get it again')
    return ReasonSegImage(AnnotatedImage(file.stem, image.parent, image.name), phrases, polygons)


# --- counting sets ----------------------------------------------------------------------------------------------------
def read_pixmo_count(rows: Iterable[Mapping[str, Any]]) -> Iterator[CountedImage]:
    """Read rows of allenai/pixmo-count (image_url, image_sha256, count, label): images are addresses, ids digests.

    Copies of it that have the images too (a column `image`, not decoded) are read as well.

    Raises:
        DataError: a column is missing or empty.
    """
    for number, row in enumerate(rows):
        what, count, digest = _columns(row, number, "PixMo-Count", ("label", "count", "image_sha256"))
        source = _bytes(row) or _columns(row, number, "PixMo-Count", ("image_url",))[0]
        yield CountedImage(str(digest), source, str(what).strip(), int(count))


def read_countbench(rows: Iterable[Mapping[str, Any]]) -> Iterator[CountedImage]:
    """Read rows of vikhyatk/CountBenchQA (image, text, question, number), the image not decoded.

    CountBench itself has captions without questions, and they tell the number: they are no requests.

    Raises:
        DataError: a column is missing or empty.
    """
    for number, row in enumerate(rows):
        what, count = _columns(row, number, "CountBenchQA", ("question", "number"))
        source = _bytes(row)
        if not source:
            raise DataError(f"row {number}: has no picture in its column `image`; get the data set again")
        yield CountedImage(str(number), source, str(what).strip(), int(count))


def _columns(row: Mapping[str, Any], number: int, kind: str, names: Sequence[str]) -> list[Any]:
    for name in names:
        if row.get(name) in (None, ""):
            raise DataError(
                f"row {number}: has no `{name}`, so this is not {kind} as published; columns: {sorted(row)}"
            )
    return [row[name] for name in names]


def _bytes(row: Mapping[str, Any]) -> bytes | None:
    image = row.get("image")
    return image.get("bytes") if isinstance(image, Mapping) else None


# --- files ------------------------------------------------------------------------------------------------------------
def read_json(file: Path) -> Any:
    """What a JSON file holds; ReasonSeg's are partly in Windows' encoding.

    Raises:
        DataError: it is missing or no JSON.
    """
    with _open(file) as opened:
        data = opened.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            try:
                return json.loads(data.decode("cp1252"))
            except ValueError:
                pass
        raise DataError(f"{file}: is no JSON ({one_line(error)}); get it again") from error


def _open(file: Path) -> Any:
    try:
        return file.open("rb")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
