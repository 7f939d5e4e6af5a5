"""Scenes: photograph-like toy images of drawn objects, with exact boxes, inner points and masks.

A `Layout` says what stands where on a canvas; `paint` turns it into a image of any size and reads the truth off the
painted pixels (what is hidden by another object does not count). Everything follows from the random generator given.
This module knows nothing of requests, tokens or models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

from vision_reasoner.geometry import Box, Point
from vision_reasoner.scenes.art import Sprite
from vision_reasoner.scenes.classes import CLASSES, COLORS, COMPANIES, SIGN

GRID = 10  # a scene is laid out so that no two objects have their centres in one cell of a GRID x GRID grid
MIN_VISIBLE = 0.6  # of an object's own pixels; a layout that hides more is drawn anew
LIGHTS = (0.82, 0.95, 1.08)  # how bright a thing is; few, so that what is drawn can be drawn again
SHADOWS = (0.0, 0.35, 0.55)  # how dark its shadow is
MIN_SIDE, MAX_SIDE = 0.19, 0.5  # an object's longer side, relative to the image's, where there are few


@dataclass(frozen=True, eq=False)
class Placement:
    """An object to be painted: x, y, width, height relative to the canvas (0 to 1). Later things hide earlier ones."""

    sprite: Sprite
    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0
    flip: bool = False
    color: str | None = None
    text: str | None = None
    brightness: float = 1.0
    shadow: float = 0.0


@dataclass(frozen=True, eq=False)
class Layout:
    """What stands where; `aspect` is the canvas's width / height, `background` seeds the background."""

    placements: list[Placement]
    aspect: float
    background: int
    plain: bool = False


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object as it is seen.

    Attributes:
        label: index into CLASSES.
        color: the color it was painted in, if it was.
        text: the company's name, on a sign.
        box: the edges of the mask, in pixels of the image.
        point: the mask's innermost pixel.
        mask: (H, W) bool, what is visible of it.
        home: (row, column) of the grid cell that holds the box's centre; cells are read row by row.
    """

    label: int
    color: str | None
    text: str | None
    box: Box
    point: Point
    mask: np.ndarray
    cell: tuple[int, int]

    @property
    def name(self) -> str:
        return CLASSES[self.label].name


@dataclass(frozen=True, eq=False)
class Scene:
    """A painted image, (H, W, 3) uint8, and its objects in reading order (by grid cell)."""

    image: np.ndarray
    objects: list[SceneObject] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


# --- layouts ----------------------------------------------------------------------------------------------------------
def random_layout(
    sprites: Sequence[Sequence[Sprite]],
    rng: Random,
    max_objects: int = 12,
    min_objects: int = 1,
    max_classes: int = 5,
    plain: bool = False,
    signs: float = 0.12,
    painted: float = 0.5,
) -> Layout:
    """A random layout of `min_objects` to `max_objects` objects of up to `max_classes`, as far as they find room.

    The share `signs` of layouts has a company's sign among these; of classes that come in any color, the share
    `painted` is painted.
    A `plain` one, to begin to learn from, has each class's first drawing in its own colors, upright, on a gradient.
    """
    aspect = math.exp(rng.uniform(math.log(0.7), math.log(1.45)))
    drawable = [i for i, found in enumerate(sprites) if found]
    total = rng.randint(min_objects, max_objects)
    labels = rng.sample(
        drawable, min(len(drawable), rng.randint(min(1 + max_classes // 6, total), min(total, max_classes)))
    )
    if rng.random() < signs:
        labels[0] = SIGN
    counted = [label for label in labels if label != SIGN] or labels
    todo = [*labels, *(rng.choice(counted) for _ in range(total - len(labels)))]
    largest = MAX_SIDE if total < 6 else MAX_SIDE * (6 / total) ** 0.55
    smallest = MIN_SIDE * min(1.0, (10 / total) ** 0.5)
    colors_of = {label: rng.random() < painted for label in labels}
    favourite = {label: rng.choice(sprites[label]) for label in labels if sprites[label]}
    same_drawing, same_size = rng.random() < 0.5, rng.random() < 0.3
    common = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
    placements: list[Placement] = []
    taken: list[tuple[float, float, float, float]] = []
    cells: set[tuple[int, int]] = set()
    rng.shuffle(todo)
    for label in todo:
        text = None
        if label == SIGN:
            text = rng.choice(COMPANIES)
            sprite = sign(text, rng)
        else:
            sprite = favourite[label] if same_drawing else rng.choice(sprites[label])
            sprite = sprites[label][0] if plain else sprite
        color = rng.choice(list(COLORS)) if CLASSES[label].paintable and colors_of[label] and not plain else None
        angle = 0.0 if plain else rng.gauss(0, 5) if label != SIGN else rng.gauss(0, 2)
        for attempt in range(24):
            side = (
                common * rng.uniform(0.92, 1.08)
                if same_size
                else math.exp(rng.uniform(math.log(smallest), math.log(largest)))
            )
            if label == SIGN:
                side = max(side, rng.uniform(0.4, 0.6))
            side = max(0.9 * smallest, side * 0.97**attempt)
            box = _place(sprite, side, angle, aspect, rng)
            if box is None:
                continue
            cell = int((box[1] + box[3] / 2) * GRID), int((box[0] + box[2] / 2) * GRID)
            if cell not in cells and all(_covered(box, other) < 0.16 for other in taken):
                taken.append(box)
                cells.add(cell)
                placements.append(
                    Placement(
                        sprite,
                        *box,
                        angle,
                        rng.random() < 0.5 and label != SIGN,
                        color,
                        text,
                        rng.choice(LIGHTS),
                        rng.choice(SHADOWS),
                    )
                )
                break
    return Layout(placements, aspect, rng.getrandbits(32), plain)


def _place(
    sprite: Sprite, side: float, angle: float, aspect: float, rng: Random
) -> tuple[float, float, float, float] | None:
    """A random (x, y, width, height) relative to the canvas, the longer side being `side`; None if too thin."""
    height, width = sprite.rgba.shape[:2]
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    w, h = (width * c + height * s) / aspect, width * s + height * c  # of the turned drawing, in the canvas's shape
    w, h = w * side / max(w, h), h * side / max(w, h)
    if min(w, h) < 0.04:
        return None
    return rng.uniform(0, 1 - w), rng.uniform(0, 1 - h), w, h


def _covered(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over the smaller area, of (x, y, width, height)."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0.0, w) * max(0.0, h) / min(a[2] * a[3], b[2] * b[3])


def sign(text: str, rng: Random) -> Sprite:
    """A board with a company's name on it."""
    font = ImageFont.load_default(size=rng.randint(52, 68))
    left, top, right, bottom = font.getbbox(text)
    pad = rng.randint(14, 30)
    width, height = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
    dark = tuple(rng.randint(0, 90) for _ in range(3))
    light = tuple(rng.randint(190, 255) for _ in range(3))
    board, ink = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle(
        (0, 0, width - 1, height - 1), rng.choice((0, 8, 18)), fill=board, outline=ink, width=rng.choice((2, 4, 7))
    )
    draw.text((pad - left, pad - top), text, font=font, fill=ink, stroke_width=rng.choice((0, 1, 2)), stroke_fill=ink)
    return Sprite(SIGN, "drawn", text, np.asarray(image))


