"""Synthetic scenes of drawn objects, with exact boxes, interior points and masks.

A `Layout` lists where objects are placed on a canvas. `paint` renders it at any size and reads the ground truth off the
rendered pixels, so occluded pixels do not count. The random generator that is passed in decides everything.
This module does not know about requests, tokens or models.

The numbers below trade variety, so that a detector does not rely on certain sizes, lighting or backgrounds, for images
in which a person can name every object. They define what a seed's scene looks like: changing one changes the bundled
evaluation sets and the scenes that published figures were measured on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vision_reasoner.geometry import Box, Point
from vision_reasoner.scenes.art import Sprite
from vision_reasoner.scenes.classes import CLASSES, COLORS, COMPANIES, SIGN

GRID = 10  # no two objects have their centers in one cell of a GRID x GRID grid: a detector has one object per cell
MIN_VISIBLE = 0.6  # share of an object's own pixels; layouts that occlude more are drawn again
SOLID_ALPHA = 127  # a pixel belongs to a drawing where its alpha is higher

# --- layout: lengths are relative to the canvas
MIN_ASPECT, MAX_ASPECT = 0.7, 1.45  # width / height: portrait to landscape photographs
MIN_SIDE, MAX_SIDE = 0.19, 0.5  # an object's longer side, where there are few objects
CROWDED, SHRINK_LARGEST = 6, 0.55  # from this many objects on, the largest size falls with this power of their number
DENSE, SHRINK_SMALLEST = 10, 0.5  # from this many objects on, the smallest size falls as well
MIN_THICKNESS = 0.04  # an object's shorter side: thinner ones vanish at 280 pixels
SIGN_SIDE = (0.4, 0.6)  # a sign's longer side at least, so that its letters can be read
MAX_OVERLAP = 0.16  # intersection over the smaller box: more would often end in a rejected layout
ATTEMPTS, SHRINK_PER_ATTEMPT = 24, 0.97  # places tried for an object, each a little smaller, before it is left out
SMALLEST_SHRUNK = 0.9  # of the smallest size: attempts do not shrink further
SAME_DRAWING_SHARE = 0.5  # of layouts: all objects of a class show one drawing
SAME_SIZE_SHARE, SIZE_JITTER = 0.3, (0.92, 1.08)  # of layouts: all objects have one size, up to this factor
TILT, SIGN_TILT = 5, 2  # standard deviation of an object's rotation in degrees
LIGHTS = (0.82, 0.95, 1.08)  # brightness factors; few, so that `_prepared` finds most drawings in its cache
SHADOWS = (0.0, 0.35, 0.55)  # opacity of an object's shadow

# --- signs: pixels of the drawing, before it is scaled
SIGN_FONT, SIGN_PADDING = (52, 68), (14, 30)
SIGN_DARK, SIGN_LIGHT = (0, 90), (190, 255)  # channel ranges of board and ink: always legible, either way around
SIGN_CORNERS, SIGN_BORDERS, SIGN_STROKES = (0, 8, 18), (2, 4, 7), (0, 1, 2)

# --- objects
RASTER_SIDES = (48, 96, 160)  # drawings are prepared at few sizes, so that the cache serves them; else SPRITE_SIDE
LARGEST_RASTER = 256
OVERSAMPLING = 1.1  # the prepared drawing is this much larger than what it is resized to
LUMA = (0.3, 0.59, 0.11)  # weights of red, green and blue (ITU-R BT.601)
OUTLINE_LUMA, OUTLINE_RANGE = 0.12, 0.15  # painting leaves darker parts (tires, outlines) as they are; a soft threshold
SHADE_POWER, SHADE_RANGE = 0.7, (0.3, 1.35)  # how much of the drawing's own shading stays in the paint
SHADOW_OFFSET, SHADOW_BLUR = (0.05, 0.07), 4  # of width and height; the factor by which it is reduced and enlarged
SHADOW_COLOR = (20, 20, 25)

# --- backgrounds
BACKGROUND_SIDE = 70  # painted at this size and enlarged: smooth, and cheap
BACKGROUND_COLORS = (50, 245)  # neither black nor white: outlines and highlights stay visible
MUTED_SHARE, MUTED_KEEP = 0.5, 0.45  # of backgrounds: saturation is reduced to this
SKY_LIFT, SKY_FADE, GROUND_SHADE = 30, 0.4, 0.6
HORIZON, HORIZON_WAVE, HORIZON_FREQUENCY = (0.35, 0.8), (0, 0.03), (3, 30)
STRIPE_FREQUENCY, STRIPE_DUTY, STRIPE_MIX = (15, 80), (-0.7, 0.7), 0.2
TILES, TILE_MIX = (3, 9), 0.25
NOISE_OCTAVES, NOISE_CONTRAST = (5, 10, 35), 0.35  # grid sizes of value noise, each of half the amplitude
CLUTTER_SHARE, CLUTTER_SHAPES = 0.5, (1, 9)  # of backgrounds: soft shapes that are no objects
CLUTTER_CORNER, CLUTTER_SIZE = (-0.1, 1), (0.03, 0.4)
CLUTTER_COLORS, CLUTTER_ALPHA, CLUTTER_LINE = (30, 250), (25, 120), (1, 6)
BLUR_SHARE, BLUR_RADIUS = 0.5, (0.5, 3)  # of cluttered backgrounds: out of focus

# --- camera: white balance per channel, exposure, contrast around mid-gray, sensor noise
WHITE_BALANCE, EXPOSURE = (0.9, 1.1), (0.85, 1.1)
CONTRAST_SHARE, CONTRAST, MID_GRAY = 0.5, (0.85, 1.1), 128
MAX_NOISE = 6  # standard deviation in gray levels

DEFAULT_PIXELS = 640 * 480  # of scenes whose size is not given


@dataclass(frozen=True, eq=False)
class Placement:
    """An object to paint: x, y, width, height relative to the canvas (0 to 1). Later ones occlude earlier ones."""

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
    """Where objects are placed; `aspect` is the canvas's width / height, `background` seeds everything behind them."""

    placements: list[Placement]
    aspect: float
    background: int
    plain: bool = False


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object as it is visible.

    Attributes:
        label: index into CLASSES.
        color: the color it was painted in, None where it has its own.
        text: the company's name on a sign, None for other classes.
        box: the edges of the mask, in pixels of the image.
        point: the mask's innermost pixel.
        mask: (H, W) bool, its visible pixels.
        cell: (row, column) of the grid cell that contains the box's center; cells are ordered row by row.
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
    """A painted image, (H, W, 3) uint8 RGB, and its objects in reading order (by cell)."""

    image: np.ndarray
    objects: list[SceneObject] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


