"""Average precision of a run: its boxes against an instances file, ranked as either protocol has it.

Other figures are sums over samples (`suite.measure`); this one ranks the boxes of all of them (`metrics.coco`).
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.metrics import coco
from evaluation.metrics.bootstrap import Estimate
from evaluation.runner.records import INSTANCES, read_json
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Metric, Record
from evaluation.suite import PROTOCOLS, Protocol, figure_json
from vision_reasoner.errors import DataError, one_line

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
    def from_json(cls, data: Mapping[str, Any]) -> "Annotations":
        """What `to_json` gave; or an instances file of COCO's, whose numbers are the image ids."""
        images = [{"id": int(image["id"])} for image in data["images"]]
        numbers = {str(image.get("image_id", image["id"])): int(image["id"]) for image in data["images"]}
        kept = ("image_id", "category_id", "bbox", "area", "iscrowd")
        annotations = [{key: one[key] for key in kept if key in one} for one in data["annotations"]]
        categories = [{"id": int(category["id"]), "name": str(category["name"])} for category in data["categories"]]
        return cls({"images": images, "annotations": annotations, "categories": categories}, numbers)


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
    try:
        annotations = Annotations.from_json(read_json(file))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: is no instances file as COCO has it ({one_line(error)}); give another") from error
    if strange := sorted(set(samples.image_ids or ()) - annotations.numbers.keys()):
        raise DataError(
            f"{file}: has not {len(strange)} of the images of {samples.source.path} (first: {strange[0]}); give the "
            "instances file of this set"
        )
    return annotations


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
        protocol: "official" ranks by likelihood and looks at what was asked alone; "upstream" ranks by area and counts
            every box of the set.

    Raises:
        DataError: a record is about an image that the annotations do not have.
    """
    asked, detections = [], []
    for record in records:
        if record["image_id"] not in annotations.numbers:
            raise DataError(f"image {record['image_id']} is not in the annotations; give those of this set")
        number, category = annotations.numbers[record["image_id"]], record["truth"]["category_id"]
        asked.append((number, category))
        for instance in record["instances"]:
            if protocol == "upstream":
                score = coco.area_ratio(instance["box"], record["size"])
            elif instance["likelihood"] is None:
                return None
            else:
                score = math.exp(instance["likelihood"])
            detections.append(coco.detection(number, category, instance["box"], score))
    return coco.coco_scores(annotations.instances, detections, asked=asked if protocol == "official" else None)


def measure_ranking(annotations: Annotations, records: Sequence[Record]) -> list[Metric]:
    """Average precision in both protocols, with intervals where there are any."""
    found = []
    for protocol in PROTOCOLS:
        ranked = rank(annotations, records, protocol)
        for name in NAMES:
            if ranked is None:
                estimate = Estimate(math.nan, math.nan, math.nan)
            elif name in coco.THRESHOLDS:
                estimate = coco.interval(ranked, name)
            else:
                estimate = Estimate(ranked.figures[name], math.nan, math.nan)
            found.append(
                figure_json(f"COCO {name}", protocol, estimate, 0 if ranked is None else len(ranked.image_ids))
            )
    return found
