"""Further looks at an image: which views of it a request allows, and how what they show becomes one result.

A view is a window on the image, perhaps mirrored. The reasoner is asked the same about each; its boxes come back to
pixels of the image, and boxes of different views that overlap enough are one object. The share of the views that could
see an object and found it is its agreement. This module knows nothing of models.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Box, Point, Size, clamp
from vision_reasoner.matching import match_boxes, pairwise_iou
from vision_reasoner.results import Instance, Prediction, Status

Merge = Literal["first", "union", "vote"]
"""Which objects are kept: those of the first look, those of any look, or those that more than half of them found."""

MAX_LOOKS = 5
SAME_OBJECT = 0.4  # the IoU from which boxes of two views are one object
RIVAL = 0.15  # the IoU from which a box is another reading of an object that it is not matched with, and left out
MARGIN = 0.12  # of a side, which a shifted view adds beside the image: other patches, other sizes
OVERLAP = 0.25  # of a tile's side, which its neighbor sees too
CUT = 0.02  # of a tile's side: a box that comes so near to an inner edge is taken to be cut there
MAX_TILES = 64


def _words(text: str) -> re.Pattern[str]:
    """Finds any of some words or phrases, separated by commas; a Chinese character also within a word."""
    plain = [word.strip() for word in text.split(",")]
    latin = "|".join(re.escape(word) for word in plain if word.isascii())
    other = "".join(word for word in plain if not word.isascii())
    return re.compile(rf"\b(?:{latin})\b|[{other}]", re.IGNORECASE)


SIDES_AND_READING = _words(
    """
    left, right, leftmost, rightmost, clockwise, counterclockwise, anticlockwise, east, west, facing, mirror,
    mirrored, read, reads, reading, text, word, words, letter, letters, digit, digits, say, says, saying, spell,
    spells, spelled, written, writing, labeled, labelled, named, called, numbered, caption, captions, license plate,
    number plate, o'clock, 左, 右, 字, 写
    """
)
"""Requests with one of these may mean something else in a mirror."""

RELATIONS = _words(
    """
    left, right, leftmost, rightmost, top, bottom, topmost, bottommost, upper, lower, middle, center, centre,
    central, corner, edge, above, below, under, underneath, over, behind, between, beside, beneath, next to, near,
    nearer, nearest, close to, closer, closest, far, farther, farthest, further, furthest, in front, front, back,
    around, inside, outside, on, in, at, by, from, with, without, among, against, along, across, opposite, other,
    others, another, same, different, first, second, third, fourth, fifth, last, most, least, more, less, fewer,
    only, row, column, whole, entire, scene, background, foreground, picture, image, photo, who, what, which, where,
    why, than, except, largest, biggest, smallest, tiniest, tallest, shortest, longest, widest, thickest, thinnest,
    highest, lowest, oldest, youngest, newest, brightest, darkest, heaviest, lightest, fastest, slowest, larger,
    bigger, smaller, taller, shorter, 左, 右, 上, 下, 中, 最, 前, 后, 旁
    """
)
"""Requests with one of these are about the whole image; a part of it may give another answer."""

WHOLE_IMAGE = re.compile(
    r"\b(?:in|on|of|from|within) (?:the|this|that|your) (?:\w+ )?(?:picture|image|photo\w*)\b", re.I
)
"""What requests say of the image itself, which relates nothing to anything."""

ASKING = re.compile(r"\bhow many\b|\bwhat (?:number|is the number|amount) of\b", re.I)


@dataclass(frozen=True)
class View:
    """A window on an image, as a model may be shown it.

    Attributes:
        window: its edges in pixels of the image, xyxy; may reach beyond the image, where it is of the image's mean
            color.
        mirrored: whether left and right are exchanged.
    """

    window: Box
    mirrored: bool = False

    @property
    def size(self) -> Size:
        """(width, height) of what is shown."""
        return self.window.x2 - self.window.x1, self.window.y2 - self.window.y1

    def show(self, image: Image.Image) -> Image.Image:
        """The view of an RGB image; the image itself where the view is all of it."""
        if self == whole(image.size):
            return image
        x1, y1, x2, y2 = self.window
        inside = Box(max(x1, 0), max(y1, 0), min(x2, image.width), min(y2, image.height))
        shown = image.crop(inside)
        if inside != self.window:
            color = tuple(int(value) for value in np.asarray(image.resize((16, 16))).reshape(-1, 3).mean(axis=0))
            canvas = Image.new("RGB", self.size, color)
            canvas.paste(shown, (inside.x1 - x1, inside.y1 - y1))
            shown = canvas
        return shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else shown

    def back(self, found: Instance, size: Size) -> Instance | None:
        """An object that was found in the view, without mask, in pixels of the image; None where it lies outside."""
        box, point = found.box, found.point
        if self.mirrored:
            width = self.size[0]
            box = Box(width - box.x2, box.y1, width - box.x1, box.y2)
            point = None if point is None else Point(width - point.x, point.y)
        dx, dy = self.window[:2]
        moved = Box(*map(int, clamp((box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy), size)))
        if moved.x1 >= moved.x2 or moved.y1 >= moved.y2:
            return None
        if point is not None:
            point = Point(*map(int, clamp((point.x + dx, point.y + dy), size)))
        return replace(found, box=moved, point=point)

    def holds(self, box: Box, size: Size) -> bool:
        """Whether a box in pixels of the image lies wholly within the window, and no edge cuts it."""
        x1, y1, x2, y2 = self.window
        inside = x1 <= box.x1 and y1 <= box.y1 and box.x2 <= x2 and box.y2 <= y2
        return inside and not self.cuts(box, size)

    def cuts(self, box: Box, size: Size) -> bool:
        """Whether a box in pixels of the image reaches an edge of the window that is none of the image."""
        near = [CUT * side for side in self.size]
        x1, y1, x2, y2 = self.window
        return (
            (x1 > 0 and box.x1 - x1 < near[0])
            or (y1 > 0 and box.y1 - y1 < near[1])
            or (x2 < size[0] and x2 - box.x2 < near[0])
            or (y2 < size[1] and y2 - box.y2 < near[1])
        )


def whole(size: Size) -> View:
    """The view that is all of an image of `size`, as it is."""
    return View(Box(0, 0, *size))


def views(size: Size, query: str, looks: int, tiles: tuple[int, int] | None = None) -> list[View]:
    """The views to ask about, the plain one first.

    Args:
        size: (width, height) of the image in pixels.
        query: the request; decides whether mirrored views and tiles are used.
        looks: how many views of the whole image, 1 to MAX_LOOKS.
        tiles: (rows, columns) of further views, which overlap; None for none.
    """
    width, height = size
    dx, dy = max(1, round(MARGIN * width)), max(1, round(MARGIN * height))
    shifted = [
        View(Box(-dx, -dy, width, height)),
        View(Box(0, 0, width + dx, height + dy)),
        View(Box(-dx, 0, width, height + dy)),
        View(Box(0, -dy, width + dx, height)),
    ]
    plain = [whole(size), *shifted]
    if not SIDES_AND_READING.search(query):
        mirrored = [replace(view, mirrored=True) for view in plain]
        plain = [plain[0], mirrored[0], *shifted[:2], mirrored[1]]
    found = plain[:looks]
    if tiles is not None and not is_about_all(query):
        found += [View(window) for window in _tile_windows(size, *tiles)]
    return found


def check_looks(looks: int) -> None:
    """Raise a UsageError unless there can be so many looks."""
    if type(looks) is not int or not 1 <= looks <= MAX_LOOKS:
        raise UsageError(f"looks must be a whole number from 1 to {MAX_LOOKS}, got {looks!r}")


def is_about_all(query: str) -> bool:
    """Whether a request relates objects to each other or to the whole image, so that no part answers for it."""
    return bool(RELATIONS.search(WHOLE_IMAGE.sub(" ", ASKING.sub(" ", query))))


def parse_tiles(text: str) -> tuple[int, int]:
    """`"2x3"` as (2, 3) rows and columns.

    Raises:
        UsageError: it is nothing of that kind, or more than MAX_TILES.
    """
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)
    rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 2 <= rows * columns <= MAX_TILES:
        raise UsageError(f"--tiles {text}: give rows x columns such as 2x2, 2 to {MAX_TILES} tiles, or auto")
    return rows, columns


def auto_tiles(size: Size, frame_side: int) -> tuple[int, int] | None:
    """Rows and columns of tiles that a model sees at about half of their own size or more; None for small images.

    Args:
        size: (width, height) of the image in pixels.
        frame_side: the side of the square that the model sees.
    """
    rows, columns = (math.ceil(side / (2 * frame_side)) for side in (size[1], size[0]))
    if rows * columns < 2:
        return None
    while rows * columns > MAX_TILES:
        rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
    return rows, columns


def _tile_windows(size: Size, rows: int, columns: int) -> list[Box]:
    """Windows of one size that cover the image and overlap by OVERLAP of their sides."""

    def spans(side: int, n: int) -> list[tuple[int, int]]:
        length = min(side, math.ceil(side / (n - (n - 1) * OVERLAP)))
        starts = [round(k * (side - length) / max(n - 1, 1)) for k in range(n)]
        return [(start, start + length) for start in starts]

    across, down = spans(size[0], columns), spans(size[1], rows)
    return [Box(x1, y1, x2, y2) for y1, y2 in down for x1, x2 in across]


@dataclass
class _Object:
    """What several views take for one object.

    Attributes:
        found: as each view that found it says, in pixels of the image.
        finders: the numbers of these views.
    """

    found: list[Instance]
    finders: list[int]

    @property
    def box(self) -> Box:
        """The mean of its boxes, rounded."""
        return Box(*(int(value + 0.5) for value in np.mean([one.box for one in self.found], axis=0)))


def merge(
    found: Sequence[Iterable[Instance]], shown: Sequence[View], size: Size, how: Merge = "union"
) -> list[Instance]:
    """The objects that were found in views of one image, each once, with its votes.

    The boxes of a view are matched one to one to the objects that earlier views found. A box that is not matched but
    overlaps an object is taken for another reading of it, and left out. An object has the mean of its boxes, the
    point of the first view that found it, and the place in the order in which it was found. A box that the edge of a
    tile cuts is left to the view beside it.

    Args:
        found: for each view what was found in it, in pixels of the view, without masks.
        shown: the views, the plain one first.
        size: (width, height) of the image.
        how: which objects are kept.
    """
    objects: list[_Object] = []
    for number, (instances, view) in enumerate(zip(found, shown, strict=True)):
        moved = [back for instance in instances if (back := view.back(instance, size)) is not None]
        _add(objects, [instance for instance in moved if not view.cuts(instance.box, size)], number)
    kept = []
    for one in objects:
        could = {number for number, view in enumerate(shown) if view.holds(one.box, size)}
        votes = len(one.finders), len(could.union(one.finders))
        if how == "union" or (one.finders[0] == 0 if how == "first" else 2 * votes[0] > votes[1]):
            likelihoods = [each.likelihood for each in one.found if each.likelihood is not None]
            likelihood = sum(likelihoods) / len(likelihoods) if likelihoods else None
            kept.append(replace(one.found[0], box=one.box, likelihood=likelihood, votes=votes))
    return kept


def _add(objects: list[_Object], instances: Sequence[Instance], number: int) -> None:
    """Join what view `number` found to the objects so far."""
    if not objects:
        objects += [_Object([instance], [number]) for instance in instances]
        return
    iou = pairwise_iou([instance.box for instance in instances], [one.box for one in objects])
    pairs = dict(match_boxes([one.box for one in instances], [one.box for one in objects], min_iou=SAME_OBJECT))
    for i, instance in enumerate(instances):
        if i in pairs:
            objects[pairs[i]].found.append(instance)
            objects[pairs[i]].finders.append(number)
        elif iou[i].max() < RIVAL:
            objects.append(_Object([instance], [number]))


def combine(readings: Sequence[Prediction], shown: Sequence[View], size: Size, how: Merge) -> Prediction:
    """What was found in views of one image as one result: text and status of the first look, objects of all.

    Args:
        readings: what was found in each view, without masks, in pixels of the view.
        shown: the views, the plain one first.
        size: (width, height) of the image.
        how: which objects are kept.
    """
    first = readings[0]
    instances = merge([reading.instances for reading in readings], shown, size, how)
    warnings, status = list(first.warnings), first.status
    for number, reading in enumerate(readings[1:], start=2):
        warnings += [f"look {number}: {warning}" for warning in reading.warnings]
    if instances and not first.instances:
        warnings.append(f"the first look found nothing ({status}); the {len(instances)} objects are of further looks")
        status = Status.OK
    elif first.instances and not instances:
        warnings.append("no object was found by more than half of the looks")
        status = Status.NONE
    timings: dict[str, float] = {}
    for reading in readings:
        for stage, seconds in reading.timings.items():
            timings[stage] = timings.get(stage, 0.0) + seconds
    answer = None if instances else first.answer  # a count in words stands where no look lists objects
    return replace(first, instances=instances, answer=answer, status=status, warnings=warnings, timings=timings)
