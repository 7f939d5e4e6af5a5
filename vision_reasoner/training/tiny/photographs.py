"""Annotated photographs as scenes, and requests about them: what VisionReasoner-Tiny learns new classes from.

Rows to train on (`data.rows`) that ask for one class each are put together by their picture. A photograph then is a
`Scene` without masks, whose labels go on where those of scenes end, and is asked about in the same wordings.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision_reasoner import looks
from vision_reasoner.data.rows import check_single_classes
from vision_reasoner.data.solutions import read_solution
from vision_reasoner.data.tables import Row
from vision_reasoner.geometry import Box, Point
from vision_reasoner.matching import pairwise_iou
from vision_reasoner.models.engine import frame_image
from vision_reasoner.prompts import normalize_query
from vision_reasoner.scenes import requests
from vision_reasoner.scenes.classes import CLASS_INDEX, CLASSES, ObjectClass
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject
from vision_reasoner.training.tiny.architecture import (
    CELL,
    CELLS,
    CLAIM,
    NO_CLASS,
    SIDE,
    CellTruth,
    ConceptCodebook,
    cell_centers,
)

BACKGROUND = ObjectClass("nothing", "nothing", ())  # holds the place of NO_CLASS
NO_MASK = np.zeros((0, 0), np.bool_)  # what is trained on photographs reads boxes and points alone

TEMPLATES: tuple[tuple[requests.RequestTemplate, float], ...] = (
    (requests.by_name, 30),
    (requests.counting, 15),
    (requests.absent, 12),
    (requests.by_several, 8),
    (requests.by_size, 4),
    (requests.by_place, 4),
    (requests.by_relation, 4),
)

# --- what the tower says
DUPLICATE = 0.5  # the IoU from which two claims of a class are one object

# --- augmentation
ZOOM = (0.45, 1.2)  # the side of the part that is shown, over the picture's: tiles are half, above 1 it is made smaller
STRETCH = 1.12  # at most, of width over height
MIN_SHOWN = 0.4  # of an object's box: an object with less of it inside the part is not asked for
MIN_PIXELS = 2  # of its sides
CONTRAST, BRIGHTNESS, TINT = (0.75, 1.3), 25, (0.9, 1.1)  # factor; gray levels, either way; factor of each channel
MID_GRAY = 128
NOISE = 6  # at most; standard deviation in gray levels


@dataclass(frozen=True)
class Photographs:
    """Annotated photographs.

    Attributes:
        scenes: each a square of any size, with its objects; of more than SIDE pixels, views of parts show more detail.
        asked: for each the labels that its rows ask for.
        classes: what labels are indices into: those of scenes, BACKGROUND, and those that were added.
    """

    scenes: list[Scene]
    asked: list[frozenset[int]]
    classes: list[ObjectClass]

    @property
    def added(self) -> list[ObjectClass]:
        return self.classes[NO_CLASS + 1 :]


@dataclass(frozen=True)
class View:
    """A view of a photograph.

    Attributes:
        scene: what is seen, SIDE x SIDE.
        looked_for: labels that may be asked for where the scene has none of them.
    """

    scene: Scene
    looked_for: frozenset[int]


def plural_of(name: str) -> str:
    """A name's plural, by the rule; a name that ends like one is one.

    >>> [plural_of(name) for name in ("red blood cell", "box", "berry", "wbcs")]
    ['red blood cells', 'boxes', 'berries', 'wbcs']
    """
    if name.endswith(("x", "ch", "sh", "ss")):
        return name + "es"
    if name.endswith("y") and name[-2:-1] not in tuple("aeiou"):
        return name[:-1] + "ies"
    return name if name.endswith("s") else name + "s"


def read_photographs(rows: Iterable[Row], known: Sequence[str] = ()) -> Photographs:
    """Put rows together by their picture.

    Args:
        rows: as `policies.table_rows` has them, in their own frame; their problem is the name of a class, and every
            object of that class is in the solution.
        known: names of the classes that were added to the checkpoint before, in their order.

    Raises:
        DataError: a row asks for several classes at once.
    """
    names: dict[str, int] = {}
    classes = [*CLASSES, BACKGROUND, *(ObjectClass(name, plural_of(name), ()) for name in known)]
    labels = CLASS_INDEX | {name: NO_CLASS + 1 + k for k, name in enumerate(known)}
    pictures: dict[str, np.ndarray] = {}
    objects: dict[str, list[SceneObject]] = {}
    asked: dict[str, set[int]] = {}
    ids: dict[str, str] = {}
    for row in rows:
        name = normalize_query(row["problem"]).strip()
        ids.setdefault(name, row["id"])
        if name not in names:
            names[name] = labels.get(name, len(classes))
            if name not in labels:
                classes.append(ObjectClass(name, plural_of(name), ()))
        pixels = np.asarray(row["image"].convert("RGB"))
        key = hashlib.sha256(pixels.tobytes()).hexdigest()
        pictures[key] = pixels
        asked.setdefault(key, set()).add(names[name])
        solution = read_solution(row["solution"], model_size=row["image"].size)
        for box, (x, y) in zip(solution.boxes.astype(int).tolist(), solution.points.astype(int).tolist(), strict=True):
            edges = Box.from_inclusive(*box)
            objects.setdefault(key, []).append(
                SceneObject(names[name], None, None, edges, Point(x, y), NO_MASK, (0, 0))
            )
    check_single_classes(ids)
    scenes = [Scene(pixels, objects.get(key, [])) for key, pixels in pictures.items()]
    return Photographs(scenes, [frozenset(asked[key]) for key in pictures], classes)


def random_view(photographs: Photographs, number: int, rng: Random, flips: Sequence[str] = ("horizontal",)) -> View:
    """A photograph zoomed, moved, mirrored and in another light.

    Objects that are mostly outside are left out; their class is not among those that may be said not to be there.

    Args:
        photographs: has it.
        number: of the photograph.
        rng: decides everything.
        flips: ways in which it may be mirrored, "horizontal" and "vertical".
    """
    scene = photographs.scenes[number]
    whole = len(scene.image)
    height = rng.uniform(*ZOOM) * whole
    width = height * rng.uniform(1 / STRETCH, STRETCH)
    x, y = (rng.uniform(min(0, whole - side), max(0, whole - side)) for side in (width, height))
    x1, y1 = round(x), round(y)
    window = Box(x1, y1, x1 + max(1, round(width)), y1 + max(1, round(height)))
    image = frame_image(looks.View(window).show(Image.fromarray(scene.image)), (SIDE, SIDE))  # as inference does
    mirrored = ["horizontal" in flips and rng.random() < 0.5, "vertical" in flips and rng.random() < 0.5]
    pixels = np.asarray(image)[:: -1 if mirrored[1] else 1, :: -1 if mirrored[0] else 1]
    found, unsure = [], set()
    for o in scene.objects:
        moved, shown = _moved(o, window, mirrored)
        if moved is not None:
            found.append(moved)
        elif shown > 0:
            unsure.add(o.label)
    return View(Scene(_in_another_light(pixels, rng), found), photographs.asked[number] - unsure)


def _moved(o: SceneObject, window: Box, mirrored: Sequence[bool]) -> tuple[SceneObject | None, float]:
    """An object in a view, None where it is mostly outside; and the share of its box that is inside."""
    edges: list[tuple[int, int]] = []
    points: list[int] = []
    shown = 1.0
    for axis in range(2):
        corner, scale = window[axis], SIDE / (window[axis + 2] - window[axis])
        low, high = ((v - corner) * scale for v in (o.box[axis], o.box[axis + 2]))
        at = (o.point[axis] + 0.5 - corner) * scale
        if mirrored[axis]:
            low, high, at = SIDE - high, SIDE - low, SIDE - at
        inside = max(0.0, low), min(float(SIDE), high)
        shown *= max(0.0, inside[1] - inside[0]) / (high - low)
        first, last = round(inside[0]), round(inside[1])
        if last - first < MIN_PIXELS:
            return None, shown
        edges.append((first, last))
        points.append(int(at) if first <= int(at) < last else (first + last) // 2)
    if shown < MIN_SHOWN:
        return None, shown
    (x1, x2), (y1, y2) = edges
    box = Box(x1, y1, x2, y2)
    cell = ((y1 + y2) // (2 * CELL), (x1 + x2) // (2 * CELL))
    return replace(o, box=box, point=Point(*points), cell=cell), shown


def _in_another_light(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Contrast, brightness, tint and noise."""
    tint = np.array([rng.uniform(*TINT) for _ in range(3)], np.float32)
    gain = tint * rng.uniform(*CONTRAST)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, np.float32)
    changed = (pixels - np.float32(MID_GRAY)) * gain + MID_GRAY + rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    return np.clip(changed + rng.uniform(0, NOISE) * noise, 0, 255).astype(np.uint8)


