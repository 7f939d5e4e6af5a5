"""Readers of the formats that annotated images are published in. They give plain data in pixels of the image.

    read_instances   COCO and LVIS v1: one JSON of images, categories and outlines (polygons, run lengths, crowds)
    read_references  refer's RefCOCO, RefCOCO+, RefCOCOg (a pickle) and gRefCOCO (a JSON): phrases for COCO's objects
    read_reasonseg   LISA's ReasonSeg: beside each image a JSON of polygons and the phrases for them
    read_pixmo_count, read_countbench   tables of the Hub: images, what to count, how many there are

Masks are made when they are asked for. A file of another format or a damaged one is a DataError of one line. This
module knows nothing of prompts, of frames, or of what the data is for.
"""

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageDraw

from vision_reasoner.errors import DataError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.images import SUFFIXES, load_image
from vision_reasoner.masks import Mask, decode_mask

XYXY = tuple[float, float, float, float]


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
        """`folder/name`; or where only these are there, the name's last part, or COCO's 2017 name for one of 2014."""
        base = Path(self.name).name
        candidates = [self.folder / self.name, self.folder / base, self.folder / base.rpartition("_")[2]]
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
        return image


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object.

    Attributes:
        id: as published.
        category: id of its category.
        box: xyxy edges in pixels, as published (not computed from the outline).
        segmentation: polygons ([[x, y, x, y, ...], ...]), COCO run lengths ({"size", "counts"}), or None for a box
            alone.
        size: (width, height) of the image.
        crowd: whether it stands for a group that was not told apart.
    """

    id: str
    category: int
    box: XYXY
    segmentation: Any
    size: Size
    crowd: bool = False

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
        try:
            encoded = coco_mask.merge(coco_mask.frPyObjects(self.segmentation, height, width))
            mask: Mask = coco_mask.decode(encoded).astype(np.bool_)
            return mask
        except Exception as error:  # the C extension raises nearly anything
            raise DataError(f"annotation {self.id}: its outline is neither polygons nor run lengths") from error


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
        not_exhaustive: categories of which an image may have more objects than are annotated (LVIS).
    """

    images: dict[int, AnnotatedImage]
    categories: dict[int, str]
    annotations: dict[int, Annotation]
    by_image: dict[int, list[Annotation]]
    negatives: dict[int, list[int]] | None
    not_exhaustive: dict[int, frozenset[int]]

    def absent(self, image_id: int) -> list[int]:
        """Categories of which that image has no object for certain."""
        if self.negatives is not None:
            return self.negatives[image_id]
        present = {a.category for a in self.by_image.get(image_id, ())}
        return [c for c in self.categories if c not in present]

    def objects_of(self, reference: "Reference") -> list[Annotation]:
        """The objects that a reference means.

        Raises:
            DataError: it belongs to other instances.
        """
        try:
            self.images[reference.image_id]
            return [self.annotations[i] for i in reference.objects]
        except KeyError as error:
            raise DataError(
                f"reference {reference.id}: the instances have no picture or annotation {error}; give those that "
                "the references were made for"
            ) from error


@dataclass(frozen=True)
class Reference:
    """Phrases for the same objects of one image.

    Attributes:
        id: as published.
        image_id: id of the image.
        split: "train", "val", "testA", ...
        phrases: at least one.
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
        """
        shapes: list[tuple[str, Mask]] = []
        for label, corners in self.polygons:
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
def read_instances(file: str | Path, folder: str | Path) -> Instances:
    """Read COCO's or LVIS v1's instances.

    Args:
        file: the JSON.
        folder: where the images lie.

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
    try:
        categories = {int(c["id"]): str(c["name"]).replace("_", " ") for c in data["categories"]}
        sizes = {int(i["id"]): (int(i["width"]), int(i["height"])) for i in data["images"]}
        images = {i: AnnotatedImage(str(i), folder, name, sizes[i]) for i, name in _names(data["images"])}
        annotations: dict[int, Annotation] = {}
        by_image: dict[int, list[Annotation]] = {}
        for a in data["annotations"]:
            x, y, w, h = a["bbox"]
            size = sizes[int(a["image_id"])]
            found = Annotation(
                id=str(a["id"]),
                category=int(a["category_id"]),
                box=(x, y, x + w, y + h),
                segmentation=a.get("segmentation"),
                size=size,
                crowd=bool(a.get("iscrowd", 0)),
            )
            if found.category not in categories:
                raise DataError(f"{file}: annotation {found.id} has category {found.category}, which is not listed")
            annotations[int(a["id"])] = found
            by_image.setdefault(int(a["image_id"]), []).append(found)
        not_exhaustive = {int(i["id"]): frozenset(i.get("not_exhaustive_category_ids", ())) for i in data["images"]}
        negatives = None
        if any("neg_category_ids" in i for i in data["images"]):
            negatives = {int(i["id"]): [int(c) for c in i["neg_category_ids"]] for i in data["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: an entry is not as COCO or LVIS has it ({one_line(error)}); get the file again"
        ) from error
    return Instances(images, categories, annotations, by_image, negatives, not_exhaustive)


def _names(images: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """Id and file name; LVIS v1 has the URL alone, whose last folder says which of COCO's it lies in."""
    for image in images:
        yield int(image["id"]), str(image.get("file_name") or "/".join(str(image["coco_url"]).split("/")[-2:]))


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


def read_references(file: str | Path, *, split: str | None = None) -> list[Reference]:
    """Read refer's `refs(*).p` or gRefCOCO's `grefs(*).json`.

    Args:
        file: the pickle or the JSON.
        split: whose references are wanted; None: all.

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
    try:
        references = [_reference(entry) for entry in data]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: an entry is not as refer or gRefCOCO has it ({one_line(error)})") from error
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
    phrases = tuple(s["sent"].strip() for s in entry["sentences"])
    if not all(phrases) or not phrases:
        raise ValueError(f"reference {entry['ref_id']} has no phrase")
    return Reference(str(entry["ref_id"]), int(entry["image_id"]), str(entry["split"]), phrases, objects)


# --- ReasonSeg --------------------------------------------------------------------------------------------------------
def read_reasonseg(folder: str | Path) -> Iterator[ReasonSegImage]:
    """Read a folder of ReasonSeg (`val/`, `test/`, ...), sorted by name.

    Raises:
        DataError: there is no such folder, no JSON in it, a JSON has no image or is of another format.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(f"{folder}: no JSON files here; give a folder of ReasonSeg with pictures and JSON files")
    for file in files:
        data = read_json(file)
        image = next((p for s in SUFFIXES if (p := file.with_suffix(s)).is_file()), None)
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
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{file}: is not as ReasonSeg has it ({one_line(error)}); get it again") from error
        if not phrases:
            raise DataError(f'{file}: has no phrase in "text"; get it again')
        yield ReasonSegImage(AnnotatedImage(file.stem, folder, image.name), phrases, polygons)


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