# --- painting ---------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8192)
def _prepared(sprite: Sprite, color: str | None, brightness: float, side: int) -> Image.Image:
    """The drawing in its color and light, its longer side `side` pixels, with premultiplied alpha."""
    image = Image.fromarray(sprite.rgba, "RGBA")
    scale = side / max(image.size)
    if scale < 1:
        smaller = round(image.width * scale) or 1, round(image.height * scale) or 1
        image = image.resize(smaller, Image.Resampling.BILINEAR, reducing_gap=2.0)
    rgba = paint_in(np.asarray(image), color) if color else np.array(image)
    rgba[..., :3] = np.clip(rgba[..., :3] * brightness, 0, 255)
    return Image.fromarray(rgba, "RGBA").convert("RGBa")


def _drawn(placement: Placement, size: tuple[int, int]) -> Image.Image:
    """The thing's drawing as it is pasted, (width, height) = `size`: colored, lit, flipped, turned."""
    level = next((side for side in (48, 96, 160) if side >= 1.1 * max(size)), 256)  # few levels: the cache serves them
    if placement.text is None:
        image = _prepared(placement.sprite, placement.color, placement.brightness, level)
    else:
        image = Image.fromarray(placement.sprite.rgba, "RGBA").convert("RGBa")  # a sign is drawn once
    if placement.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if placement.angle:
        image = image.rotate(placement.angle, Image.Resampling.BILINEAR, expand=True)
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGBA")