# --- layouts ----------------------------------------------------------------------------------------------------------
class LayoutOptions(TypedDict, total=False):
    """The options of `random_layout`, for functions that pass them on."""

    max_objects: int
    min_objects: int
    max_classes: int
    plain: bool
    sign_share: float
    painted_share: float


class _Frame(NamedTuple):
    """Where an object is placed, relative to the canvas."""

    x: float
    y: float
    width: float
    height: float

    @property
    def cell(self) -> tuple[int, int]:
        """(row, column) of the grid cell that contains the center."""
        return int((self.y + self.height / 2) * GRID), int((self.x + self.width / 2) * GRID)


@dataclass(frozen=True)
class _Style:
    """What a layout decides once for all of its objects.

    Attributes:
        smallest, largest: limits of an object's longer side.
        common_side: the one size of all objects, None where each has its own.
        painted: classes that are painted in random colors.
        drawing: the one drawing of each class, None where each object has its own.
        plain: see `random_layout`.
    """

    smallest: float
    largest: float
    common_side: float | None
    painted: set[int]
    drawing: dict[int, Sprite] | None
    plain: bool

    def side(self, label: int, attempt: int, rng: Random) -> float:
        """A random length of an object's longer side."""
        if self.common_side is None:
            side = _log_uniform(rng, self.smallest, self.largest)
        else:
            side = self.common_side * rng.uniform(*SIZE_JITTER)
        if label == SIGN:
            side = max(side, rng.uniform(*SIGN_SIDE))
        return max(SMALLEST_SHRUNK * self.smallest, side * SHRINK_PER_ATTEMPT**attempt)

    def sprite(self, label: int, drawings: Sequence[Sprite], rng: Random) -> Sprite:
        """A random drawing of a class other than SIGN."""
        sprite = rng.choice(drawings) if self.drawing is None else self.drawing[label]
        return drawings[0] if self.plain else sprite


