"""The small data sets under evaluation/data/, made of scenes in the schemas of the originals.

    python -m evaluation.bundled            # writes evaluation/data/<suite>/test.parquet; needs the `train` extra

Drawings, wordings and seeds are held out from training. Images are small, for they are committed.
"""

import argparse
import json
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.scene_sets import SceneOptions, common_columns, rows_of
from evaluation.suite import BUNDLED
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.data.sources import Row
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.classes import CLASSES
from vision_reasoner.scenes.requests import View
from vision_reasoner.scenes.scene import random_scene

logger = logging.getLogger(__name__)

OPTIONS = SceneOptions(
    split="held_out",
    seed=11_000_000_000,  # far from every training stage's, and from the model card's
    pixels=360 * 270,
    quality=80,
)


def segmentation() -> list[Row]:
    """Referring, reasoning and purpose requests, and 40 for what is not there; a box where the target is one."""
    rows: list[Row] = []
    for name, n in (("referring", 140), ("purpose", 40), ("absent", 40)):
        for row in rows_of(name, n, OPTIONS, first=len(rows)):
            height, width = row["img_height"], row["img_width"]
            mask = row.get("mask", np.zeros((height, width), bool)).tolist()
            rows.append({**row, "mask": mask, "bbox": row["bbox"] or None})
    return rows


def detection() -> tuple[list[Row], dict[str, Any]]:
    """One row for each image and class in it, as coco_val has; and the same as an instances JSON."""
    sprites = load_sprites(OPTIONS.split)
    rows: list[Row] = []
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": c.name} for i, c in enumerate(CLASSES)],
    }
    image_id = 0
    while len(rows) < 220:
        image_id += 1
        rng = random.Random(OPTIONS.seed - image_id)
        scene = random_scene(sprites, rng, max_objects=12, min_objects=3, pixels=OPTIONS.pixels)
        width, height = scene.size
        coco["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "width": width, "height": height})
        for label, members in sorted(View(scene, random.Random(0)).by_label.items()):
            row = common_columns(scene, image_id, len(rows), CLASSES[label].name, OPTIONS)
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


def write(name: str, rows: list[Row], folder: Path) -> Path:
    """`folder`/`name`/test.parquet; an image that several rows share is kept once."""
    from datasets import Dataset
    from datasets import Image as ImageColumn

    target = folder / name / "test.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_list(rows).cast_column("image", ImageColumn())
    dataset.to_parquet(target, dictionary_pagesize_limit=1 << 26)
    return target


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.bundled", __doc__)
    parser.add_argument("--output", type=Path, default=BUNDLED, help="folder to write to (%(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Make and write the sets."""
    folder = arguments.output
    boxes, instances = detection()
    counts, questions = (list(rows_of(kind, 200, OPTIONS)) for kind in ("counting", "questions"))
    sets = {"segmentation": segmentation(), "detection": boxes, "counting": counts, "vqa": questions}
    for name, rows in sets.items():
        path = write(name, rows, folder)
        logger.info("%s: %d rows, %.1f MB", path, len(rows), path.stat().st_size / 1e6)
    (folder / "detection" / "instances.json").write_text(json.dumps(instances) + "\n", encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Make the bundled sets; exit codes are those of the library's command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
