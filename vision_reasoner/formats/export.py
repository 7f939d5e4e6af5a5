"""Writes results in the formats of annotation tools.

    vision-reasoner export results/results.jsonl --format coco,yolo,labelstudio

Each format gets a folder of its own beside the results, or in --output_dir, with the pictures in it, so that it can be
moved, zipped and opened elsewhere. `results.jsonl` is that of a run over many pictures, or of corrections made on the
page of `vision-reasoner serve`.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from vision_reasoner import __version__
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.files import atomic_folder, locked
from vision_reasoner.formats import FORMATS, NEEDS_SUPERVISION
from vision_reasoner.formats.by_supervision import check_supervision, write_labelme, write_voc, write_yolo
from vision_reasoner.formats.coco import write_coco
from vision_reasoner.formats.cvat import write_cvat
from vision_reasoner.formats.labeled import Labeled, gather, read_results, without_answers
from vision_reasoner.formats.labelstudio import write_labelstudio
from vision_reasoner.formats.sheet import write_csv

logger = logging.getLogger("vision_reasoner.formats.export")

MARK = "export.txt"  # in every folder that was written here; no other is replaced
WRITERS: dict[str, Callable[[Sequence[Labeled], Path], None]] = dict(
    zip(
        FORMATS,
        (write_coco, write_yolo, write_labelme, write_labelstudio, write_cvat, write_voc, write_csv),
        strict=True,
    )
)


def check_formats(text: str) -> list[str]:
    """The formats that a text names, separated by commas.

    Raises:
        UsageError: there is no such format, or it needs a library that is not installed.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"no format {name!r}: give some of {','.join(FORMATS)}, separated by commas")
        if name in NEEDS_SUPERVISION:
            check_supervision()
    return names


def export(results: Sequence[Path], formats: Sequence[str], output_dir: Path) -> list[Path]:
    """Write the results in each format, into `output_dir/<format>`, which appears whole or not at all.

    Args:
        results: files of results, each a results.jsonl.
        formats: from `check_formats`.
        output_dir: where the formats' folders go.

    Returns:
        The folders.

    Raises:
        DataError: the results cannot be read, or there is nothing to write.
        UsageError: one of the folders is there and was not written by this function.
        ImageError: a picture is missing or damaged.
    """
    folders = [output_dir / name for name in formats]
    for folder in folders:
        if folder.exists() and not (folder / MARK).is_file():
            raise UsageError(f"{folder}: is there already and is no earlier export; give another --output_dir")
    everything = gather(line for file in results for line in read_results(file))
    for name, folder in zip(formats, folders, strict=True):
        pictures = everything if name == "csv" else without_answers(everything)
        if not pictures:
            raise DataError(f"{', '.join(map(str, results))}: no result can be exported as {name}")
        write(pictures, name, folder)
        n_objects = sum(len(picture.objects) for picture in pictures)
        logger.info("%s: %d objects in %d pictures", folder, n_objects, len(pictures))
    return folders


def write(pictures: Sequence[Labeled], name: str, folder: Path) -> None:
    """Write pictures in one format; `folder` is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as part:
        WRITERS[name](pictures, part)
        about = f"Written by VisionReasoner {__version__}, which replaces this folder when it exports again.\n"
        (part / MARK).write_text(about, encoding="utf-8")


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser("vision-reasoner export", __doc__)
    add = parser.add_argument
    add("results", nargs="+", type=Path, metavar="RESULTS", help="results.jsonl of a run over many pictures")
    add("--format", required=True, metavar="NAMES", help=f"some of {','.join(FORMATS)}, separated by commas")
    add("--output_dir", type=Path, metavar="DIR", help="gets a folder for each; default: that of the first results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""

    def run(arguments: argparse.Namespace) -> int:
        formats = check_formats(arguments.format)
        output_dir = arguments.output_dir or arguments.results[0].parent
        with locked(output_dir):
            for folder in export(arguments.results, formats, output_dir):
                print(folder)
        return 0

    return run_command(build_parser(), run, argv)
