"""Prepares rows to train on from official annotations or from scenes.

    python -m vision_reasoner.training.prepare coco --annotations instances_train2017.json --images train2017 \\
        --output_dir data/coco --n 2000
    python -m vision_reasoner.training.prepare lvis --annotations lvis_v1_train.json --images coco \\
        --output_dir data/lvis
    python -m vision_reasoner.training.prepare refcoco --refs "refcocog/refs(umd).p" \\
        --annotations refcocog/instances.json --images train2014 --output_dir data/refcocog
    python -m vision_reasoner.training.prepare grefcoco --refs "grefs(unc).json" \\
        --annotations instances_train2014.json --images train2014 --output_dir data/grefcoco
    python -m vision_reasoner.training.prepare corrections --data corrections/segmentation.jsonl --output_dir data/mine
    python -m vision_reasoner.training.prepare scenes --n 2000 --output_dir data/scenes
    python -m vision_reasoner.training.prepare rows --data Ricky06662/VisionReasoner_multi_object_7k_840 \\
        --format verl --output_dir data/verl

`coco`, `voc`, `yolo`, `labelme` and `label_studio` read your own images as you have annotated them. `rows` takes rows
that are prepared already, checks them, and writes them for another training engine (--format).
vision_reasoner/data/rows.py says what is in a row.

A request is left out when one of its objects is a crowd, of a category that LVIS did not annotate exhaustively, too
small for the frame, or when SAM2 does not find its mask again from box and point. Rows are balanced by number of
objects, as far as the data allows. Some requests have nothing to find, and some join two or three requests for the same
image.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from vision_reasoner.cli import is_quiet
from vision_reasoner.data.annotations import Annotation, Instances, OnBad, Reference, read_references
from vision_reasoner.data.formats.command import FORMATS, add_format_flags, read_format
from vision_reasoner.data.rows import (
    LAYOUTS,
    check_row,
    columns_of,
    load_rows,
    make_row,
    open_rows,
    target_of,
)
from vision_reasoner.data.tables import Row, encoded, table_command, write_table
from vision_reasoner.errors import CheckpointError, DataError, ImageError, UsageError, VisionReasonerError
from vision_reasoner.formats.labeled import open_picture, read_results
from vision_reasoner.geometry import Size
from vision_reasoner.masks import Mask
from vision_reasoner.models.reasoner import FRAME_SIDE
from vision_reasoner.results import Instance, Status, Task
from vision_reasoner.scenes.art import SPLITS

if TYPE_CHECKING:
    from vision_reasoner.models.segmenter import Segmenter
    from vision_reasoner.scenes.art import Sprite
    from vision_reasoner.scenes.scene import Scene

logger = logging.getLogger(__name__)

MANY = 10  # objects; answers with as many or more are one kind when answers are balanced
MAX_OBJECTS = 30  # of a request; each takes some 40 tokens of a reply, whose limit is 2000
MIN_SAM2_IOU = 0.7  # below, box and point of an object lead SAM2 to another mask than the annotated one
MIN_SIDE_SHARE = 100  # of the frame's side to the smallest object's: whole pixels are too coarse for smaller boxes
TINY_SIDE = 280  # the frame of VisionReasoner-Tiny, which scenes are for (tiny.SIDE, without importing torch)
SCENE_OBJECTS = 12  # at most in a scene, as in the scenes that VisionReasoner-Tiny was trained on
SCENE_REQUESTS = 6  # asked of one scene
SCENE_CHOICE = 3  # requests made for each that is taken


class ImageLike(Protocol):
    """An image that can be opened: `annotations.AnnotatedImage`, `CorrectedImage` or `SceneImage`."""

    @property
    def id(self) -> str: ...
    def open(self) -> Image.Image: ...


class ObjectLike(Protocol):
    """An object of it: `annotations.Annotation`, `CorrectedObject` or `SceneObject`."""

    @property
    def id(self) -> str: ...
    def mask(self) -> Mask: ...


@dataclass(frozen=True)
class Sample:
    """A request that could become a row, before its image is opened and its masks are drawn."""

    id: str
    query: str
    image: ImageLike
    objects: tuple[ObjectLike, ...]


# --- annotated images -------------------------------------------------------------------------------------------------
def category_samples(instances: Instances, rng: Random) -> list[Sample]:
    """A request for each category in each image, and one for a category that the image does not have."""
    samples = []
    for number, image in instances.images.items():
        found = instances.by_image.get(number, [])
        uncertain = instances.uncertain(number) | {a.category for a in found if a.crowd}
        for category in dict.fromkeys(a.category for a in found if a.category not in uncertain):
            objects = tuple(a for a in found if a.category == category)
            samples.append(Sample(f"{number}/{category}", instances.categories[category], image, objects))
        absent = instances.absent(number)
        if absent:
            category = rng.choice(absent)
            samples.append(Sample(f"{number}/{category}", instances.categories[category], image, ()))
    return samples


def reference_samples(references: Sequence[Reference], instances: Instances, rng: Random) -> list[Sample]:
    """A request for each phrase, and requests with nothing to find.

    An image without a phrase of its own that has no target gets one of another image, if it has no object of the
    categories that this one means.
    """
    samples, with_none = [], {r.image_id for r in references if not r.objects}
    for r in references:
        objects = tuple(instances.objects_of(r))
        for number, phrase in enumerate(r.phrases):
            samples.append(Sample(f"{r.id}/{number}", phrase, instances.images[r.image_id], objects))
    elsewhere = [r for r in references if r.objects]
    for image_id in dict.fromkeys(r.image_id for r in elsewhere):
        other = rng.choice(elsewhere)
        absent = instances.absent(image_id)
        if image_id not in with_none and all(a.category in absent for a in instances.objects_of(other)):
            image = instances.images[image_id]
            samples.append(Sample(f"{image_id}/{other.id}", rng.choice(other.phrases), image, ()))
    return samples


def known_references(references: Sequence[Reference], instances: Instances, on_bad: OnBad) -> list[Reference]:
    """The references whose image and objects are among the instances; `on_bad` gets what is wrong with the others."""
    known = []
    for reference in references:
        try:
            instances.objects_of(reference)
        except DataError as error:
            on_bad(error)
        else:
            known.append(reference)
    return known


def boxes_as_polygons(instances: Instances) -> Instances:
    """The same instances, where an object that has a box alone gets a rectangle as its polygon."""

    def outlined(a: Annotation) -> Annotation:
        x1, y1, x2, y2 = a.box
        return a if a.segmentation else replace(a, segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]])

    by_image = {number: [outlined(a) for a in found] for number, found in instances.by_image.items()}
    return replace(instances, by_image=by_image)


def grouped(samples: Sequence[Sample], share: float, rng: Random) -> list[Sample]:
    """Some requests for the same image as one: "the dog, the red cup and the man on the left".

    Args:
        samples: those with nothing to find stay alone.
        share: how probable it is that a request is joined by one or two others, where there are any.
        rng: decides.
    """
    by_image: dict[str, list[Sample]] = {}
    for sample in samples:
        by_image.setdefault(sample.image.id if sample.objects else "", []).append(sample)
    result = by_image.pop("", [])
    for found in by_image.values():
        left = rng.sample(found, len(found))
        while left:
            group = [left.pop()]
            wanted = rng.choice((2, 3)) if rng.random() < share else 1
            for sample in list(left):
                taken = {o.id for member in group for o in member.objects}
                if len(group) < wanted and taken.isdisjoint(o.id for o in sample.objects):
                    group.append(sample)
                    left.remove(sample)
            result.append(_joined(group))
    return result


def _joined(group: Sequence[Sample]) -> Sample:
    if len(group) == 1:
        return group[0]
    *first, last = [sample.query for sample in group]
    return Sample(
        "+".join(sample.id for sample in group),
        f"{', '.join(first)} and {last}",
        group[0].image,
        tuple(o for sample in group for o in sample.objects),
    )


# --- corrections ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CorrectedImage:
    """A picture of which somebody said what is in it; (width, height) is that of what was said."""

    file: Path
    size: Size

    @property
    def id(self) -> str:
        return self.file.name

    def open(self) -> Image.Image:
        return open_picture(self.file, self.size)


@dataclass(frozen=True)
class CorrectedObject:
    """An object as somebody left it; one without a mask is its box."""

    id: str
    instance: Instance
    size: Size

    def mask(self) -> Mask:
        found = self.instance.mask
        if found is not None:
            return found
        x1, y1, x2, y2 = self.instance.box
        mask = np.zeros(self.size[::-1], dtype=np.bool_)
        mask[y1:y2, x1:x2] = True
        return mask


def corrected_samples(files: Sequence[Path]) -> list[Sample]:
    """A request for each line that `vision-reasoner serve` saved; results of `vision-reasoner` are read as well.

    What failed or could not be used is no truth and is left out, and so are questions, and counts without objects.
    """
    samples, stated = [], 0
    for file in files:
        for number, (image, prediction) in enumerate(read_results(file), start=1):
            if prediction is None or prediction.task is Task.VQA or prediction.status not in (Status.OK, Status.NONE):
                continue
            if prediction.is_count_alone:
                stated += 1
                continue
            name = f"{file.stem}-{number}"
            objects = tuple(
                CorrectedObject(f"{name}/{k}", instance, prediction.image_size)
                for k, instance in enumerate(prediction.instances)
            )
            samples.append(Sample(name, prediction.query, CorrectedImage(image, prediction.image_size), objects))
    if stated:
        logger.warning("warning: %d results left out: they state a count and list no objects", stated)
    return samples


# --- scenes -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SceneImage:
    """A scene that is painted when it is looked at: number `number` of a seed."""

    seed: int
    number: int
    drawings: str
    max_objects: int

    @property
    def id(self) -> str:
        return f"{self.seed}-{self.number}"

    def open(self) -> Image.Image:
        return Image.fromarray(self.scene().image)

    def scene(self) -> "Scene":
        return painted_scene(self)


@dataclass(frozen=True)
class SceneObject:
    """Object `number` of a scene, in reading order."""

    image: SceneImage
    number: int

    @property
    def id(self) -> str:
        return str(self.number)

    def mask(self) -> Mask:
        return self.image.scene().objects[self.number].mask


@lru_cache(maxsize=4)
def painted_scene(image: SceneImage) -> "Scene":
    """The scene of an image; the last ones are kept, since several requests in a row are about the same."""
    from vision_reasoner.scenes.scene import random_scene

    rng = Random(f"scene {image.seed} {image.number}")  # of text: no stage's seed meets it
    return random_scene(cached_sprites(image.drawings), rng, max_objects=image.max_objects)


@lru_cache
def cached_sprites(drawings: str) -> "Sequence[Sequence[Sprite]]":
    """`art.load_sprites`, loaded once."""
    from vision_reasoner.scenes.art import load_sprites

    return load_sprites(drawings)


def scene_samples(n: int, seed: int, *, held_out: bool, drawings: str, max_objects: int) -> list[Sample]:
    """At least `n` requests to find, segment or count in scenes, some for what is not there.

    Args:
        n: how many.
        seed: another one gives other scenes.
        held_out: ask in the wordings that VisionReasoner-Tiny was never trained on.
        drawings: a split of `art.load_sprites`.
        max_objects: in a scene.
    """
    from vision_reasoner.scenes.requests import random_requests

    samples: list[Sample] = []
    with tqdm(total=n, desc="scenes", unit="request", disable=is_quiet()) as bar:
        for number in count():
            if len(samples) >= n:
                break
            image = SceneImage(seed, number, drawings, max_objects)
            rng = Random(f"requests {seed} {number}")
            for k, request in enumerate(random_requests(painted_scene(image), rng, SCENE_REQUESTS, held_out)):
                if request.task is not Task.VQA:
                    things = tuple(SceneObject(image, i) for i in request.targets)
                    samples.append(Sample(f"{image.id}/{k}-{request.kind}", request.query, image, things))
            bar.update(len(samples) - bar.n)
    return samples


# --- from samples to rows ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RowBuilder:
    """Builds rows: opens the image, draws the masks, and checks that every object is large and certain enough.

    Attributes:
        frame_side: of the square that images are resized to, without keeping the aspect ratio.
        min_side: pixels of the frame; a request for an object that is narrower is no row.
        segmenter: predicts each object's mask again, to compare; None: no comparison.
        min_iou: of its mask with the annotated one.
    """

    frame_side: int
    min_side: int
    segmenter: "Segmenter | None" = None
    min_iou: float = 0.0

    def row(self, sample: Sample) -> Row | str:
        """The sample's row, or the reason why it is left out.

        Raises:
            ImageError, DataError: the image or an annotation cannot be used.
        """
        image = sample.image.open()
        masks = [o.mask() for o in sample.objects]
        targets = []
        for mask in masks:
            target = target_of(mask, (self.frame_side, self.frame_side))
            if target is None or min(target.box.x2 - target.box.x1, target.box.y2 - target.box.y1) < self.min_side:
                return "an object is too small"
            targets.append(target)
        if self.segmenter is not None and not masks_found_again(self.segmenter, image, masks, self.min_iou):
            return "SAM2 finds another mask"
        return make_row(sample.id, sample.query, image, targets, self.frame_side)


def masks_found_again(segmenter: "Segmenter", image: Image.Image, masks: Sequence[Mask], min_iou: float) -> bool:
    """Whether SAM2 predicts each object's mask again from its box and innermost point.

    Args:
        segmenter: SAM2.
        image: the image, at its own size.
        masks: (H, W) bool, as annotated.
        min_iou: of the mask found with the annotated one.
    """
    targets = [target for mask in masks if (target := target_of(mask, image.size)) is not None]
    if len(targets) < len(masks):
        return False
    boxes = [t.box for t in targets]
    found = segmenter.masks(segmenter.encode(image), boxes, [t.point for t in targets])
    return all(
        (seen & mask).sum() >= min_iou * (seen | mask).sum() for (seen, _), mask in zip(found, masks, strict=True)
    )


def select(
    samples: Iterable[Sample],
    make: Callable[[Sample], Row | str],
    rng: Random,
    *,
    n: int,
    no_target_share: float,
    balance: bool,
    taken: Counter[int],
    left_out: Counter[str],
) -> Iterator[Row]:
    """Rows, until there are `n` or no samples are left.

    Args:
        samples: what there is to choose from.
        make: gives a sample's row, or the reason why it is left out (`RowBuilder.row`).
        rng: decides on the order.
        n: how many rows.
        no_target_share: of the rows so far, at most so many have nothing to find.
        balance: whether the next row is of the number of objects with the fewest rows; MANY and more count as one.
        taken: gets how many rows there are by number of objects.
        left_out: gets how many samples were left out by reason.
    """
    pools: dict[int, list[Sample]] = {}
    for sample in samples:
        size = len(sample.objects)
        pools.setdefault((min(size, MANY) if balance else 1) if size else 0, []).append(sample)
    for pool in pools.values():
        rng.shuffle(pool)
    rows: Counter[int] = Counter()
    total = min(n, sum(map(len, pools.values())))
    with tqdm(total=total, desc="rows", unit="row", disable=is_quiet()) as bar:
        while rows.total() < n:
            with_none = pools.get(0) and rows[0] < no_target_share * (rows.total() + 1)
            kinds = [0] if with_none else [kind for kind, pool in pools.items() if kind and pool]
            if not kinds:
                break
            kind = min(kinds, key=lambda kind: (rows[kind], kind))
            sample = pools[kind].pop()
            row = make(sample)
            if isinstance(row, str):
                left_out[row] += 1
                continue
            rows[kind] += 1
            taken[len(sample.objects)] += 1
            bar.update()
            yield row


# --- the command line -------------------------------------------------------------------------------------------------
SOURCES = {
    **FORMATS,
    "lvis": "LVIS v1",
    "refcoco": "RefCOCO, RefCOCO+ or RefCOCOg, as refer has them",
    "grefcoco": "gRefCOCO",
    "corrections": "what people corrected on the page of `vision-reasoner serve`",
    "scenes": "scenes of drawn objects, as VisionReasoner-Tiny knows them",
    "rows": "rows that are prepared already: check them, write them for another training engine",
}
GROUP_SHARES = {
    **dict.fromkeys(FORMATS, 0.2),
    "lvis": 0.2,
    "refcoco": 0.3,
    "grefcoco": 0.0,
}  # gRefCOCO has groups of its own


def add_flags(parser: argparse.ArgumentParser, source: str) -> None:
    """Add the options of one of SOURCES."""
    add = parser.add_argument
    if source == "rows":
        add("--data", required=True, help="Hub id, folder of parquet files, save_to_disk folder or parquet file")
        add("--n", type=int, help="rows at most; default: all")
        add("--skip", type=int, default=0, metavar="N", help="leave out the first N, to evaluate on; default: 0")
    elif source == "corrections":
        add("--data", required=True, nargs="+", type=Path, metavar="JSONL", help="files of the folder of corrections")
        _add_choice_flags(parser, frame_side=FRAME_SIDE, max_objects=MAX_OBJECTS)
    elif source == "scenes":
        add("--drawings", choices=SPLITS, default="train", help="default: train")
        add("--held_out", action="store_true", help="ask in wordings that are never trained on")
        _add_choice_flags(parser, frame_side=TINY_SIDE, max_objects=SCENE_OBJECTS)
    else:
        _add_annotation_flags(parser, source)
        _add_choice_flags(parser, frame_side=FRAME_SIDE, max_objects=MAX_OBJECTS)
    add("--split", default="train", help="name of the split that is written (of `rows`: and read); default: train")
    add("--format", choices=tuple(LAYOUTS), default="hub", help="whose table it is to be; default: hub")


def _add_annotation_flags(parser: argparse.ArgumentParser, source: str) -> None:
    add_format_flags(parser, source)
    add = parser.add_argument
    if source in ("refcoco", "grefcoco"):
        add("--refs", required=True, metavar="FILE", help="refs(*).p or grefs(*).json")
        add("--refs_split", default="train", metavar="NAME", help="of the references; default: train")
    else:
        text = "objects with a box alone: its middle is the point; goes without SAM2"
        add("--boxes_as_masks", action="store_true", help=text)
    text = "how probable it is that a request is joined with others; default: %(default)s"
    add("--group_share", type=float, default=GROUP_SHARES[source], metavar="P", help=text)
    text = "of the mask that SAM2 makes of box and point with the annotated; 0 goes without; default: "
    add("--min_sam2_iou", type=float, metavar="IOU", help=text + str(MIN_SAM2_IOU))
    add("--segmentation_model_path", metavar="PATH", help="SAM2: folder or Hub id; default: the released one")
    add("--device", default="auto", help="of SAM2; default: auto")


def _add_choice_flags(parser: argparse.ArgumentParser, *, frame_side: int, max_objects: int) -> None:
    add = parser.add_argument
    add("--n", type=int, default=7000, help="rows at most; default: %(default)s")
    text = (
        "the checkpoint's: 840 for the released ones, 280 for VisionReasoner-Tiny, or 560 for sft --preset tiny, which "
        "also learns from parts of pictures; default: %(default)s"
    )
    add("--frame_side", type=int, default=frame_side, metavar="PIXELS", help=text)
    text = "smallest object, in the frame; default: a hundredth of its side"
    add("--min_side", type=int, metavar="PIXELS", help=text)
    add("--max_objects", type=int, default=max_objects, help="of a request; default: %(default)s")
    text = "rows with nothing to find; default: %(default)s"
    add("--no_target_share", type=float, default=0.1, metavar="SHARE", help=text)
    add("--no_balance", action="store_true", help="take numbers of objects as they come")
    add("--seed", type=int, default=1, help="default: %(default)s")


RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(("n", "frame_side", "max_objects"), (lambda value: value >= 1, "must be at least 1")),
    **dict.fromkeys(("min_side", "skip"), (lambda value: value >= 0, "must be at least 0")),
    **dict.fromkeys(("group_share", "min_sam2_iou"), (lambda value: 0 <= value <= 1, "must be from 0 to 1")),
    "no_target_share": (lambda value: 0 <= value < 1, "must be at least 0 and less than 1"),
}
"""What must hold for a number, and what is said where it does not."""


def check_ranges(arguments: argparse.Namespace) -> None:
    """Check that every number is in its range.

    Raises:
        UsageError: one does not.
    """
    for name, (holds, message) in RANGES.items():
        value = getattr(arguments, name, None)
        if value is not None and not holds(value):
            raise UsageError(f"--{name} {value}: {message}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return table_command("python -m vision_reasoner.training.prepare", __doc__, SOURCES, add_flags, prepare, argv)


def prepare(arguments: argparse.Namespace) -> int:
    """Write the table that was asked for; returns the number of rows."""
    check_ranges(arguments)
    taken: Counter[int] = Counter()
    left_out: Counter[str] = Counter()

    def about() -> str:
        lines = [f"Prepared from {arguments.source} for {arguments.format}."]
        if taken:
            lines.append("Rows by number of objects: " + ", ".join(f"{k}: {taken[k]}" for k in sorted(taken)) + ".")
        lines += [f"Left out, {reason}: {number}." for reason, number in left_out.most_common()]
        logger.info("%s", "\n".join(lines))
        return "\n".join(lines)

    if arguments.source == "rows":
        rows: Iterable[Row] = checked_rows(arguments, left_out)
    else:
        rows = chosen_rows(arguments, taken, left_out)

    def converted() -> Iterator[Row]:
        number = 0
        for row in rows:
            try:
                yield LAYOUTS[arguments.format](row, number, arguments.split)
            except DataError as error:
                left_out[_unusable(error, arguments.skip_bad)] += 1
            else:
                number += 1

    return write_table(
        arguments.output_dir,
        arguments.split,
        columns_of(arguments.format),
        converted(),
        about=about,
        overwrite=arguments.overwrite,
    )


def checked_rows(arguments: argparse.Namespace, left_out: Counter[str]) -> Iterator[Row]:
    """Rows as they were prepared, each checked with its image.

    Raises:
        DataError: there are none, or one cannot be trained on and may not be left out.
    """
    open_them = open_rows if arguments.skip_bad else load_rows
    table = encoded(open_them(arguments.data, arguments.split))
    first = min(arguments.skip, len(table))
    last = len(table) if arguments.n is None else min(first + arguments.n, len(table))
    for row in tqdm(table.select(range(first, last)), desc="rows", unit="row", disable=is_quiet()):
        try:
            check_row(row)
        except DataError as error:
            left_out[_unusable(error, arguments.skip_bad)] += 1
        else:
            yield row | {"id": str(row["id"])}


def _unusable(error: VisionReasonerError, skip_bad: bool) -> str:
    """Report the error and return the reason to count it under; raise it instead without --skip_bad."""
    if not skip_bad:
        raise error
    tqdm.write(f"left out: {error}", file=sys.stderr)
    return "it cannot be used"


def chosen_rows(arguments: argparse.Namespace, taken: Counter[int], left_out: Counter[str]) -> Iterator[Row]:
    """Rows of any other source; the counters get what was taken and what was not (see `select`)."""
    rng = Random(arguments.seed)

    def on_bad(error: VisionReasonerError) -> None:
        left_out[_unusable(error, arguments.skip_bad)] += 1

    offered = samples_of(arguments, rng, on_bad)
    samples = [s for s in offered if len(s.objects) <= arguments.max_objects]
    if too_many := len(offered) - len(samples):
        left_out[f"it asks for more than {arguments.max_objects} objects (--max_objects)"] = too_many
    min_side = arguments.frame_side // MIN_SIDE_SHARE if arguments.min_side is None else arguments.min_side
    maker = RowBuilder(arguments.frame_side, min_side, *load_segmenter(arguments))

    def make(sample: Sample) -> Row | str:
        try:
            return maker.row(sample)
        except (ImageError, DataError) as error:
            return _unusable(error, arguments.skip_bad)

    return select(
        samples,
        make,
        rng,
        n=arguments.n,
        no_target_share=arguments.no_target_share,
        balance=not arguments.no_balance,
        taken=taken,
        left_out=left_out,
    )


def samples_of(arguments: argparse.Namespace, rng: Random, on_bad: OnBad) -> list[Sample]:
    """All requests that the source offers; `on_bad` gets what is wrong with entries that cannot be used."""
    if arguments.source == "corrections":
        return corrected_samples(arguments.data)
    if arguments.source == "scenes":
        return scene_samples(
            SCENE_CHOICE * arguments.n,
            arguments.seed,
            held_out=arguments.held_out,
            drawings=arguments.drawings,
            max_objects=arguments.max_objects,
        )
    instances = read_format(arguments, on_bad)
    if arguments.source in ("refcoco", "grefcoco"):
        found = read_references(arguments.refs, split=arguments.refs_split, on_bad=on_bad)
        samples = reference_samples(known_references(found, instances, on_bad), instances, rng)
    else:
        if arguments.boxes_as_masks:
            instances = boxes_as_polygons(instances)
        samples = category_samples(instances, rng)
    return grouped(samples, arguments.group_share, rng)


def load_segmenter(arguments: argparse.Namespace) -> "tuple[Segmenter | None, float]":
    """SAM2 and the IoU that its masks have to reach; None and 0 where masks are not compared."""
    if arguments.source in ("scenes", "corrections"):  # masks that are exact, or that somebody looked at
        return None, 0.0
    boxes_alone = getattr(arguments, "boxes_as_masks", False)
    if boxes_alone and arguments.min_sam2_iou:
        raise UsageError("--boxes_as_masks has no masks to compare SAM2's with; leave out --min_sam2_iou")
    min_iou = arguments.min_sam2_iou if arguments.min_sam2_iou is not None else 0.0 if boxes_alone else MIN_SAM2_IOU
    if not min_iou:
        return None, 0.0
    from vision_reasoner.models.checkpoints import RELEASED, choose
    from vision_reasoner.models.segmenter import Segmenter

    try:
        where = choose(RELEASED["reasoner"].hub_id, segmenter=arguments.segmentation_model_path).segmenter
        return Segmenter.from_pretrained(where, device=arguments.device), min_iou
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or go without SAM2: --min_sam2_iou 0") from error


if __name__ == "__main__":
    sys.exit(main())
