"""Official releases become tables that the suites read, so that nobody depends on somebody's upload.

    python -m evaluation.prepare reasonseg --data ReasonSeg/val --output_dir data/reasonseg_val
    python -m evaluation.prepare refcoco --refs "refcoco/refs(unc).p" --annotations refcoco/instances.json \\
        --images train2014 --split testA --output_dir data/refcoco_testA
    python -m evaluation.prepare grefcoco --refs "grefs(unc).json" --annotations instances_train2014.json \\
        --images train2014 --split val --output_dir data/grefcoco_val
    python -m evaluation.prepare coco --annotations instances_val2017.json --images val2017 --output_dir data/coco_val
    python -m evaluation.prepare voc --annotations mine/Annotations --images mine/JPEGImages --output_dir data/mine
    python -m evaluation.prepare pixmo_count --data allenai/pixmo-count --split test --images pixmo --download \\
        --output_dir data/pixmo_test
    python -m evaluation.prepare countbench --data vikhyatk/CountBenchQA --output_dir data/countbench
    python -m evaluation.prepare scenes --split held_out --n 500 --output_dir data/scenes

A table is a folder of parquet files with the split `test`: `evaluation/eval_*.sh data/coco_val` reads it. Columns:
`image` (the file as it was published), `text`, `image_id`, `ann_id` (together they are one row's), `img_height`,
`img_width`, and

    reasonseg          mask (H x W), ignore (H x W, null where nothing is)
    refcoco, grefcoco  mask, bbox (x1 y1 x2 y2; null unless exactly one object is meant)
    coco, voc, ...     bbox (a list of them), cat_id; beside the table instances.json, which is scored against
    pixmo_count, countbench  count

Scenes become several tables, `data/scenes/counting_held_out` and so on, one for each kind of request; `scene_sets` says
of which suite each is.

`mask` is the target alone. `ignore` has the pixels that ReasonSeg's annotators left undecided: the official protocol
takes them out of intersection and union; the original's tables count them as target (mask or ignore).
"""

import argparse
import hashlib
import json
import logging
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.scene_sets import KINDS, SEED, SceneOptions, rows_of
from vision_reasoner.cli import is_quiet
from vision_reasoner.data.annotations import (
    AnnotatedImage,
    CountedImage,
    Instances,
    OnBad,
    ReasonSegImage,
    Reference,
    instances_json,
    read_countbench,
    read_pixmo_count,
    read_reasonseg,
    read_references,
)
from vision_reasoner.data.formats.command import FORMATS, add_format_flags, read_format
from vision_reasoner.data.sources import Source, open_source
from vision_reasoner.data.tables import Row, table_command, write_table
from vision_reasoner.errors import DataError, ImageError, UsageError
from vision_reasoner.images import MAX_BYTES, SUFFIXES, load_image
from vision_reasoner.scenes.art import SPLITS

USUAL_KINDS = tuple(name for name in KINDS if name != "large")  # its images have six times the size of the others'

logger = logging.getLogger(__name__)

REFERENCES = ("refcoco", "grefcoco")  # sources whose rows are references
QUESTION = "How many {what} are there in this image?"
TIMEOUT = 30  # seconds for a server to answer

Job = Callable[[], list[Row]]


# --- from annotations to rows -----------------------------------------------------------------------------------------
def reasonseg_rows(reasoned: ReasonSegImage, level: str) -> list[Row]:
    """The image's first phrase, as LISA scores it, or each of its phrases."""
    image = reasoned.image.open()
    target, ignore = reasoned.masks(image.size)
    phrases = reasoned.phrases if level == "expression" else reasoned.phrases[:1]
    return [
        {
            **_common(reasoned.image, image, phrase, str(number)),
            "mask": target,
            "ignore": ignore if ignore.any() else None,
        }
        for number, phrase in enumerate(phrases)
    ]