def random_layout(
    sprites: Sequence[Sequence[Sprite]],
    rng: Random,
    *,
    max_objects: int = 12,
    min_objects: int = 1,
    max_classes: int = 5,
    plain: bool = False,
    sign_share: float = 0.12,
    painted_share: float = 0.5,
) -> Layout:
    """A random layout. Objects for which no free place is found are left out.

    Args:
        sprites: drawings by class, in the order of CLASSES; classes without any do not occur.
        rng: decides everything.
        max_objects, min_objects: the number of objects, before those without a place are left out.
        max_classes: the number of different classes is at most this.
        plain: each class shows its first drawing, unpainted and upright, on a gradient: an easy start for training.
        sign_share: share of layouts that contain a company's sign.
        painted_share: share of the paintable classes of a layout that are painted in random colors.
    """
    aspect = _log_uniform(rng, MIN_ASPECT, MAX_ASPECT)
    total = rng.randint(min_objects, max_objects)
    todo, labels = _random_labels(sprites, rng, total, max_classes, sign_share)
    style = _random_style(sprites, rng, labels, total, plain=plain, painted_share=painted_share)
    rng.shuffle(todo)
    placements: list[Placement] = []
    frames: list[_Frame] = []
    for label in todo:
        text = rng.choice(COMPANIES) if label == SIGN else None
        sprite = sign(text, rng) if text is not None else style.sprite(label, sprites[label], rng)
        painted = CLASSES[label].paintable and label in style.painted and not plain
        color = rng.choice(list(COLORS)) if painted else None
        angle = 0.0 if plain else rng.gauss(0, SIGN_TILT if label == SIGN else TILT)
        frame = _free_frame(sprite, label, angle, aspect, style, frames, rng)
        if frame is not None:
            frames.append(frame)
            flip = rng.random() < 0.5 and label != SIGN
            lighting = rng.choice(LIGHTS), rng.choice(SHADOWS)
            placements.append(Placement(sprite, *frame, angle, flip, color, text, *lighting))
    return Layout(placements, aspect, rng.getrandbits(32), plain)


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _random_labels(
    sprites: Sequence[Sequence[Sprite]], rng: Random, total: int, max_classes: int, sign_share: float
) -> tuple[list[int], list[int]]:
    """The class of each of `total` objects, each class that occurs at least once; and these classes."""
    drawable = [label for label, found in enumerate(sprites) if found]
    fewest = min(
        1 + max_classes // 6, total
    )  # layouts of many classes are for variety: one class alone is no use there
    labels = rng.sample(drawable, min(len(drawable), rng.randint(fewest, min(total, max_classes))))
    if rng.random() < sign_share:
        labels[0] = SIGN
    repeatable = [label for label in labels if label != SIGN] or labels  # one sign is enough
    return [*labels, *(rng.choice(repeatable) for _ in range(total - len(labels)))], labels


def _random_style(
    sprites: Sequence[Sequence[Sprite]],
    rng: Random,
    labels: Sequence[int],
    total: int,
    *,
    plain: bool,
    painted_share: float,
) -> _Style:
    largest = MAX_SIDE if total < CROWDED else MAX_SIDE * (CROWDED / total) ** SHRINK_LARGEST
    smallest = MIN_SIDE * min(1.0, (DENSE / total) ** SHRINK_SMALLEST)
    painted = {label for label in labels if rng.random() < painted_share}
    drawing = {label: rng.choice(sprites[label]) for label in labels if sprites[label]}
    same_drawing, same_size = rng.random() < SAME_DRAWING_SHARE, rng.random() < SAME_SIZE_SHARE
    side = _log_uniform(rng, smallest, largest)
    return _Style(smallest, largest, side if same_size else None, painted, drawing if same_drawing else None, plain)


def _free_frame(
    sprite: Sprite, label: int, angle: float, aspect: float, style: _Style, taken: Sequence[_Frame], rng: Random
) -> _Frame | None:
    """A random place in a cell of its own that hardly overlaps others; None if there is none."""
    cells = {frame.cell for frame in taken}
    for attempt in range(ATTEMPTS):
        frame = _random_frame(sprite, style.side(label, attempt, rng), angle, aspect, rng)
        if frame is None or frame.cell in cells:
            continue
        if all(_overlap(frame, other) < MAX_OVERLAP for other in taken):
            return frame
    return None


