"""The command line: a picture and a query in, the answer on standard output, a picture of it on disk.

Runs as `python vision_reasoner/inference.py` from the repository, as `vision-reasoner` where it is installed, and as
`python -m vision_reasoner`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the repository's root goes where Python put this file's folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import glob
import importlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vision_reasoner.cli import add_model_options, make_parser, model_settings, run_command, silence_transformers
from vision_reasoner.errors import ImageError, ReplyError, UsageError
from vision_reasoner.files import check_writable, packaged
from vision_reasoner.formats import FORMATS

if TYPE_CHECKING:
    from vision_reasoner.model import VisionReasoner

logger = logging.getLogger("vision_reasoner.inference")  # not __name__, which is __main__ where it runs as a script

DEFAULT_IMAGE = "assets/airplanes.png"
DEFAULT_OUTPUT = "result_visualization.png"
DEFAULT_QUERY = "How many airplanes are there in this image?"
TASKS = ("auto", "detection", "segmentation", "counting", "vqa")  # results.Task without importing it, for --help
COMMANDS = {  # by their first word; `main` of these modules runs them
    "download": "vision_reasoner.models.download",
    "export": "vision_reasoner.formats.export",
    "serve": "vision_reasoner.serving.command",
    "doctor": "vision_reasoner.doctor.command",
}

EXAMPLES = """\
examples:
  python vision_reasoner/inference.py
  python vision_reasoner/inference.py --image_path assets/donuts.png --query "please segment the donuts"
  python vision_reasoner/inference.py --image_path photo.jpg --query "detect the dogs" --json
  python vision_reasoner/inference.py --image_path photos/ "more/*.png" --query "the red car" --output_dir results
  python vision_reasoner/inference.py --model_path pretrained_models/VisionReasoner-7B --device cuda
  python -m vision_reasoner download --what all
  python -m vision_reasoner export results/results.jsonl --format coco,yolo
  python -m vision_reasoner serve
  python -m vision_reasoner doctor