def reference_rows(reference: Reference, instances: Instances, level: str, *, by_object: bool) -> list[Row]:
    """The reference's first phrase, or each of its phrases.

    Args:
        reference: what is meant.
        instances: in which images.
        level: "instance" or "expression".
        by_object: name rows after the one object that is meant, rather than after the reference.

    Raises:
        DataError: the instances are others, or it means a crowd.
    """
    objects = instances.objects_of(reference)
    if crowds := [found.id for found in objects if found.crowd]:
        raise DataError(
            f"reference {reference.id}: means a crowd (annotation {crowds[0]}), which refer and G_REFER take for no "
            "object; leave it out (--skip_bad)"
        )
    annotated = instances.images[reference.image_id]
    image = annotated.open()
    mask = np.zeros((image.height, image.width), np.bool_)
    for found in objects:
        mask |= found.mask()
    name = objects[0].id if by_object and len(objects) == 1 else reference.id
    boxes = [[int(v + 0.5) for v in found.box] for found in objects]
    phrases = reference.phrases if level == "expression" else reference.phrases[:1]
    return [
        {
            **_common(annotated, image, phrase, f"{name}-{number}" if level == "expression" else name),
            "mask": mask,
            "bbox": boxes[0] if len(boxes) == 1 else None,
            "targets": len(objects),
        }
        for number, phrase in enumerate(phrases)
    ]


def category_rows(number: int, instances: Instances, *, absent: bool = False) -> list[Row]:
    """For image `number` a row for each category of which it has an object that is no crowd.

    Args:
        number: of the image.
        instances: has it.
        absent: give a row without boxes for each category of which it certainly has none, too.
    """
    annotated = instances.images[number]
    unsure = instances.not_exhaustive[number]
    found = [a for a in instances.by_image.get(number, []) if not a.crowd and a.category not in unsure]
    categories = dict.fromkeys(a.category for a in found)
    categories |= dict.fromkeys(instances.absent(number)) if absent else {}
    if not categories:
        return []
    image = annotated.open()
    return [
        {
            **_common(annotated, image, instances.categories[category], str(category)),
            "bbox": [list(a.box) for a in found if a.category == category],
            "cat_id": category,
        }
        for category in categories
    ]


def counting_rows(
    counted: CountedImage, number: int, question: str, folder: Path | None = None, *, download: bool = False
) -> list[Row]:
    """The row of a counting set's row `number`; see `image_bytes` for where the image comes from."""
    data = image_bytes(counted, folder, download=download)
    try:
        image = load_image(data)
    except ImageError as error:
        raise ImageError(str(error).replace("the given bytes", f"image {counted.id}", 1)) from error
    return [
        {
            "image": {"bytes": data, "path": None},
            "text": question.replace("{what}", counted.what),
            "image_id": counted.id,
            "ann_id": str(number),
            "img_height": image.height,
            "img_width": image.width,
            "count": counted.count,
        }
    ]


def _common(annotated: AnnotatedImage, image: Image.Image, text: str, ann_id: str) -> Row:
    file = annotated.file
    return {
        "image": {"bytes": file.read_bytes(), "path": file.name},
        "text": text,
        "image_id": annotated.id,
        "ann_id": ann_id,
        "img_height": image.height,
        "img_width": image.width,
    }


# --- images that are published as addresses ---------------------------------------------------------------------------
def image_bytes(counted: CountedImage, folder: Path | None, *, download: bool) -> bytes:
    """The bytes of a counted image: its own, or of `folder/<digest>`, or fetched to there.

    Raises:
        DataError: it is not there, its address is dead, or another image lies there now.
    """
    if isinstance(counted.source, bytes):
        return counted.source
    if folder is None:
        raise UsageError("the images are published as addresses: give a folder for them (--images) and --download")
    for path in (folder / f"{counted.id}{suffix}" for suffix in ("", *SUFFIXES)):
        if path.is_file():
            return path.read_bytes()
    if not download:
        raise DataError(f"{folder / counted.id}: no such image; fetch it (--download) or leave it out (--skip_bad)")
    data = _fetch(counted.source)
    if hashlib.sha256(data).hexdigest() != counted.id:
        raise DataError(f"{counted.source}: is another image now than was annotated; leave it out (--skip_bad)")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{counted.id}.part"
    part.write_bytes(data)
    part.replace(folder / counted.id)
    return data


def _fetch(url: str) -> bytes:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url}: is no http address; leave this image out (--skip_bad)")
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (data set preparation)"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:  # URLError and HTTPError are OSErrors
        raise DataError(f"{url}: cannot be fetched ({error}); leave this image out (--skip_bad)") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{url}: has more than {MAX_BYTES:,} bytes; leave this image out (--skip_bad)")
    return data


