"""Small data sets written to disk in the formats of the official releases, with what is in them known.

All pictures are 200 x 100. COCO's and LVIS's picture 1 has a cat, two dogs and a crowd of sheep, picture 2 a cat.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tests.conftest import noise

SIZE = (200, 100)
CAT, DOG, SHEEP, BAT = 1, 2, 3, 4
CATEGORIES = {CAT: "cat", DOG: "dog", SHEEP: "sheep", BAT: "baseball_bat"}
# x1, y1, x2, y2 of the annotations 11 to 15; the masks are these rectangles, x2 and y2 not inside
RECTANGLES = {
    11: (40, 20, 80, 60),
    12: (100, 10, 140, 50),
    13: (150, 40, 190, 90),
    14: (0, 80, 60, 100),
    15: (20, 10, 120, 90),
}
NAMES_2014 = {1: "COCO_train2014_000000000001.jpg", 2: "COCO_train2014_000000000002.jpg"}


def rectangle(annotation: int) -> np.ndarray:
    """The (H, W) bool mask of an annotation."""
    x1, y1, x2, y2 = RECTANGLES[annotation]
    mask = np.zeros(SIZE[::-1], np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def write_pictures(folder: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise(*SIZE, seed=seed).save(folder / name)
    return folder


def _polygon(annotation: int) -> list[list[int]]:
    x1, y1, x2, y2 = RECTANGLES[annotation]
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def run_lengths(mask: np.ndarray, *, compressed: bool) -> dict[str, Any]:
    """COCO's run lengths, down the columns, beginning with a run of zeros."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    values = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], values])))
    counts = np.diff(np.concatenate([[0], edges, [values.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def instances(**changes: Any) -> dict[str, Any]:
    """COCO's instances: polygons, run lengths of both kinds, a crowd."""
    outlines = {
        11: _polygon(11),
        12: run_lengths(rectangle(12), compressed=True),
        13: _polygon(13),
        14: run_lengths(rectangle(14), compressed=False),
        15: _polygon(15),
    }
    kinds = {11: (1, CAT), 12: (1, DOG), 13: (1, DOG), 14: (1, SHEEP), 15: (2, CAT)}
    annotations = []
    for number, (x1, y1, x2, y2) in RECTANGLES.items():
        image, category = kinds[number]
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "segmentation": outlines[number],
                "iscrowd": int(number == 14),
            }
        )
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": 200, "height": 100} for i in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in CATEGORIES.items()],
        **changes,
    }


def write_coco(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """The instances JSON and the folder of pictures."""
    write_pictures(folder / "val2017", [f"{i:012d}.jpg" for i in (1, 2)])
    return write_json(folder / "instances_val2017.json", instances(**changes)), folder / "val2017"


def write_lvis(folder: Path) -> tuple[Path, Path]:
    """LVIS v1: URLs instead of names, categories that were looked for in vain, others not annotated to the end."""
    data = instances()
    for image in data["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image["neg_category_ids"] = [BAT]
        image["not_exhaustive_category_ids"] = [DOG] if image["id"] == 1 else []
    data["annotations"] = [a for a in data["annotations"] if not a.pop("iscrowd")]
    data["categories"] = [
        {"id": i, "name": name, "synonyms": [name], "def": "", "frequency": "f"} for i, name in CATEGORIES.items()
    ]
    write_pictures(folder / "coco", [f"train2017/{i:012d}.jpg" for i in (1, 2)])
    return write_json(folder / "lvis_v1_train.json", data), folder / "coco"


def references() -> list[dict[str, Any]]:
    """refer's references: two phrases for the cat, one for the right dog; in another split one for the large cat."""
    entries = [
        (1, 1, 11, CAT, "train", ["the cat", "cat on the left"]),
        (2, 1, 13, DOG, "train", ["right dog"]),
        (3, 2, 15, CAT, "val", ["large cat"]),
    ]
    return [
        {
            "ref_id": ref,
            "ann_id": annotation,
            "image_id": image,
            "category_id": category,
            "split": split,
            "file_name": NAMES_2014[image].replace(".jpg", f"_{ref}.jpg"),
            "sent_ids": list(range(len(phrases))),
            "sentences": [
                {"sent_id": i, "raw": p.title(), "sent": p, "tokens": p.split()} for i, p in enumerate(phrases)
            ],
        }
        for ref, image, annotation, category, split, phrases in entries
    ]


def write_refer(folder: Path) -> tuple[Path, Path, Path]:
    """The pickle, the instances JSON and the pictures of COCO 2014."""
    images = [{"id": i, "file_name": name, "width": 200, "height": 100} for i, name in NAMES_2014.items()]
    write_pictures(folder / "train2014", list(NAMES_2014.values()))
    file = folder / "refs(unc).p"
    file.write_bytes(pickle.dumps(references(), protocol=2))
    return file, write_json(folder / "instances.json", instances(images=images)), folder / "train2014"


def write_grefcoco(folder: Path) -> tuple[Path, Path, Path]:
    """gRefCOCO: both dogs at once, and a phrase that means nothing in the picture."""
    _, annotations, images = write_refer(folder)
    several, none = references()[0], references()[1]
    several |= {"ann_id": [12, 13], "category_id": [DOG, DOG], "no_target": False}
    none |= {"ann_id": [-1], "category_id": [-1], "no_target": True}
    return write_json(folder / "grefs(unc).json", [several, none]), annotations, images


def write_reasonseg(folder: Path) -> Path:
    """Two pictures: a target with an ignored hole, and one with a left-over flag and a phrase in Windows' encoding."""
    write_pictures(folder, ["a.jpg", "b.jpg"])
    square = [[40.0, 20.0], [120.7, 20.2], [120.0, 80.0], [40.0, 80.0]]
    hole = [[60, 30], [80, 30], [80, 50], [60, 50]]
    shapes = [
        {"label": "ignore", "points": hole, "shape_type": "polygon"},
        {"label": "target", "points": square, "shape_type": "polygon"},
    ]
    write_json(folder / "a.json", {"text": ["what flies", " what has wings "], "is_sentence": True, "shapes": shapes})
    flag = {"label": "flag", "points": [[0, 0], [199, 99], [0, 99]]}
    data = {"text": ["the caf\u00e9"], "is_sentence": False, "shapes": [flag, {"label": "target", "points": hole}]}
    (folder / "b.json").write_bytes(json.dumps(data, ensure_ascii=False).encode("cp1252"))
    return folder


def write_json(file: Path, data: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def turned(file: Path) -> None:
    """Write a picture that is 200 x 100 as stored and 100 x 200 as its EXIF orientation turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(*SIZE).save(file, exif=exif)
