"""Drawings as another hand might have drawn them, so that a tower which is trained on few styles knows others, too."""

from dataclasses import replace
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from vision_reasoner.scenes.art import Sprite, fitted
from vision_reasoner.scenes.scene import SOLID_ALPHA

MARGIN = 0.12  # of the longer side, on each side: room for what is bent outwards
BEND, BEND_GRID = 0.035, (3, 5)  # standard deviation of a bend's shifts, over the side; points of its grid
STRETCH = 1.25  # at most, of width over height
HUE, SATURATION, GAMMA = 12, (0.5, 1.5), (0.6, 1.5)  # degrees, standard deviation; factor; exponent
FLAT_SHARE, FLAT_COLORS = 0.35, (4, 12)  # of drawings: without shading, in few colors
OUTLINE_SHARE, OUTLINE_WIDTH, OUTLINE_GRAY = 0.3, (3, 7), (0, 70)  # with a dark outline; pixels
SOFT_SHARE, SOFT_RADIUS = 0.2, (1.0, 4.0)  # without fine detail; pixels


def varied(sprite: Sprite, rng: Random) -> Sprite:
    """The drawing bent, stretched, in other colors, and sometimes flat, outlined or without detail.

    Args:
        sprite: a drawing.
        rng: decides everything.
    """
    image = _bent(Image.fromarray(sprite.rgba, "RGBA"), rng)
    alpha, color = image.getchannel("A"), _recolored(image.convert("RGB"), rng)
    if rng.random() < SOFT_SHARE:
        color = color.filter(ImageFilter.GaussianBlur(rng.uniform(*SOFT_RADIUS)))
    if rng.random() < FLAT_SHARE:
        color = color.filter(ImageFilter.MedianFilter(5)).quantize(rng.randint(*FLAT_COLORS)).convert("RGB")
    if rng.random() < OUTLINE_SHARE:
        solid = alpha.point(lambda v: 255 if v > SOLID_ALPHA else 0)
        width = 2 * (rng.randint(*OUTLINE_WIDTH) // 2) + 1
        edge = ImageChops.subtract(solid, solid.filter(ImageFilter.MinFilter(width)))
        gray = rng.randint(*OUTLINE_GRAY)
        color.paste((gray, gray, gray), mask=edge)
    color.putalpha(alpha)
    return replace(sprite, rgba=np.asarray(fitted(color)))


def _bent(image: Image.Image, rng: Random) -> Image.Image:
    """Stretched, and with its parts shifted by a smooth random field."""
    stretch = rng.uniform(1 / STRETCH, STRETCH) ** 0.5
    image = image.resize((round(image.width * stretch) or 1, round(image.height / stretch) or 1))
    margin = round(MARGIN * max(image.size))
    wide = Image.new("RGBA", (image.width + 2 * margin, image.height + 2 * margin))
    wide.paste(image, (margin, margin))
    n = rng.randint(*BEND_GRID)
    draw, side = np.random.default_rng(rng.getrandbits(32)), max(wide.size)
    shifts = draw.normal(0, BEND * side, (2, n + 1, n + 1))
    xs, ys = np.linspace(0, wide.width, n + 1), np.linspace(0, wide.height, n + 1)
    mesh = []
    for i in range(n):
        for j in range(n):
            target = round(xs[j]), round(ys[i]), round(xs[j + 1]), round(ys[i + 1])
            corners = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))  # as Pillow wants them: counterclockwise
            source = [float(v) for r, c in corners for v in (xs[c] + shifts[0, r, c], ys[r] + shifts[1, r, c])]
            mesh.append((target, source))
    bent = wide.transform(wide.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    return bent if np.asarray(bent)[..., 3].max() > SOLID_ALPHA else wide


def _recolored(image: Image.Image, rng: Random) -> Image.Image:
    """With another hue, saturation and tone."""
    hue, saturation, value = image.convert("HSV").split()
    turn, factor, gamma = round(rng.gauss(0, HUE) * 256 / 360), rng.uniform(*SATURATION), rng.uniform(*GAMMA)
    hue = hue.point(lambda v: (v + turn) % 256)
    saturation = saturation.point(lambda v: min(255, round(v * factor)))
    value = value.point(lambda v: round(255 * (v / 255) ** gamma))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