# --- the command line -------------------------------------------------------------------------------------------------
SOURCES = {
    "reasonseg": "a folder of LISA's ReasonSeg: images, and JSON files of polygons and phrases",
    "refcoco": "RefCOCO, RefCOCO+ or RefCOCOg, as refer has them",
    "grefcoco": "gRefCOCO: several objects for a phrase, or none",
    **{name: f"{text}; a row for each image and category" for name, text in FORMATS.items()},
    "pixmo_count": "PixMo-Count",
    "countbench": "CountBenchQA",
    "scenes": "generated scenes with held-out wordings, a table for each kind of request",
}


def add_flags(parser: argparse.ArgumentParser, source: str) -> None:
    """The flags of one of SOURCES."""
    add = parser.add_argument
    if source == "scenes":
        add_scene_flags(parser)
        return
    if source == "reasonseg":
        add("--data", required=True, metavar="DIR", help="val/ or test/")
        add("--keep_empty", action="store_true", help="a JSON file without a target polygon: there is nothing to find")
    elif source in ("pixmo_count", "countbench"):
        add("--data", required=True, help="Hub id, folder of parquet files or save_to_disk folder")
        add("--split", default="test", help="to read; default: test")
    else:
        add_format_flags(parser, source)
    if source in FORMATS:
        add("--absent", action="store_true", help="also a row for each category that an image does not have")
    if source in REFERENCES:
        add("--refs", required=True, metavar="FILE", help="refs(*).p or grefs(*).json")
        add("--split", default="val", help="of the references: val, testA, ...; default: val")
    if source in (*REFERENCES, "reasonseg"):
        add(
            "--level",
            choices=("instance", "expression"),
            default="instance",
            help="the first phrase for what is meant, or a row for each phrase; default: instance",
        )
    if source == "pixmo_count":
        add("--images", type=Path, metavar="DIR", help="the images, named by their SHA-256")
        add("--download", action="store_true", help="fetch those that are not there")
        add("--question", default=QUESTION, help="how a count is asked for; default: %(default)r")
    add("--limit", type=int, metavar="N", help="rows at most")


def add_scene_flags(parser: argparse.ArgumentParser) -> None:
    """Those of `scenes`."""
    add = parser.add_argument
    add(
        "--split",
        choices=tuple(SPLITS),
        default="train",
        help="drawings: those that the supervised stages saw, those for reinforcement learning, others of the first "
        "styles, or another style; default: %(default)s",
    )
    add("--n", type=int, default=500, help="scenes of each kind; default: %(default)s")
    add("--seed", type=int, default=SEED, help="of the scenes; default: %(default)s, the model card's")
    add("--kinds", nargs="+", choices=tuple(KINDS), default=USUAL_KINDS, help="only these; default: all but large")


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a table; exit codes as the command line of the library."""
    return table_command("python -m evaluation.prepare", __doc__, SOURCES, add_flags, prepare, argv)


def prepare(arguments: argparse.Namespace) -> int:
    """Do what was asked; returns the number of rows."""
    if arguments.source == "scenes":
        return prepare_scenes(arguments)
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError("--limit must be at least 1")
    left_out: list[str] = []
    asked: set[tuple[int, int]] = set()

    def on_bad(error: DataError) -> None:
        if not arguments.skip_bad:
            raise error
        left_out.append(str(error))
        tqdm.write(f"left out: {error}", file=sys.stderr)

    def rows() -> Iterator[Row]:
        for row in kept_rows(jobs_of(arguments, on_bad), arguments.limit, left_out if arguments.skip_bad else None):
            if arguments.source in FORMATS:
                asked.add((int(row["image_id"]), row["cat_id"]))
            yield row

    n = write_table(
        arguments.output_dir,
        "test",
        columns_of(arguments.source),
        rows(),
        about=lambda: f"Prepared from {arguments.source}. Left out for being unusable: {len(left_out)}.",
        overwrite=arguments.overwrite,
    )
    if arguments.source in FORMATS:
        beside = instances_json(arguments.instances, asked)
        (Path(arguments.output_dir) / "instances.json").write_text(json.dumps(beside))
    if left_out:
        print(f"left out for being unusable: {len(left_out)}", file=sys.stderr)
    return n


def prepare_scenes(arguments: argparse.Namespace) -> int:
    """Write a table for each kind of request; returns the number of all rows."""
    if arguments.n < 1:
        raise UsageError("--n must be at least 1")
    options = SceneOptions(arguments.split, arguments.seed)
    total = 0
    for name in arguments.kinds:
        folder = Path(arguments.output_dir) / f"{name}_{arguments.split}"
        rows = tqdm(rows_of(name, arguments.n, options), desc=folder.name, unit="row", disable=is_quiet())
        total += write_table(
            folder,
            "test",
            columns_of(KINDS[name].suite),
            rows,
            about=lambda: f"Generated scenes, drawings of {arguments.split}, seed {options.seed}.",
            overwrite=arguments.overwrite,
        )
        logger.info("python -m evaluation.run --suite %s %s", KINDS[name].suite, folder)
    return total


def columns_of(source: str) -> dict[str, Any]:
    """The columns of a table from one of SOURCES, or of a suite's for scenes, with their types (of `datasets`)."""
    import datasets

    text, number = datasets.Value("string"), datasets.Value("int32")
    mask = datasets.List(datasets.List(datasets.Value("bool")))
    special = {
        "reasonseg": {"mask": mask, "ignore": mask},
        "coco": {"bbox": datasets.List(datasets.List(datasets.Value("float64"))), "cat_id": number},
        "pixmo_count": {"count": number},
        "countbench": {"count": number},
        "counting": {"count": number},
        "grounding": {"bbox": datasets.List(datasets.List(number))},
        "segmenter": {"mask": mask, "bbox": datasets.List(number), "point": datasets.List(number)},
        "vqa": {"answers": datasets.List(text)},
        **{name: {"mask": mask, "bbox": datasets.List(number), "targets": number} for name in REFERENCES},
    }.get("coco" if source in FORMATS else source, {"mask": mask, "bbox": datasets.List(number)})
    request = "question" if source == "vqa" else "text"
    common = {"image": datasets.Image(), request: text, "image_id": text, "ann_id": text}
    return {**common, "img_height": number, "img_width": number, **special}


