"""The small data sets under evaluation/data/, made by the scene generator in the schemas of the originals.

    python -m evaluation.bundled            # writes evaluation/data/<suite>/test.parquet; needs the `train` extra

Drawings and wordings are held out from training, and so are the seeds. Pictures are small, for they are committed.
"""

import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.measure import ROWS, make_requests, truth_boxes, truth_mask
from vision_reasoner.cli import make_parser
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.classes import CLASSES
from vision_reasoner.scenes.requests import RequestContext
from vision_reasoner.scenes.scene import Scene, random_scene

FOLDER = Path(__file__).resolve().parent / "data"
SEED = 11_000_000_000  # far from every stage's, and from the model card's
SPLIT = "held_out"
PIXELS = 360 * 270
ROWS_BY_NAME = {row.name: row for row in ROWS}


def encoded(scene: Scene) -> dict[str, Any]:
    """The picture as `datasets.Image` keeps it."""
    out = io.BytesIO()
    Image.fromarray(scene.image).save(out, "WEBP", quality=80)
    return {"bytes": out.getvalue(), "path": None}


def common(scene: Scene, image_id: int, ann_id: int, text: str) -> dict[str, Any]:
    """The columns that every set has."""
    width, height = scene.size
    return {
        "image": encoded(scene),
        "text": text,
        "image_id": str(image_id),
        "ann_id": str(ann_id),
        "img_height": height,
        "img_width": width,
    }


def segmentation() -> list[dict[str, Any]]:
    """Referring, reasoning and purpose requests, and 40 for what is not there; a box where the target is one."""
    rows: list[dict[str, Any]] = []
    for name, n in (("referring and reasoning segmentation", 140), ("purpose alone", 40), ("nothing there", 40)):
        for asked in make_requests(ROWS_BY_NAME[name], n, SPLIT, SEED, PIXELS):
            boxes = truth_boxes(asked.scene, asked.request)
            row = common(asked.scene, len(rows), len(rows), asked.request.query)
            mask = truth_mask(asked.scene, asked.request).tolist()
            rows.append({**row, "mask": mask, "bbox": list(boxes[0]) if len(boxes) == 1 else None})
    return rows


def counting() -> list[dict[str, Any]]:
    """One number for each picture."""
    rows: list[dict[str, Any]] = []
    for asked in make_requests(ROWS_BY_NAME["counting"], 200, SPLIT, SEED, PIXELS):
        row = common(asked.scene, len(rows), len(rows), asked.request.query)
        rows.append({**row, "count": len(asked.request.targets)})
    return rows


def vqa() -> list[dict[str, Any]]:
    """Short answers: names on signs, colours, yes and no, names of things."""
    rows: list[dict[str, Any]] = []
    for asked in make_requests(ROWS_BY_NAME["questions"], 200, SPLIT, SEED, PIXELS):
        assert asked.request.answer is not None
        row = common(asked.scene, len(rows), len(rows), asked.request.query)
        row["question"] = row.pop("text")
        rows.append({**row, "answers": [asked.request.answer.text]})
    return rows


def detection() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row for each picture and class in it, as coco_val has; and the same as an instances JSON."""
    sprites = load_sprites(SPLIT)
    rows: list[dict[str, Any]] = []
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": c.name} for i, c in enumerate(CLASSES)],
    }
    image_id = 0
    while len(rows) < 220:
        image_id += 1
        scene = random_scene(sprites, random.Random(SEED - image_id), max_objects=12, min_objects=3, pixels=PIXELS)
        width, height = scene.size
        coco["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "width": width, "height": height})
        for label, members in sorted(RequestContext(scene, random.Random(0)).by_label.items()):
            row = common(scene, image_id, len(rows), CLASSES[label].name)
            found = [scene.objects[i] for i in members]
            boxes = [list(o.box) for o in found]
            rows.append({**row, "bbox": boxes, "cat_id": label + 1})
            for o, (x1, y1, x2, y2) in zip(found, boxes, strict=True):
                coco["annotations"].append(
                    {
                        "id": len(coco["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": label + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": int(np.count_nonzero(o.mask)),
                        "iscrowd": 0,
                    }
                )
    return rows, coco


def write(name: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    """`folder`/`name`/test.parquet; a picture that several rows share is kept once."""
    from datasets import Dataset
    from datasets import Image as ImageColumn

    target = folder / name / "test.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_list(rows).cast_column("image", ImageColumn())
    dataset.to_parquet(target, dictionary_pagesize_limit=1 << 26)
    return target


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m evaluation.bundled", __doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to (%(default)s)")
    folder = parser.parse_args(argv).output
    boxes, instances = detection()
    sets = {"segmentation": segmentation(), "detection": boxes, "counting": counting(), "vqa": vqa()}
    for name, rows in sets.items():
        path = write(name, rows, folder)
        print(f"{path}: {len(rows)} rows, {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    (folder / "detection" / "instances.json").write_text(json.dumps(instances) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