def _random_frame(sprite: Sprite, side: float, angle: float, aspect: float, rng: Random) -> _Frame | None:
    """A random place for a drawing whose longer side is `side`; None if it is too thin."""
    height, width = sprite.rgba.shape[:2]
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    w, h = (width * c + height * s) / aspect, width * s + height * c  # of the rotated drawing, in units of the canvas
    w, h = w * side / max(w, h), h * side / max(w, h)
    if min(w, h) < MIN_THICKNESS:
        return None
    return _Frame(rng.uniform(0, 1 - w), rng.uniform(0, 1 - h), w, h)


def _overlap(a: _Frame, b: _Frame) -> float:
    """Intersection over the smaller area."""
    w = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    h = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0.0, w) * max(0.0, h) / min(a.width * a.height, b.width * b.height)


def sign(text: str, rng: Random) -> Sprite:
    """A board with a company's name on it."""
    font = ImageFont.load_default(size=rng.randint(*SIGN_FONT))
    left, top, right, bottom = font.getbbox(text)
    pad = rng.randint(*SIGN_PADDING)
    width, height = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
    dark = tuple(rng.randint(*SIGN_DARK) for _ in range(3))
    light = tuple(rng.randint(*SIGN_LIGHT) for _ in range(3))
    board, ink = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    corner, border = rng.choice(SIGN_CORNERS), rng.choice(SIGN_BORDERS)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), corner, fill=board, outline=ink, width=border)
    stroke = rng.choice(SIGN_STROKES)
    draw.text((pad - left, pad - top), text, font=font, fill=ink, stroke_width=stroke, stroke_fill=ink)
    return Sprite(SIGN, "drawn", text, np.asarray(image))


# --- painting ---------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8192)
def _prepared(sprite: Sprite, color: str | None, brightness: float, side: int) -> Image.Image:
    """The drawing in its color and brightness, its longer side `side` pixels, with premultiplied alpha."""
    image = Image.fromarray(sprite.rgba, "RGBA")
    scale = side / max(image.size)
    if scale < 1:
        smaller = round(image.width * scale) or 1, round(image.height * scale) or 1
        image = image.resize(smaller, Image.Resampling.BILINEAR, reducing_gap=2.0)
    rgba = paint_in(np.asarray(image), color) if color else np.array(image)
    rgba[..., :3] = np.clip(rgba[..., :3] * brightness, 0, 255)
    return Image.fromarray(rgba, "RGBA").convert("RGBa")


def _render(placement: Placement, size: tuple[int, int]) -> Image.Image:
    """The drawing as it is pasted, (width, height) = `size`: painted, lit, flipped, rotated."""
    side = next((side for side in RASTER_SIDES if side >= OVERSAMPLING * max(size)), LARGEST_RASTER)
    if placement.text is None:
        image = _prepared(placement.sprite, placement.color, placement.brightness, side)
    else:
        image = Image.fromarray(placement.sprite.rgba, "RGBA").convert("RGBa")  # used once: not worth caching
    if placement.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if placement.angle:
        image = image.rotate(placement.angle, Image.Resampling.BILINEAR, expand=True)
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGBA")


def paint_in(rgba: np.ndarray, color: str) -> np.ndarray:
    """A drawing, (H, W, 4) uint8, in one of COLORS; dark parts (tires, outlines) keep their own color."""
    hue, saturation, value = COLORS[color]
    rgb, alpha = rgba[..., :3] / 255.0, rgba[..., 3:]
    luma = rgb @ np.array(LUMA)
    visible = alpha[..., 0] > SOLID_ALPHA
    median = float(np.median(luma[visible])) if visible.any() else 0.5
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60) % 6  # HSV to RGB, https://en.wikipedia.org/wiki/HSL_and_HSV
    target = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    shade = np.clip((luma / max(median, 0.2)) ** SHADE_POWER, *SHADE_RANGE)[..., None]
    weight = np.clip((luma - OUTLINE_LUMA) / OUTLINE_RANGE, 0, 1)[..., None]
    painted = np.clip(target * shade, 0, 1) * weight + rgb * (1 - weight)
    return np.concatenate([(painted * 255).astype(np.uint8), alpha], -1)


