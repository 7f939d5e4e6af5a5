"""A prediction as a picture: three panels (the image, boxes and points, masks), one color and number per object."""

import colorsys
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from vision_reasoner.geometry import rescale
from vision_reasoner.images import MAX_PIXELS, ImageSource, load_image
from vision_reasoner.masks import Mask
from vision_reasoner.results import Prediction, Status, Task

PANEL_SIDE = 768  # the longer side of a panel: small pictures are enlarged to it so that numbers stay legible
MARGIN = 12
TITLE_SIZE = 20
CAPTION_LINES = 4
TAG_CHARS = 24  # of an object's number and label
LABELLED = 30  # with more objects than these their labels would hide them
# Searched by Pillow in the system's font folders, for captions in other scripts than ASCII's.
WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "DejaVuSans.ttf", "Arial.ttf", "arial.ttf")

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

INK: Color = (25, 25, 25)
PAPER: Color = (255, 255, 255)


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels of a panel, finer the more objects there are."""

    line: int
    font_size: int
    dot: int


def object_colors(count: int) -> list[Color]:
    """`count` colors of which neighbors in the list differ strongly; the first ones do not change with `count`."""
    # Steps of the golden ratio keep hues apart however many there are; brightness in turns sets near hues apart.
    tones = ((0.85, 1.0), (1.0, 0.72), (0.5, 1.0))
    colors = []
    for i in range(count):
        saturation, value = tones[i % len(tones)]
        red, green, blue = colorsys.hsv_to_rgb((i * 0.618034) % 1.0, saturation, value)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colors


def draw_prediction(source: ImageSource, prediction: Prediction) -> Image.Image:
    """The three panels side by side with a caption, as a new RGB image.

    Objects are numbered from 1 in the prediction's order, with the same color in both panels.

    Args:
        source: the original image, as `load_image` takes it; upright, it has `prediction.image_size`.
        prediction: boxes, points and masks in pixels of that image.

    Raises:
        ValueError: the image has another size.
    """
    width, height = prediction.image_size
    image = load_image(source, max_pixels=max(MAX_PIXELS, width * height))  # whatever limit it was predicted under
    if image.size != (width, height):
        raise ValueError(
            f"the image must have the prediction's size {(width, height)}, got {image.size}; "
            "give the picture that was predicted on"
        )
    scale = PANEL_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    plain = image.resize(size, resampling)

    n = len(prediction.instances)  # a reply may state a count and list nothing
    style = _style(n)
    colors = object_colors(n)
    boxes = _boxes_panel(plain, prediction, colors, style)
    if not prediction.has_masks:
        masks, masks_title = plain, "masks (none were made)"
    else:
        masks, masks_title = _masks_panel(plain, prediction, colors, style), "masks"
    noun = "object" if prediction.count == 1 else "objects"
    titles = ("image", f"boxes and points: {prediction.count} {noun}", masks_title)
    return _assemble((plain, boxes, masks), titles, _caption(prediction))


def _style(count: int) -> _Style:
    if count <= 12:
        return _Style(line=4, font_size=20, dot=7)
    if count <= 30:
        return _Style(line=3, font_size=16, dot=5)
    return _Style(line=2, font_size=13, dot=4)


def _boxes_panel(plain: Image.Image, prediction: Prediction, colors: Sequence[Color], style: _Style) -> Image.Image:
    """Every box with a dark rim, its point, and its number at a corner, with its label if it has one."""
    panel = plain.copy()
    draw = ImageDraw.Draw(panel)
    boxes = [
        rescale(instance.box, from_size=prediction.image_size, to_size=panel.size) for instance in prediction.instances
    ]
    for (x1, y1, x2, y2), color in zip(boxes, colors, strict=True):
        x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
        line = min(style.line, 1 + min(x2 - x1, y2 - y1) // 12)  # a small object is not to vanish under its lines
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=INK, width=line + 2)
        draw.rectangle((x1, y1, x2, y2), outline=color, width=line)
    for (x1, y1, x2, y2), instance, color in zip(boxes, prediction.instances, colors, strict=True):
        if instance.point is not None:
            x, y = rescale(instance.point, from_size=prediction.image_size, to_size=panel.size)
            dot = min(style.dot, 2 + min(x2 - x1, y2 - y1) // 12)
            for radius, fill in ((dot + 2, INK), (dot + 1, PAPER), (dot - 1, color)):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    taken: list[Rectangle] = []
    tags = _tags(prediction)
    for tag, (x1, y1, x2, y2), color in zip(tags, boxes, colors, strict=True):
        width, height = _tag_size(tag, style)
        # Outside the corners first, where the tag hides nothing of the object, then inside.
        corners = [
            (x1, y1 - height),
            (x2 - width, y1 - height),
            (x1, y2),
            (x2 - width, y2),
            (x1 - width, y1),
            (x2, y1),
            (x1, y1),
            (x2 - width, y2 - height),
        ]
        _place_tag(draw, tag, corners, color, style, taken, panel.size)
    return panel


def _masks_panel(plain: Image.Image, prediction: Prediction, colors: Sequence[Color], style: _Style) -> Image.Image:
    """Every mask as a veil of its color with a rim, on the grayed image; the larger ones lie below."""
    gray = Image.blend(plain.convert("L").convert("RGB"), plain, 0.35)
    panel = Image.blend(gray, Image.new("RGB", plain.size, PAPER), 0.25)
    shapes: list[tuple[int, Rectangle, Image.Image]] = []
    for number, instance in enumerate(prediction.instances, start=1):
        mask = instance.mask
        if mask is not None and mask.any():
            shapes.append((number, *_shrink(mask, plain.size)))
    for number, bounds, shape in sorted(shapes, key=lambda entry: -entry[2].width * entry[2].height):
        color = colors[number - 1]
        panel.paste(color, bounds, shape.point(lambda value: value * 2 // 3))
        padded = ImageOps.expand(shape, 3, fill=0)
        rim = ImageChops.subtract(padded, padded.filter(ImageFilter.MinFilter(3 if style.line < 3 else 5)))
        panel.paste(_darker(color), bounds, ImageOps.crop(rim, 3))
    draw = ImageDraw.Draw(panel)
    taken: list[Rectangle] = []
    for number, bounds, _ in shapes:
        width, height = _tag_size(str(number), style)
        x, y = (bounds[0] + bounds[2] - width) // 2, (bounds[1] + bounds[3] - height) // 2
        steps = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1), (0, -2), (0, 2)]
        places = [(x + dx * width, y + dy * height) for dx, dy in steps]
        _place_tag(draw, str(number), places, colors[number - 1], style, taken, panel.size)
    return panel


def _shrink(mask: Mask, size: tuple[int, int]) -> tuple[Rectangle, Image.Image]:
    """Where a mask lies on a panel of `size`, and its shape there: 255 inside, 0 outside. The mask is not empty.

    Coverage is averaged over each pixel of the panel, so that thin objects of large pictures do not fall between them.
    """
    whole = Image.fromarray(np.multiply(mask, 255, dtype=np.uint8))
    left, top, right, bottom = whole.getbbox() or (0, 0, *whole.size)
    across, down = size[0] / whole.width, size[1] / whole.height
    bounds = (int(left * across), int(top * down), math.ceil(right * across), math.ceil(bottom * down))
    region = (
        bounds[0] / across,
        bounds[1] / down,
        min(bounds[2] / across, whole.width),
        min(bounds[3] / down, whole.height),
    )
    target = (bounds[2] - bounds[0], bounds[3] - bounds[1])
    coverage = whole.resize(target, Image.Resampling.BOX, box=region)
    return bounds, coverage.point(lambda value: 255 if value >= 64 else 0)


def _darker(color: Color) -> Color:
    return color[0] // 2, color[1] // 2, color[2] // 2


def _tags(prediction: Prediction) -> list[str]:
    """What is written beside each object."""
    if len(prediction.instances) > LABELLED:
        return [str(number) for number in range(1, len(prediction.instances) + 1)]
    tags = []
    for number, instance in enumerate(prediction.instances, start=1):
        label = "".join(char if char.isprintable() else " " for char in instance.label or "")
        tag = " ".join(f"{number} {label}".split())
        tags.append(tag if len(tag) <= TAG_CHARS else tag[: TAG_CHARS - 1] + "…")
    return tags


def _tag_size(tag: str, style: _Style) -> tuple[int, int]:
    """(width, height) of the tag that carries a number and perhaps a label."""
    return round(_text_font(tag, style.font_size).getlength(tag)) + style.font_size // 2, style.font_size + 4


def _place_tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    places: Sequence[tuple[int, int]],
    color: Color,
    style: _Style,
    taken: list[Rectangle],
    size: tuple[int, int],
) -> None:
    """Draw a text on its color where it hides the least of the tags already there, and note the place in `taken`.

    `places` are the wanted upper left corners, best first; each is moved into the panel of `size`.
    """
    width, height = _tag_size(text, style)
    tags: list[Rectangle] = []
    for x, y in places:
        left = min(max(x, 0), max(size[0] - width, 0))
        top = min(max(y, 0), max(size[1] - height, 0))
        tags.append((left, top, left + width, top + height))
    tag = min(tags, key=lambda candidate: sum(_overlap(candidate, other) for other in taken))
    taken.append(tag)
    bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
    draw.rectangle((tag[0], tag[1], tag[2] - 1, tag[3] - 1), fill=color, outline=INK)
    middle = ((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2)
    font = _text_font(text, style.font_size)
    draw.text(middle, text, fill=INK if bright else PAPER, font=font, anchor="mm")


def _overlap(a: Rectangle, b: Rectangle) -> int:
    """The area that two rectangles share, in square pixels."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _text_font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which has little more than ASCII, or for other text a system font if there is one."""
    if not all(ord(character) < 127 or character in "“”…" for character in text):
        for name in WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def _caption(prediction: Prediction) -> str:
    """What was asked, and what the panels do not show: the text answer, or why there are no objects."""
    lines = [f"“{' '.join(prediction.query.split())}”"]
    if prediction.answer is not None:
        lines.append(" ".join(prediction.answer.split()))
    elif prediction.task is not Task.VQA and prediction.status is not Status.OK:
        meanings = {
            Status.NONE: "the model says that nothing matches",
            Status.PARTIAL: "some objects of the reply could not be used",
            Status.TRUNCATED: "the reply was cut off",
            Status.NO_ANSWER: "the reply has no answer",
        }
        lines.append(meanings[prediction.status])
    return "\n".join(lines)


def _assemble(panels: Sequence[Image.Image], titles: Sequence[str], caption: str) -> Image.Image:
    """Panels of one size in a row, a title above each, a caption below all."""
    width, height = panels[0].size
    font = _text_font("".join([*titles, caption]), TITLE_SIZE)
    cell = max(width, round(max(font.getlength(title) for title in titles)))
    total = len(panels) * cell + (len(panels) + 1) * MARGIN
    per_line = max(20, int((total - 2 * MARGIN) / font.getlength("n")))
    lines = [piece for line in caption.splitlines() for piece in textwrap.wrap(line, per_line)]
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], lines[CAPTION_LINES - 1][: per_line - 1] + "…"]
    line_height = TITLE_SIZE + 6
    top = MARGIN + line_height
    sheet = Image.new("RGB", (total, top + height + MARGIN + len(lines) * line_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        x = MARGIN + column * (cell + MARGIN)
        draw.text((x + cell / 2, MARGIN), title, fill=INK, font=font, anchor="ma")
        sheet.paste(panel, (x + (cell - width) // 2, top))
    for row, line in enumerate(lines):
        draw.text((MARGIN, top + height + MARGIN + row * line_height), line, fill=INK, font=font)
    return sheet