def jobs_of(arguments: argparse.Namespace, on_bad: OnBad) -> list[Job]:
    """What there is to do, one job for each image or reference; `on_bad` gets what is wrong with bad entries."""
    source = arguments.source
    if source == "reasonseg":
        reasoned = read_reasonseg(arguments.data, keep_empty=arguments.keep_empty, on_bad=on_bad)
        return [partial(reasonseg_rows, found, arguments.level) for found in reasoned]
    if source in ("pixmo_count", "countbench"):
        return counting_jobs(arguments, on_bad)
    instances = read_format(arguments, on_bad)
    if source in FORMATS:
        arguments.instances = instances
        return [partial(category_rows, number, instances, absent=arguments.absent) for number in instances.images]
    return [
        partial(reference_rows, found, instances, arguments.level, by_object=source == "refcoco")
        for found in read_references(arguments.refs, split=arguments.split, on_bad=on_bad)
    ]


def counting_jobs(arguments: argparse.Namespace, on_bad: OnBad) -> list[Job]:
    """A job for each row of a counting set; `on_bad` gets what is wrong with rows that cannot be read."""
    rows = _readable(open_source(arguments.data, split=arguments.split), on_bad)
    if arguments.source == "countbench":
        return [partial(counting_rows, found, n, "{what}") for n, found in enumerate(read_countbench(rows))]
    return [
        partial(counting_rows, found, n, arguments.question, arguments.images, download=arguments.download)
        for n, found in enumerate(read_pixmo_count(rows))
    ]


def _readable(source: Source, on_bad: OnBad) -> Iterator[Row]:
    for index in range(source.n):
        try:
            yield source.row(index)
        except DataError as error:
            on_bad(error)


def kept_rows(jobs: Sequence[Job], limit: int | None, left_out: list[str] | None) -> Iterator[Row]:
    """The rows of all jobs, `limit` at most.

    Args:
        jobs: give rows.
        limit: None for all.
        left_out: gets what is wrong with those that cannot be used; None: that is an error.
    """
    made = 0
    for job in tqdm(jobs, desc="rows", unit="job", disable=is_quiet()):
        try:
            rows = job()
        except (ImageError, DataError) as error:
            if left_out is None:
                raise
            left_out.append(str(error))
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        for row in rows:
            if made == limit:
                return
            made += 1
            yield row


if __name__ == "__main__":
    sys.exit(main())