def cell_weights(truth: CellTruth, photographs: int) -> Tensor:
    """How much each cell's class and numbers count, (cells,): more where objects are small, or of a rare class.

    Few cells show a small object, and what it takes for a box to be right is relative to its size.

    Args:
        truth: of pictures, of which the first are photographs.
        photographs: how many; the mean over their cells that show objects is 1, as is every weight of the others.
    """
    there = (truth.label != NO_CLASS) & (torch.arange(len(truth.label)) < photographs * CELLS)
    weights = torch.ones(len(there))
    if there.any():
        sides = (truth.numbers[there, 2:4] - truth.numbers[there, :2]).clamp(min=1 / CELL)
        count = torch.bincount(truth.label[there]).float()
        of_photographs = count[truth.label[there]].rsqrt() / sides.prod(1).sqrt()
        weights[there] = of_photographs / of_photographs.mean()
    return weights


def objects_seen(tokens: Tensor, codebook: ConceptCodebook) -> list[SceneObject]:
    """What the vision tower says of a picture: an object for each cell that claims one, without duplicates.

    Args:
        tokens: (CELLS, WIDTH) of the picture.
        codebook: the vectors that they are sums of.
    """
    numbers, classes = tokens @ codebook.numbers.T, tokens @ codebook.classes.T
    classes[:, NO_CLASS] = -torch.inf
    labels, objectness = classes.argmax(1).tolist(), numbers[:, -1].tolist()
    edges = (numbers[:, :6] * CELL + cell_centers().repeat(1, 3)).round().clamp(0, SIDE - 1).int().tolist()
    found: list[SceneObject] = []
    for cell in numbers[:, -1].argsort(descending=True).tolist():
        x1, y1, x2, y2, x, y = edges[cell]
        if objectness[cell] < CLAIM or x2 - x1 < MIN_PIXELS or y2 - y1 < MIN_PIXELS:
            continue
        box = Box.from_inclusive(x1, y1, x2, y2)
        same = [o.box for o in found if o.label == labels[cell]]
        if not same or pairwise_iou([box], same).max() < DUPLICATE:
            found.append(SceneObject(labels[cell], None, None, box, Point(x, y), NO_MASK, divmod(cell, GRID)))
    return found


def photograph_requests(view: View, classes: Sequence[ObjectClass], rng: Random, n: int) -> list[requests.Request]:
    """Up to `n` requests about a view, some for annotated classes that it does not show."""
    context = requests.RequestContext(view.scene, rng, classes=classes, looked_for=sorted(view.looked_for))
    return requests.requests_about(context, TEMPLATES, n)