@lru_cache
def _scaled_levels(factor: float) -> list[int]:
    """A lookup table that multiplies gray levels."""
    return [int(v * factor) for v in range(256)]


def background(size: tuple[int, int], rng: np.random.Generator, plain: bool = False) -> Image.Image:
    """A gradient, a landscape, stripes, tiles, clouds or one color, with clutter; (width, height) = `size`."""
    from scipy import ndimage

    side = BACKGROUND_SIDE
    y, x = np.mgrid[0:side, 0:side] / side
    first, second, third = rng.uniform(*BACKGROUND_COLORS, (3, 3))
    if rng.random() < MUTED_SHARE:
        first, second, third = (v * MUTED_KEEP + v.mean() * (1 - MUTED_KEEP) for v in (first, second, third))
    turn = rng.uniform(0, 2 * math.pi)
    along = np.clip((x - 0.5) * math.cos(turn) + (y - 0.5) * math.sin(turn) + 0.5, 0, 1)[..., None]
    kind = 0 if plain else rng.integers(6)
    if kind == 0:  # gradient
        canvas = first * (1 - along) + second * along
    elif kind == 1:  # sky and ground, or wall and floor
        wave = rng.uniform(*HORIZON), rng.uniform(*HORIZON_WAVE), rng.uniform(*HORIZON_FREQUENCY)
        above = (y < wave[0] + wave[1] * np.sin(x * wave[2]))[..., None]
        sky = first * (1 - y[..., None] * SKY_FADE) + SKY_LIFT
        canvas = np.where(above, sky, second * (GROUND_SHADE + (1 - GROUND_SHADE) * y[..., None]))
    elif kind == 2:  # stripes or planks
        stripes = np.sin(along * rng.uniform(*STRIPE_FREQUENCY)) > rng.uniform(*STRIPE_DUTY)
        canvas = np.where(stripes, first, first * (1 - STRIPE_MIX) + second * STRIPE_MIX)
    elif kind == 3:  # tiles
        n = int(rng.integers(*TILES))
        even = (((x * n).astype(int) + (y * n).astype(int)) % 2 == 0)[..., None]
        canvas = np.where(even, first, first * (1 - TILE_MIX) + second * TILE_MIX)
    elif kind == 4:  # clouds or foliage
        noise = sum(
            ndimage.zoom(rng.standard_normal((k, k)), side / k, order=1) / 2**i for i, k in enumerate(NOISE_OCTAVES)
        )
        canvas = first + (second - first) * np.clip(noise * NOISE_CONTRAST + 0.5, 0, 1)[..., None]
    else:
        canvas = np.broadcast_to(first, (side, side, 3))
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    if rng.random() < CLUTTER_SHARE and not plain:
        image = _with_clutter(image, rng)
    return image