def paint_in(rgba: np.ndarray, color: str) -> np.ndarray:
    """A drawing in one of COLORS; dark parts (tyres, outlines) keep their own."""
    hue, saturation, value = COLORS[color]
    rgb, alpha = rgba[..., :3] / 255.0, rgba[..., 3:]
    light = rgb @ np.array([0.3, 0.59, 0.11])
    visible = alpha[..., 0] > 127
    middle = float(np.median(light[visible])) if visible.any() else 0.5
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60) % 6
    target = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    shade = np.clip((light / max(middle, 0.2)) ** 0.7, 0.3, 1.35)[..., None]
    weight = np.clip((light - 0.12) / 0.15, 0, 1)[..., None]
    painted = np.clip(target * shade, 0, 1) * weight + rgb * (1 - weight)
    return np.concatenate([(painted * 255).astype(np.uint8), alpha], -1)


@lru_cache
def _darker(share: float) -> list[int]:
    return [int(v * share) for v in range(256)]


def background(size: tuple[int, int], rng: np.random.Generator, plain: bool = False) -> Image.Image:
    """A wall, a landscape, a texture or a pattern, (width, height)."""
    width, height = size
    side = 70  # painted small and enlarged: smooth, and cheap
    y, x = np.mgrid[0:side, 0:side] / side
    a, b, c = rng.uniform(50, 245, (3, 3))
    if rng.random() < 0.5:  # muted
        a, b, c = (v * 0.45 + v.mean() * 0.55 for v in (a, b, c))
    turn = rng.uniform(0, 2 * math.pi)
    along = np.clip((x - 0.5) * math.cos(turn) + (y - 0.5) * math.sin(turn) + 0.5, 0, 1)[..., None]
    kind = 0 if plain else rng.integers(6)
    if kind == 0:  # gradient
        canvas = a * (1 - along) + b * along
    elif kind == 1:  # sky and ground, or wall and floor
        horizon = rng.uniform(0.35, 0.8) + rng.uniform(0, 0.03) * np.sin(x * rng.uniform(3, 30))
        canvas = np.where((y < horizon)[..., None], a * (1 - y[..., None] * 0.4) + 30, b * (0.6 + 0.4 * y[..., None]))
    elif kind == 2:  # stripes or planks
        canvas = np.where((np.sin(along * rng.uniform(15, 80)) > rng.uniform(-0.7, 0.7)), a, a * 0.8 + b * 0.2)
    elif kind == 3:  # tiles
        n = int(rng.integers(3, 9))
        canvas = np.where((((x * n).astype(int) + (y * n).astype(int)) % 2 == 0)[..., None], a, a * 0.75 + b * 0.25)
    elif kind == 4:  # clouds, foliage
        soft = sum(
            ndimage.zoom(rng.standard_normal((k, k)), side / k, order=1) / 2**i for i, k in enumerate((5, 10, 35))
        )
        canvas = a + (b - a) * np.clip(soft * 0.35 + 0.5, 0, 1)[..., None]
    else:
        canvas = np.broadcast_to(a, (side, side, 3))
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < 0.5 and not plain:  # clutter: soft shapes that are nothing
        draw = ImageDraw.Draw(image, "RGBA")
        for _ in range(rng.integers(1, 9)):
            u, v, w, h = rng.uniform(-0.1, 1, 2).tolist() + rng.uniform(0.03, 0.4, 2).tolist()
            fill = (*rng.uniform(30, 250, 3).astype(int).tolist(), int(rng.integers(25, 120)))
            where = (u * width, v * height, (u + w) * width, (v + h) * height)
            shape = rng.integers(3)
            if shape == 0:
                draw.ellipse(where, fill=fill)
            elif shape == 1:
                draw.rectangle(where, fill=fill)
            else:
                draw.line(where, fill=fill, width=int(rng.integers(1, 6)))
        if rng.random() < 0.5:
            image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 3)))
    return image


