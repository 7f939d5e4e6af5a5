"""Drawings for tests of the scenes: plain shapes, so that nothing has to be fetched."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vision_reasoner.scenes.art import Sprite
from vision_reasoner.scenes.classes import CLASSES


@lru_cache
def sprites() -> tuple[tuple[Sprite, ...], ...]:
    """Two ellipses for every class that is drawn, each of its own shape and color."""
    found = []
    for label, object_class in enumerate(CLASSES):
        rng = np.random.default_rng(label)
        drawings = []
        for style in ("round", "flat") if object_class.drawings else ():
            image = Image.new("RGBA", (96, 96 if style == "round" else 60))
            fill = (*rng.integers(30, 250, 3).tolist(), 255)
            ImageDraw.Draw(image).ellipse((0, 0, image.width - 1, image.height - 1), fill=fill)
            drawings.append(Sprite(label, style, f"{label:x}", np.asarray(image)))
        found.append(tuple(drawings))
    return tuple(found)
