"""Generated scenes as data sets to evaluate on: a set for each kind of request, in the schema that its suite reads.

Scenes come from seeds that training does not use, requests from the wordings that are held out from it. Boxes, points
and masks are exact. Needs the `train` extra and the drawings (`python -m vision_reasoner.scenes.art`).
"""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vision_reasoner.data.sources import Row
from vision_reasoner.masks import Mask
from vision_reasoner.scenes import requests as templates
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.classes import CLASSES
from vision_reasoner.scenes.requests import Request, RequestContext, RequestTemplate
from vision_reasoner.scenes.scene import Scene, random_scene

SEED = 9_100_000_000  # the model card's; far from those of all training stages
STREAM = 1_000_003  # between the seeds of two kinds: more than the scenes of any set


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        suite: the name of the suite that measures it.
        stream: tells its scenes from those of other kinds at the same seed; stays the same when others are added.
        templates: what makes the requests; one is drawn for each scene. Without any there is a row for each object.
        objects: how many objects a scene has, at least and at most.
        pixels: about how many an image has; None for that of the options.
    """

    suite: str
    stream: int
    templates: tuple[RequestTemplate, ...] = ()
    objects: tuple[int, int] = (1, 12)
    pixels: int | None = None


REFERRING = (
    templates.by_color,
    templates.by_size,
    templates.by_place,
    templates.by_relation,
    templates.by_between,
    templates.by_several,
    templates.by_purpose,
)
QUESTIONS = (
    templates.ask_name,
    templates.ask_color,
    templates.ask_there,
    templates.ask_what,
    templates.ask_side,
)
KINDS = {
    "counting": Kind("counting", 1, (templates.counting,)),
    "by_name": Kind("grounding", 2, (templates.by_name,)),
    "referring": Kind("segmentation", 3, REFERRING),
    "purpose": Kind("segmentation", 4, (templates.by_purpose,)),
    "absent": Kind("grounding", 5, (templates.absent,)),
    "questions": Kind("vqa", 6, QUESTIONS),
    "signs": Kind("vqa", 7, (templates.ask_name,)),
    "objects": Kind("segmenter", 0),
    "large": Kind("grounding", 8, (templates.by_name,), objects=(10, 40), pixels=1600 * 1200),
}


@dataclass(frozen=True)
class SceneOptions:
    """How scenes are made and stored.

    Attributes:
        split: of the drawings, see `scenes.art.SPLITS`.
        seed: other seeds, other scenes.
        pixels: about how many an image has.
        quality: of WebP, 1 to 100; None stores the exact pixels, which takes five times the space.
    """

    split: str
    seed: int = SEED
    pixels: int = 640 * 480
    quality: int | None = None


def rows_of(name: str, n: int, options: SceneOptions, *, first: int = 0) -> Iterator[Row]:
    """The rows of a set.

    Args:
        name: one of KINDS.
        n: how many scenes.
        options: how they are made.
        first: the number of the first image, in its id.

    Raises:
        VisionReasonerError: the drawings are not there.
    """
    kind = KINDS[name]
    if not kind.templates:
        yield from _object_rows(n, options)
        return
    for number, (scene, request) in enumerate(scene_requests(name, n, options), start=first):
        row = {**common_columns(scene, number, number, request.query, options), **_truth(kind, scene, request)}
        yield _as_question(row) if kind.suite == "vqa" else row


def scene_requests(name: str, n: int, options: SceneOptions) -> Iterator[tuple[Scene, Request]]:
    """`n` scenes with a request each; scenes that do not offer one are passed over."""
    sprites = load_sprites(options.split)
    made = i = 0
    while made < n:
        rng = random.Random(options.seed + STREAM * KINDS[name].stream + i)
        i += 1
        fewest, most = KINDS[name].objects
        pixels = KINDS[name].pixels or options.pixels
        scene = random_scene(sprites, rng, min_objects=fewest, max_objects=most, pixels=pixels)
        request = rng.choice(KINDS[name].templates)(RequestContext(scene, rng, held_out=True))
        # what is there and what is not are sets of their own
        if request is not None and (request.kind == "absent") == (name == "absent"):
            made += 1
            yield scene, request


def _truth(kind: Kind, scene: Scene, request: Request) -> Row:
    boxes = [list(scene.objects[i].box) for i in request.targets]
    if kind.suite == "counting":
        return {"count": len(boxes)}
    if kind.suite == "grounding":
        return {"bbox": boxes}
    if kind.suite == "segmentation":
        return {"mask": target_mask(scene, request), "bbox": boxes[0] if len(boxes) == 1 else None}
    assert request.answer is not None
    return {"answers": [request.answer.text]}


def _as_question(row: Row) -> Row:
    text, answers = row.pop("text"), row.pop("answers")
    return {**row, "question": text, "answers": answers}


def target_mask(scene: Scene, request: Request) -> Mask:
    """The union of the targets' masks, (H, W) bool."""
    width, height = scene.size
    return np.logical_or.reduce([np.zeros((height, width), bool), *(scene.objects[i].mask for i in request.targets)])


