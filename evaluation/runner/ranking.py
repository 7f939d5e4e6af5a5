"""Average precision of a run: its boxes against an instances file, ranked as either protocol has it.

Other figures are sums over samples (`suite.measure`); this one ranks the boxes of all of them (`metrics.coco`).
"""

import logging
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.metrics import coco
from evaluation.metrics.intervals import Estimate
from evaluation.runner.records import INSTANCES
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Manifest, Metric, Record
from evaluation.suite import PROTOCOLS, Protocol, figure_json, plain_name
from evaluation.truth import FieldError, id_of, id_text
from vision_reasoner.data.annotations import read_json
from vision_reasoner.data.sources import Row, check_json_size
from vision_reasoner.errors import DataError

logger = logging.getLogger(__name__)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


@dataclass(frozen=True)
class Annotations:
    """What COCO's scoring compares with: an instances file without outlines.

    Attributes:
        instances: `images`, `annotations`, `categories`.
        numbers: COCO's number of each image id.
    """

    instances: dict[str, Any]
    numbers: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """`instances`, with our image id beside each number."""
        ids = {number: image_id for image_id, number in self.numbers.items()}
        images = [{"id": image["id"], "image_id": ids[image["id"]]} for image in self.instances["images"]]
        return {**self.instances, "images": images}

    @classmethod
    def from_json(cls, data: Any) -> "Annotations":
        """What `to_json` gave; or an instances file of COCO's, whose numbers are the image ids.

        Ids may be numbers or text, but every image and category has one of its own, and every annotation is of a listed
        image and category and has a box.

        Raises:
            ValueError: it is not so.
        """
        images: list[dict[str, Any]] = []
        numbers: dict[str, int] = {}
        for place, entry in _entries(data, "images"):
            number = _id(entry, "id", f"image {place}")
            name = id_text(entry.get("image_id", number))
            if name is None or name in numbers:
                raise ValueError(f"image {place}: its id {name} is no id, or is that of another image")
            numbers[name] = number
            images.append({"id": number})
        if len({image["id"] for image in images}) < len(images):
            raise ValueError("several images have the same id")
        categories: list[dict[str, Any]] = [
            {"id": _id(entry, "id", f"category {place}"), "name": str(entry.get("name"))}
            for place, entry in _entries(data, "categories")
        ]
        known = {category["id"] for category in categories}
        if len(known) < len(categories):
            raise ValueError("several categories have the same id")
        listed = set(numbers.values())
        annotations = [_annotation(entry, place, listed, known) for place, entry in _entries(data, "annotations")]
        return cls({"images": images, "annotations": annotations, "categories": categories}, numbers)


