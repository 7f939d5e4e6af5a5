"""COCO's instances: one JSON, masks as compressed run lengths, so that holes and parts are exact."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision_reasoner.formats.labeled import Labeled, Object, confidence_of, names_in, save_pictures


def write_coco(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write `instances.json` and `images/`.

    Objects are `iscrowd: 0` although they are run lengths: 1 would have them ignored. `score` is the segmenter's.
    """
    files = save_pictures(pictures, folder / "images")
    categories = {name: number for number, name in enumerate(names_in(pictures), start=1)}
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, start=1):
        for found in picture.objects:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": categories[found.name]}
            annotations.append(ids | _annotation(found))
    data = {
        "info": {"description": "VisionReasoner"},
        "images": [
            {"id": number, "file_name": file, "width": picture.size[0], "height": picture.size[1]}
            for number, (picture, file) in enumerate(zip(pictures, files, strict=True), start=1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def _annotation(found: Object) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    box, lengths = found.instance.box, found.instance.run_lengths
    area = box.area if lengths is None else int(coco_mask.area({**lengths, "counts": lengths["counts"].encode()}))
    annotation = {
        "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
        "area": area,
        "iscrowd": 0,
        "segmentation": lengths if lengths is not None else [],
    }
    score = confidence_of(found.instance)
    return annotation if score is None else annotation | {"score": score}