def _object_rows(n: int, options: SceneOptions) -> Iterator[Row]:
    """A row for each object of `n` scenes."""
    sprites = load_sprites(options.split)
    for number in range(n):
        scene = random_scene(sprites, random.Random(options.seed - number), max_objects=12, pixels=options.pixels)
        for i, found in enumerate(scene.objects):
            truth = {"mask": found.mask, "bbox": list(found.box), "point": list(found.point)}
            yield {**common_columns(scene, number, i, found.name, options), **truth}


def common_columns(scene: Scene, image_id: int, ann_id: int, text: str, options: SceneOptions) -> Row:
    """The columns that every set has."""
    width, height = scene.size
    return {
        "image": _stored(scene, options.quality),
        "text": text,
        "image_id": str(image_id),
        "ann_id": str(ann_id),
        "img_height": height,
        "img_width": width,
    }


def _stored(scene: Scene, quality: int | None) -> dict[str, Any]:
    """The image as `datasets.Image` keeps it."""
    out = io.BytesIO()
    image = Image.fromarray(scene.image)
    if quality is None:
        image.save(out, "WEBP", lossless=True, quality=0, method=0)  # ten times as fast as method 4, 10 % larger
    else:
        image.save(out, "WEBP", quality=quality)
    return {"bytes": out.getvalue(), "path": None}


# --- the bundled sets -------------------------------------------------------------------------------------------------
BUNDLED_OPTIONS = SceneOptions(
    split="held_out",
    seed=11_000_000_000,  # far from every training stage's, and from the model card's
    pixels=360 * 270,
    quality=80,
)


def _bundled_segmentation() -> list[Row]:
    """Referring, reasoning and purpose requests, and 40 for what is not there; a box where the target is one."""
    rows: list[Row] = []
    for name, n in (("referring", 140), ("purpose", 40), ("absent", 40)):
        for row in rows_of(name, n, BUNDLED_OPTIONS, first=len(rows)):
            height, width = row["img_height"], row["img_width"]
            mask = row.get("mask", np.zeros((height, width), bool)).tolist()
            rows.append({**row, "mask": mask, "bbox": row["bbox"] or None})
    return rows


def _bundled_detection() -> tuple[list[Row], dict[str, Any]]:
    """One row for each image and class in it, as coco_val has; and the same as an instances JSON."""
    sprites = load_sprites(BUNDLED_OPTIONS.split)
    rows: list[Row] = []
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": c.name} for i, c in enumerate(CLASSES)],
    }
    image_id = 0
    while len(rows) < 220:
        image_id += 1
        rng = random.Random(BUNDLED_OPTIONS.seed - image_id)
        scene = random_scene(sprites, rng, max_objects=12, min_objects=3, pixels=BUNDLED_OPTIONS.pixels)
        width, height = scene.size
        coco["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "width": width, "height": height})
        for label, members in sorted(RequestContext(scene, random.Random(0)).by_label.items()):
            row = common_columns(scene, image_id, len(rows), CLASSES[label].name, BUNDLED_OPTIONS)
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


def bundled_sets() -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """The rows of the bundled sets by suite, and the instances JSON of "detection"."""
    boxes, instances = _bundled_detection()
    counts, questions = (list(rows_of(kind, 200, BUNDLED_OPTIONS)) for kind in ("counting", "questions"))
    sets = {"segmentation": _bundled_segmentation(), "detection": boxes, "counting": counts, "vqa": questions}
    return sets, instances