def _entries(data: Any, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of one of an instances file's lists, numbered from 1."""
    entries = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError(f'it has no list "{key}"')
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{key}: entry {place} is no object")
        yield place, entry


def _id(entry: Mapping[str, Any], key: str, name: str) -> int:
    try:
        return id_of(entry, key)
    except KeyError:
        raise ValueError(f'{name}: has no "{key}"') from None
    except FieldError as error:
        raise ValueError(f"{name}: {error}") from error


def _annotation(entry: Mapping[str, Any], place: int, images: Container[int], categories: Container[int]) -> Row:
    """What of an annotation is scored against, its ids as numbers."""
    name = f"annotation {place}" + (f" (id {entry['id']!s:.40})" if "id" in entry else "")
    image, category = _id(entry, "image_id", name), _id(entry, "category_id", name)
    if image not in images:
        raise ValueError(f"{name}: it is of image {image}, which is not listed")
    if category not in categories:
        raise ValueError(f"{name}: it has category {category}, which is not listed")
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box)) and min(box[2:]) >= 0):
        raise ValueError(f'{name}: its "bbox" is {box!s:.60}; expected [x, y, width, height]')
    found: Row = {"image_id": image, "category_id": category, "bbox": box}
    for key in ("area", "iscrowd"):
        if key in entry:
            if not _is_finite(entry[key]) or entry[key] < 0:
                raise ValueError(f'{name}: its "{key}" is {entry[key]!s:.60}; expected a number')
            found[key] = entry[key]
    return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def annotations_of(samples: Samples) -> Annotations:
    """Made from the rows' own boxes, for sets without an instances file: no crowds, areas are those of the boxes."""
    numbers: dict[str, int] = {}
    annotations = []
    categories: dict[int, str] = {}
    for index in range(samples.source.n):
        sample = samples[index]
        if sample.problem:
            continue
        number = numbers.setdefault(sample.image_id, len(numbers) + 1)
        category = sample.truth["category_id"]
        categories.setdefault(category, sample.query)
        annotations += [
            {"image_id": number, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            for x1, y1, x2, y2 in sample.truth["boxes"]
        ]
    instances = {
        "images": [{"id": number} for number in numbers.values()],
        "annotations": annotations,
        "categories": [{"id": category, "name": name} for category, name in sorted(categories.items())],
    }
    return Annotations(instances, numbers)


def read_annotations(file: Path | None, samples: Samples) -> Annotations:
    """The annotations of a data set: an instances file's, or where there is none the rows' own boxes.

    Raises:
        DataError: the file is no instances file, or not this set's.
    """
    if file is None:
        return annotations_of(samples)
    annotations = load_annotations(file)
    if strange := sorted({*(samples.image_ids or ()), ""} - {""} - annotations.numbers.keys()):
        raise DataError(
            f"{file}: has not {len(strange)} of the images of {samples.source.path} (first: {strange[0]}); give the "
            "instances file of this set"
        )
    _check_categories(file, annotations, samples)
    return annotations


def load_annotations(file: Path) -> Annotations:
    """An instances file.

    Raises:
        DataError: it cannot be read, or is none.
    """
    check_json_size(file)
    try:
        return Annotations.from_json(read_json(file))
    except ValueError as error:
        raise DataError(f"{file}: cannot be scored against ({error}); put it right, or give another") from error


def _check_categories(file: Path, annotations: Annotations, samples: Samples) -> None:
    """Refuse rows whose category id is no category of the file, or that of another name in the file.

    Sets number the same categories differently (1 to 90, 0 to 79); a name that is a category's must have its number.

    Raises:
        DataError: there is such a row.
    """
    names = {category["id"]: plain_name(category["name"]) for category in annotations.instances["categories"]}
    numbers = {name: number for number, name in names.items()}
    column = samples.columns["cat_id"]
    for index, (value, query) in enumerate(zip(samples.source.column(column), samples.queries, strict=True)):
        try:
            category = id_of({"cat_id": value}, "cat_id")
        except FieldError:
            continue  # an error of the row
        where, asked = f"{file}: row {index} of {samples.source.path} has {column} {category}", plain_name(query)
        if category not in names:
            raise DataError(f"{where}, which is no category there; give the instances file of this set")
        if asked and asked != names[category] and asked in numbers:
            raise DataError(
                f"{where} for {query[:60]!r}, which is category {numbers[asked]} there: the numbering is another; give "
                "the instances file of this set"
            )


def find_annotations(given: str | None, data: str) -> Path | None:
    """The instances file: the given one, or that beside the data set; None where there is none.

    Raises:
        DataError: the given one is not there.
    """
    if given is not None:
        if not Path(given).is_file():
            raise DataError(f"{given}: there is no such file; check --annotations")
        return Path(given).resolve()
    path = Path(data)
    beside = (path if path.is_dir() else path.parent) / INSTANCES
    if path.exists() and beside.is_file():
        return beside
    logger.info("No instances file: the rows' own boxes are scored against, without crowds (--annotations)")
    return None


def rank(annotations: Annotations, records: Iterable[Record], protocol: Protocol) -> coco.CocoScores | None:
    """COCO's figures. None where a box has no likelihood to be ranked by.

    Args:
        annotations: of the whole set.
        records: those without an error, in the order of the data set.
        protocol: "official" ranks by confidence, where several looks tell it, otherwise by likelihood, and looks at
            what was asked alone; "upstream" ranks by area and counts every box of the set.

    Raises:
        DataError: a record is about an image that the annotations do not have, or about no category.
    """
    asked, detections = [], []
    for record in records:
        if record["image_id"] not in annotations.numbers:
            raise DataError(f"image {record['image_id']} is not in the annotations; give those of this set")
        number, category = annotations.numbers[record["image_id"]], record["truth"].get("category_id")
        if not isinstance(category, int):
            raise DataError(f"sample {record['id']}: has no category; run with --overwrite")
        asked.append((number, category))
        for instance in record["instances"]:
            if protocol == "upstream":
                score = coco.area_ratio(instance["box"], record["size"])
            elif (confidence := instance.get("confidence")) is not None:
                score = confidence
            elif (likelihood := instance.get("likelihood")) is None:
                return None
            else:
                score = math.exp(likelihood)
            detections.append(coco.detection(number, category, instance["box"], score))
    return coco.coco_scores(annotations.instances, detections, asked=asked if protocol == "official" else None)


def ranked_protocols(manifest: Manifest, n: int) -> tuple[Protocol, ...]:
    """Those in which the average precision of `n` scored samples means something.

    Upstream divides by all true boxes of the set, so that there is no such figure where some of it is not scored.
    """
    return PROTOCOLS if n >= manifest["data"]["rows"] else ("official",)


def measure_ranking(
    annotations: Annotations, records: Sequence[Record], protocols: Sequence[Protocol] = PROTOCOLS
) -> list[Metric]:
    """Average precision, with intervals where there are any."""
    found = []
    for protocol in protocols:
        ranked = rank(annotations, records, protocol)
        none = Estimate(math.nan, math.nan, math.nan)
        estimates = {} if ranked is None else coco.intervals(ranked)
        n = 0 if ranked is None else len(ranked.image_ids)
        for name in NAMES:
            estimate = estimates.get(name, none._replace(value=ranked.figures[name]) if ranked else none)
            found.append(figure_json(f"COCO {name}", protocol, estimate, n, n_of="images"))
    return found