def _with_clutter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The background with translucent shapes that are no objects, at times out of focus."""
    width, height = image.size
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.integers(*CLUTTER_SHAPES)):
        u, v, w, h = rng.uniform(*CLUTTER_CORNER, 2).tolist() + rng.uniform(*CLUTTER_SIZE, 2).tolist()
        fill = (*rng.uniform(*CLUTTER_COLORS, 3).astype(int).tolist(), int(rng.integers(*CLUTTER_ALPHA)))
        where = (u * width, v * height, (u + w) * width, (v + h) * height)
        shape = rng.integers(3)
        if shape == 0:
            draw.ellipse(where, fill=fill)
        elif shape == 1:
            draw.rectangle(where, fill=fill)
        else:
            draw.line(where, fill=fill, width=int(rng.integers(*CLUTTER_LINE)))
    if rng.random() < BLUR_SHARE:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(*BLUR_RADIUS)))
    return image


def paint(layout: Layout, size: tuple[int, int]) -> Scene | None:
    """Paint a layout at `size` (width, height) in pixels.

    Returns:
        The scene, or None where an object is occluded too much or two objects share a grid cell.
    """
    from scipy import ndimage

    width, height = size
    rng = np.random.default_rng(layout.background)
    image = background(size, rng, layout.plain)
    owner = np.full((height, width), -1, np.int16)  # index of the placement that each pixel shows
    areas = []
    for i, placement in enumerate(layout.placements):
        w, h = max(3, round(placement.width * width)), max(3, round(placement.height * height))
        x, y = min(round(placement.x * width), width - w), min(round(placement.y * height), height - h)
        sprite = _render(placement, (w, h))
        alpha = sprite.getchannel("A")
        if placement.shadow:
            _paste_shadow(image, alpha, (x, y), placement.shadow)
        image.paste(sprite, (x, y), alpha)
        solid = np.asarray(alpha) > SOLID_ALPHA
        owner[y : y + h, x : x + w][solid] = i
        areas.append(int(solid.sum()))
    pixels = _photographed(np.asarray(image), rng)
    objects = []
    slices = ndimage.find_objects(owner + 1, max_label=len(areas))
    for i, placement in enumerate(layout.placements):
        visible = _visible_object(placement, owner, i, slices[i], areas[i])
        if visible is None:
            return None
        objects.append(visible)
    if len({o.cell for o in objects}) < len(objects):
        return None
    return Scene(pixels, sorted(objects, key=lambda o: o.cell))


def _paste_shadow(image: Image.Image, alpha: Image.Image, corner: tuple[int, int], opacity: float) -> None:
    """Darken the image below and to the right of a drawing that will be pasted at `corner`."""
    w, h = alpha.size
    small = max(1, w // SHADOW_BLUR), max(1, h // SHADOW_BLUR)
    soft = alpha.resize(small).resize((w, h), Image.Resampling.BILINEAR)
    offset = corner[0] + round(SHADOW_OFFSET[0] * w), corner[1] + round(SHADOW_OFFSET[1] * h)
    image.paste(SHADOW_COLOR, offset, soft.point(_scaled_levels(opacity)))


def _photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image, (H, W, 3) uint8, with random white balance, exposure, contrast and sensor noise."""
    pixels = image.astype(np.float32)
    gain = rng.uniform(*WHITE_BALANCE, 3) * rng.uniform(*EXPOSURE)
    if rng.random() < CONTRAST_SHARE:
        pixels = (pixels - MID_GRAY) * np.float32(rng.uniform(*CONTRAST)) + MID_GRAY
    noise = rng.standard_normal((*image.shape[:2], 1), dtype=np.float32) * np.float32(rng.uniform(0, MAX_NOISE))
    return np.clip(pixels * gain.astype(np.float32) + noise, 0, 255).astype(np.uint8)


def _visible_object(
    placement: Placement, owner: np.ndarray, i: int, where: tuple[slice, slice] | None, area: int
) -> SceneObject | None:
    """The object of placement `i` as it is visible; None where too much of its `area` (in pixels) is occluded."""
    if where is None:
        return None
    crop = owner[where] == i
    if crop.sum() < MIN_VISIBLE * area:
        return None
    rows, columns = where
    box = Box(columns.start, rows.start, columns.stop, rows.stop)
    mask = np.zeros(owner.shape, bool)
    mask[where] = crop
    cell = int((box.y1 + box.y2) / 2 / owner.shape[0] * GRID), int((box.x1 + box.x2) / 2 / owner.shape[1] * GRID)
    v, u = innermost(crop)
    point = Point(box.x1 + u, box.y1 + v)
    return SceneObject(placement.sprite.label, placement.color, placement.text, box, point, mask, cell)


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """(row, column) of a mask's pixel that is farthest from its edge, by the Euclidean distance transform."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(column)


def random_scene(
    sprites: Sequence[Sequence[Sprite]],
    rng: Random,
    size: tuple[int, int] | None = None,
    *,
    pixels: int = DEFAULT_PIXELS,
    **options: Unpack[LayoutOptions],
) -> Scene:
    """A random scene.

    Args:
        sprites: drawings by class, in the order of CLASSES.
        rng: decides everything.
        size: (width, height) in pixels; None for the layout's own aspect with about `pixels` pixels.
        pixels: see `size`.
        options: of `random_layout`.
    """
    side = math.sqrt(pixels)
    while True:
        layout = random_layout(sprites, rng, **options)
        at = size or (round(side * math.sqrt(layout.aspect)), round(side / math.sqrt(layout.aspect)))
        scene = paint(layout, at) if layout.placements else None
        if scene is not None:
            return scene