def paint(layout: Layout, size: tuple[int, int]) -> Scene | None:
    """Paint a layout at `size` (width, height).

    Returns:
        The scene, or None where an object is hidden too much or two objects share a grid cell.
    """
    width, height = size
    rng = np.random.default_rng(layout.background)
    image = background(size, rng, layout.plain)
    owner = np.full((height, width), -1, np.int16)
    whole = []
    for i, placement in enumerate(layout.placements):
        w, h = max(3, round(placement.width * width)), max(3, round(placement.height * height))
        x, y = min(round(placement.x * width), width - w), min(round(placement.y * height), height - h)
        sprite = _drawn(placement, (w, h))
        alpha = sprite.getchannel("A")
        if placement.shadow:
            dx, dy = round(0.05 * w), round(0.07 * h)
            cast = (
                alpha.resize((max(1, w // 4), max(1, h // 4)))
                .resize((w, h), Image.Resampling.BILINEAR)
                .point(_darker(placement.shadow))
            )
            image.paste((20, 20, 25), (x + dx, y + dy), cast)
        image.paste(sprite, (x, y), alpha)
        solid = np.asarray(alpha) > 127
        owner[y : y + h, x : x + w][solid] = i
        whole.append(int(solid.sum()))
    pixels = np.asarray(image).astype(np.float32)
    tint = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.85, 1.1)
    if rng.random() < 0.5:
        pixels = (pixels - 128) * np.float32(rng.uniform(0.85, 1.1)) + 128
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(rng.uniform(0, 6))
    pixels = pixels * tint.astype(np.float32) + noise
    objects = []
    slices = ndimage.find_objects(owner + 1, max_label=len(whole))
    for i, placement in enumerate(layout.placements):
        seen = _object(placement, owner, i, slices[i], whole[i])
        if seen is None:
            return None
        objects.append(seen)
    if len({o.cell for o in objects}) < len(objects):
        return None
    return Scene(np.clip(pixels, 0, 255).astype(np.uint8), sorted(objects, key=lambda o: o.cell))


def _object(
    placement: Placement, owner: np.ndarray, i: int, where: tuple[slice, slice] | None, whole: int
) -> SceneObject | None:
    if where is None:
        return None
    crop = owner[where] == i
    if crop.sum() < MIN_VISIBLE * whole:
        return None
    rows, columns = where
    y1, x1, y2, x2 = rows.start, columns.start, rows.stop, columns.stop
    mask = np.zeros(owner.shape, bool)
    mask[where] = crop
    cell = int((y1 + y2) / 2 / owner.shape[0] * GRID), int((x1 + x2) / 2 / owner.shape[1] * GRID)
    v, u = innermost(crop)
    return SceneObject(
        placement.sprite.label, placement.color, placement.text, Box(x1, y1, x2, y2), Point(x1 + u, y1 + v), mask, cell
    )


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """(row, column) of a mask's pixel that is farthest from its edge, by the Euclidean distance transform."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(column)


def random_scene(
    sprites: Sequence[Sequence[Sprite]],
    rng: Random,
    size: tuple[int, int] | None = None,
    max_objects: int = 12,
    min_objects: int = 1,
    max_classes: int = 5,
    plain: bool = False,
    signs: float = 0.12,
    painted: float = 0.5,
    pixels: int = 640 * 480,
) -> Scene:
    """A random scene; without `size`, of the layout's own shape with about `pixels` pixels."""
    side = math.sqrt(pixels)
    while True:
        layout = random_layout(sprites, rng, max_objects, min_objects, max_classes, plain, signs, painted)
        at = size or (round(side * math.sqrt(layout.aspect)), round(side / math.sqrt(layout.aspect)))
        scene = paint(layout, at) if layout.placements else None
        if scene is not None:
            return scene
