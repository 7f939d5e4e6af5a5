"""The README's example images, composed by hand and painted by the scene generator, with their ground truth.

    python -m vision_reasoner.scenes.assets        # writes assets/*.png and assets/ground_truth.json

It needs the drawings: `python -m vision_reasoner.scenes.art`.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import ExitCode, VisionReasonerError
from vision_reasoner.scenes.art import Sprite, load_sprites
from vision_reasoner.scenes.classes import CLASS_INDEX, SIGN
from vision_reasoner.scenes.scene import Layout, Placement, Scene, paint, random_layout, sign

SIZE = (640, 480)
ASPECT = SIZE[0] / SIZE[1]
LIGHT, SHADOW = 0.95, 0.35  # of all objects
SKY, TABLE, MEADOW, STREET, ROOM, WALL = 1628, 8225, 1282, 4506, 10204, 438  # seeds of backgrounds, picked by eye
Sprites = Sequence[Sequence[Sprite]]


def centered(
    sprite: Sprite, x: float, y: float, longer: float, color: str | None = None, text: str | None = None
) -> Placement:
    """An object with its center at (x, y) and longer side `longer`, all relative to the image's width or height."""
    height, width = sprite.rgba.shape[:2]
    w, h = width / SIZE[0], height / SIZE[1]
    scale = longer / max(w, h)
    return Placement(
        sprite, x - w * scale / 2, y - h * scale / 2, w * scale, h * scale, 0.0, False, color, text, LIGHT, SHADOW
    )


def first(sprites: Sprites, name: str, index: int = 0) -> Sprite:
    """A drawing of a class."""
    return sprites[CLASS_INDEX[name]][index]


def airplanes(sprites: Sprites) -> Layout:
    """Ten airplanes in formation: a wedge of four rows."""
    plane = first(sprites, "airplane")
    places = [(0.5 + (k - row / 2) * 0.23, 0.14 + row * 0.23) for row in range(4) for k in range(row + 1)]
    return Layout([centered(plane, x, y, 0.17) for x, y in places], ASPECT, SKY)


def donuts(sprites: Sprites) -> Layout:
    """Five donuts, and two cups among them."""
    donut, cup = first(sprites, "donut"), first(sprites, "cup")
    at = [(0.2, 0.25, 0.26), (0.52, 0.22, 0.22), (0.82, 0.3, 0.24), (0.3, 0.72, 0.24), (0.62, 0.68, 0.28)]
    placements = [centered(donut, *place) for place in at]
    return Layout([*placements, centered(cup, 0.86, 0.76, 0.2), centered(cup, 0.08, 0.58, 0.15)], ASPECT, TABLE)


def stand_higher(sprites: Sprites) -> Layout:
    """A woman and a ladder among other objects."""
    return Layout(
        [
            centered(first(sprites, "tree"), 0.14, 0.32, 0.42),
            centered(first(sprites, "woman"), 0.42, 0.55, 0.5),
            centered(first(sprites, "ladder"), 0.68, 0.5, 0.56),
            centered(first(sprites, "dog"), 0.88, 0.8, 0.22),
            centered(first(sprites, "ball"), 0.2, 0.84, 0.14),
        ],
        ASPECT,
        MEADOW,
    )


def company_name(sprites: Sprites) -> Layout:
    """A sign with a company's name, and what is around it."""
    board = sign("LUMEN", random.Random(3))
    return Layout(
        [
            centered(board, 0.45, 0.3, 0.46, text="LUMEN"),
            centered(first(sprites, "house"), 0.82, 0.6, 0.34),
            centered(first(sprites, "car"), 0.36, 0.8, 0.28),
        ],
        ASPECT,
        STREET,
    )


def no_umbrella(sprites: Sprites) -> Layout:
    """A scene in which there is no umbrella."""
    return Layout(
        [
            centered(first(sprites, "cat"), 0.25, 0.6, 0.3),
            centered(first(sprites, "chair"), 0.58, 0.58, 0.34, "blue"),
            centered(first(sprites, "potted plant"), 0.85, 0.4, 0.3),
            centered(first(sprites, "clock"), 0.55, 0.16, 0.18),
        ],
        ASPECT,
        ROOM,
    )


def crowd(sprites: Sprites) -> Layout:
    """Twenty objects of five classes."""
    for seed in range(1000):
        layout = random_layout(sprites, random.Random(seed), max_objects=20, min_objects=20)
        kinds = {t.sprite.label for t in layout.placements}
        if len(layout.placements) == 20 and len(kinds) == 5 and SIGN not in kinds:
            return Layout(layout.placements, ASPECT, WALL)
    raise VisionReasonerError("no layout of twenty objects of five classes found")


# name: (who composes it, what is asked, the names of the targets or the answer)
IMAGES: dict[str, tuple[Callable[[Sprites], Layout], str, str]] = {
    "airplanes": (airplanes, "How many airplanes are there in this image?", "airplane"),
    "donuts": (donuts, "please segment the donuts", "donut"),
    "stand_higher": (stand_higher, "find what can make the woman stand higher?", "ladder"),
    "company_name": (company_name, "What is name of the company?", "LUMEN"),
    "no_umbrella": (no_umbrella, "find the umbrella", "umbrella"),
    "crowd": (crowd, "", ""),
}


def truth(scene: Scene) -> list[dict[str, Any]]:
    """Every object: class, color, text, inclusive box, point and run-length mask, in pixels of the image."""
    found = []
    for o in scene.objects:
        rle = coco_mask.encode(np.asfortranarray(o.mask.astype(np.uint8)))
        found.append(
            {
                "name": o.name,
                "colour": o.color,
                "text": o.text,
                "bbox_2d": list(o.box.inclusive),
                "point_2d": list(o.point),
                "mask": {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode()},
            }
        )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.scenes.assets", __doc__)
    parser.add_argument("--output", type=Path, default=Path("assets"), help="folder to write to (default: %(default)s)")
    return run_command(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Paint all images and write them with their ground truth."""
    args.output.mkdir(exist_ok=True)
    sprites, known = load_sprites(), {}
    for name, (compose, query, answer) in IMAGES.items():
        scene = paint(compose(sprites), SIZE)
        if scene is None:
            raise VisionReasonerError(f"{name}: too much is hidden, or two objects share a cell; move them apart")
        Image.fromarray(scene.image).save(args.output / f"{name}.png", optimize=True)
        known[f"{name}.png"] = {"query": query, "answer": answer, "objects": truth(scene)}
    (args.output / "ground_truth.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