"""


def build_parser() -> argparse.ArgumentParser:
    """The options, with the names and meaning they have in the original; limits left out are the library's."""
    parser = make_parser(
        "vision-reasoner",
        "Find, segment or count objects in pictures, or answer a question about them.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add(
        "--image_path",
        nargs="+",
        default=[DEFAULT_IMAGE],
        metavar="PATH",
        help=f"files, folders or globs; default: {DEFAULT_IMAGE}",
    )
    add("--query", default=DEFAULT_QUERY, help="what to find, count or answer; default: %(default)r")
    add("--task", choices=TASKS, default="auto", help="kind of request; default: auto, the router decides")
    add("--output_path", default=DEFAULT_OUTPUT, help="picture of the result of one image; default: %(default)s")
    add("--output_dir", metavar="DIR", help="folder for the results of many images; default for many: results")
    add("--format", metavar="NAMES", help=f"results of many images also as some of {','.join(FORMATS)}")
    add("--json", action="store_true", help="print JSON, one line for each image, instead of text")
    add("--batch_size", type=int, metavar="N", help="images at once; default: 8")
    add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `errors.ExitCode` for what it returns."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[given[0]]).main(given[1:]))
    return run_command(build_parser(), run, given)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; one picture here, many in `bulk`."""
    files, many = expand(arguments.image_path, arguments.output_dir and Path(arguments.output_dir))
    many = many or bool(arguments.output_dir)
    if many and arguments.output_path != DEFAULT_OUTPUT:
        raise UsageError("--output_path is for the result of one image; give --output_dir for many")
    if arguments.format and not many:
        raise UsageError("--format is for a folder of results; give --output_dir")
    from vision_reasoner.model import VisionReasoner

    model = VisionReasoner.from_settings(*model_settings(arguments))
    if not arguments.verbose:
        silence_transformers()
    task = None if arguments.task == "auto" else arguments.task
    if many:
        from vision_reasoner.bulk import run_many
        from vision_reasoner.formats.export import check_formats

        return run_many(
            model,
            files,
            arguments.query,
            task,
            output_dir=Path(arguments.output_dir or "results"),
            settings=model.sources
            | {name: getattr(arguments, name) for name in ("model", "revision", "dtype", "compat")}
            | ({} if arguments.quantize == "none" else {"quantize": arguments.quantize})
            | {"max_new_tokens": model.settings.max_new_tokens, "max_objects": model.settings.max_objects}
            | model.settings.of_views,
            formats=check_formats(arguments.format) if arguments.format else (),
            as_json=arguments.json,
            quiet=arguments.quiet,
        )
    output_path = Path(arguments.output_path)
    return run_one(model, files[0], arguments.query, task, output_path=output_path, as_json=arguments.json)


def run_one(
    model: "VisionReasoner", file: Path, query: str, task: str | None, *, output_path: Path, as_json: bool
) -> int:
    """Answer for one image.

    Raises:
        UsageError: the picture of the result cannot be written.
        ReplyError: the reply could not be used; the picture is written all the same.
    """
    from vision_reasoner.images import load_image
    from vision_reasoner.results import check_ending, record_of, report

    check_ending(output_path)
    if os.path.realpath(output_path) == os.path.realpath(file):
        raise UsageError(f"--output_path {output_path}: is the picture itself; give another place for the result")
    check_writable(output_path)
    notes: list[str] = []
    image = load_image(file, max_pixels=model.settings.max_image_pixels, notes=notes)
    prediction = model.predict(image, query, task)
    prediction = replace(prediction, warnings=[*notes, *prediction.warnings])
    print(json.dumps(record_of(file, prediction)) if as_json else report(prediction), flush=True)
    for warning in prediction.warnings:
        logger.warning("warning: %s", warning)
    prediction.save(output_path, image)
    logger.info("Result picture: %s", output_path)
    if not prediction.usable:
        raise ReplyError(
            f"the reply could not be used ({prediction.status}): {prediction.reply.strip()[:200]!r}; "
            "ask in other words, or raise --max_new_tokens"
        )
    return 0


def expand(paths: Sequence[str], output_dir: Path | None = None) -> tuple[list[Path], bool]:
    """The picture files that paths, folders and globs stand for, and whether they are to be treated as many.

    A folder stands for the pictures right inside it. Results that lie in `output_dir` are found by neither folders nor
    globs. The default picture is looked for in the repository too.

    Raises:
        ImageError: a folder or glob holds no picture.
    """
    from vision_reasoner.images import check_is_no_address

    files: list[Path] = []
    many = len(paths) > 1
    for text in paths:
        if not text:
            raise ImageError("--image_path is empty; give a file, folder or glob")
        check_is_no_address(text)
        try:
            found, several = _expand_one(text)
            if several and output_dir is not None:
                found = [file for file in found if not _is_result(file, output_dir)]
        except (OSError, RuntimeError) as error:  # RuntimeError: no such user
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ImageError(f"{text[:200]}: cannot be looked at ({reason}); check --image_path") from error
        if not found:
            raise ImageError(f"{text}: no images there; check --image_path")
        files += found
        many = many or several
    return list(dict.fromkeys(files)), many


def _expand_one(text: str) -> tuple[list[Path], bool]:
    """The image files that one path stands for, and whether it is a folder or a glob."""
    path = Path(text).expanduser()
    if path.is_dir():
        from vision_reasoner.images import SUFFIXES

        inside = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        return sorted(file for file in inside if file.is_file() and not _is_resource_fork(file)), True
    if not path.exists() and glob.has_magic(text):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - may be absolute
        return sorted(match for match in matches if match.is_file() and not _is_resource_fork(match)), True
    if text == DEFAULT_IMAGE and not path.exists():
        return [packaged(text)], False
    return [path], False


def _is_result(file: Path, output_dir: Path) -> bool:
    """Whether a run into `output_dir` made it."""
    from vision_reasoner.results import is_picture_of_result

    return os.path.realpath(file.parent) == os.path.realpath(output_dir) and is_picture_of_result(file)


def _is_resource_fork(file: Path) -> bool:
    """Whether macOS wrote it beside the image of that name."""
    return file.name.startswith("._")


if __name__ == "__main__":
    sys.exit(main())
