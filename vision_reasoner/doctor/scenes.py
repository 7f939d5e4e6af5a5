"""Pictures in odd sizes with objects whose boxes are known: drawn airplanes, or red circles, on a plain ground.

VisionReasoner-Tiny knows both, and so does every larger model. The airplane is cut out of assets/airplanes.png.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from vision_reasoner.files import packaged
from vision_reasoner.geometry import Box, Point, Size
from vision_reasoner.masks import Mask, decode_mask
from vision_reasoner.seeds import seeded

SIZES: dict[str, Size] = {  # what resizes a picture on its way treats these differently
    "square": (640, 640),
    "wide": (1280, 480),
    "tall": (480, 1280),
    "small": (224, 168),
    "large": (1600, 1200),
}
Kind = Literal["airplanes", "red circles"]
N_OBJECTS = 6
SIDES = (0.16, 0.28)  # of an object, relative to the side of a square of as many pixels
GAP = 0.03  # between two objects, relative likewise
MIN_SPAN = 0.8  # of all objects together, relative to width and height: a scale shows best far apart
GROUND, RED = (150, 190, 215), (215, 35, 35)


@dataclass(frozen=True, eq=False)
class DrawnScene:
    """A picture and what is in it.

    Attributes:
        name: a key of `SIZES`.
        image: RGB.
        query: what its objects are called.
        boxes: of all of them, in pixels of the picture.
    """

    name: str
    image: Image.Image
    query: Kind
    boxes: tuple[Box, ...]


def draw_scenes(kind: Kind) -> list[DrawnScene]:
    """A picture of each of `SIZES`, always the same ones; no two have their objects in the same places."""
    sticker = _airplane() if kind == "airplanes" else _circle()
    scenes = []
    for name, size in SIZES.items():
        image, boxes = Image.new("RGB", size, GROUND), _places(name)
        for box in boxes:
            drawn = sticker.resize((box.x2 - box.x1, box.y2 - box.y1), Image.Resampling.LANCZOS)
            image.paste(drawn, box[:2], drawn)
        scenes.append(DrawnScene(name, image, kind, boxes))
    return scenes


def draw_disks(size: Size = (480, 320)) -> tuple[Image.Image, list[tuple[Box, Point, Mask]]]:
    """A picture of two red disks of different sizes, and each one's box, center and (H, W) mask."""
    image, truth = Image.new("RGB", size, GROUND), []
    for x, y, radius in ((130, 170, 80), (360, 120, 50)):
        box = Box(x - radius, y - radius, x + radius, y + radius)
        mask = Image.new("1", size)
        ImageDraw.Draw(mask).ellipse(Box(*box).inclusive, fill=1)
        image.paste(RED, mask=mask)
        truth.append((box, Point(x, y), np.asarray(mask)))
    return image, truth


@cache
def _places(name: str) -> tuple[Box, ...]:
    """Boxes of squares that do not overlap, in the picture called `name`, which they span in both directions."""
    size, rng = SIZES[name], seeded("doctor", 1, name)
    unit = math.sqrt(size[0] * size[1])
    gap = GAP * unit
    while True:
        boxes: list[Box] = []
        for _ in range(N_OBJECTS):
            side = unit * rng.uniform(*SIDES)
            x, y = (rng.uniform(gap, length - side - gap) for length in size)
            box = Box(round(x), round(y), round(x + side), round(y + side))
            if not any(_are_near(box, other, gap) for other in boxes):
                boxes.append(box)
        spans = [(max(b[k + 2] for b in boxes) - min(b[k] for b in boxes)) / size[k] for k in (0, 1)]
        if len(boxes) == N_OBJECTS and min(spans) > MIN_SPAN:
            return tuple(boxes)


def _are_near(a: Box, b: Box, gap: float) -> bool:
    """Whether two boxes are closer than `gap` in both directions."""
    return all(a[k] < b[k + 2] + gap and b[k] < a[k + 2] + gap for k in (0, 1))


@cache
def _airplane() -> Image.Image:
    """The drawing of an airplane, RGBA, cropped to what is seen of it."""
    picture = packaged("assets/airplanes.png")
    truth = json.loads(packaged("assets/ground_truth.json").read_text(encoding="utf-8"))[picture.name]
    drawn = truth["objects"][0]
    alpha = Image.fromarray(decode_mask(drawn["mask"]))
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    image.putalpha(alpha.convert("L"))
    return image.crop(Box.from_inclusive(*drawn["bbox_2d"]))


def _circle() -> Image.Image:
    """A red disk, RGBA, which touches the picture's borders."""
    image = Image.new("RGBA", (512, 512))
    ImageDraw.Draw(image).ellipse((0, 0, 511, 511), fill=RED)
    return image
