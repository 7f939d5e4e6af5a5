"""The command line: a picture and a query in, the answer on standard output, a picture of it on disk.

Runs as `python vision_reasoner/inference.py` from the repository, as `vision-reasoner` where it is installed, and as
`python -m vision_reasoner`. Standard output carries results only; everything else goes to standard error.
Exit codes: 0 fine ("nothing found" included), 2 usage, 3 bad picture or query, 4 checkpoint missing or not loadable,
6 the reply could not be used, 7 some of many pictures failed, 130 interrupted, 1 anything else.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the repository's root goes where Python put this file's folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import glob
import importlib.metadata
import json
import logging
import os
import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vision_reasoner import __version__
from vision_reasoner.devices import ATTENTIONS, COMPILES, DTYPES
from vision_reasoner.errors import ImageError, ReplyError, VisionReasonerError, one_line
from vision_reasoner.prompts import DIALECTS

if TYPE_CHECKING:
    from vision_reasoner.model import VisionReasoner
    from vision_reasoner.results import Prediction

DEFAULT_IMAGE = "assets/airplanes.png"
DEFAULT_QUERY = "How many airplanes are there in this image?"
TASKS = ("auto", "detection", "segmentation", "counting", "vqa")  # results.Task without importing it, for --help
INTERRUPTED = 130  # 128 + SIGINT, as shells say it

EXAMPLES = """\
examples:
  python vision_reasoner/inference.py
  python vision_reasoner/inference.py --image_path assets/donuts.png --query "please segment the donuts"
  python vision_reasoner/inference.py --image_path photo.jpg --query "detect the dogs" --json
  python vision_reasoner/inference.py --image_path photos/ "more/*.png" --query "the red car" --output_dir results
  python vision_reasoner/inference.py --model_path pretrained_models/VisionReasoner-7B --device cuda
  python -m vision_reasoner download --what all
"""


def build_parser() -> argparse.ArgumentParser:
    """The options, with the names and meaning they have in the original; limits left out are the library's."""
    parser = argparse.ArgumentParser(
        prog="vision-reasoner",
        description="Find, segment or count objects in pictures, or answer a question about them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
    add("--output_path", default="result_visualization.png", help="picture of the result; default: %(default)s")
    add("--output_dir", metavar="DIR", help="folder for the results of many pictures; default for many: results")
    add("--json", action="store_true", help="print JSON, one line for each picture, instead of text")
    add("--batch_size", type=int, metavar="N", help="pictures at once; default: 8")
    add_model_options(parser)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that every command has that runs a model; `model_settings` reads them."""
    add = parser.add_argument
    add(
        "--model_path",
        help="reasoner, or a bundle of all parts: folder or Hub id; "
        "default: pretrained_models/VisionReasoner-7B if it is there, else the bundled checkpoint",
    )
    add(
        "--task_router_model_path",
        metavar="PATH",
        help="router: folder or Hub id; default: the bundle's or released one",
    )
    add(
        "--segmentation_model_path",
        metavar="PATH",
        help="SAM2: folder or Hub id; default: the bundle's or released one",
    )
    add(
        "--model",
        choices=tuple(DIALECTS),
        default="vision_reasoner",
        help="how it is asked; qwen, qwen2: the baselines",
    )
    add("--device", default="auto", help="cuda, cuda:1, mps, cpu; default: auto, the best there is")
    add("--dtype", choices=DTYPES, default="auto", help="of reasoner and router; default: auto, what suits the device")
    add(
        "--attn_implementation",
        choices=ATTENTIONS,
        default="auto",
        help="default: auto, flash-attn if there, else sdpa",
    )
    add(
        "--compile",
        choices=COMPILES,
        default="auto",
        help="decode by recorded CUDA graphs; default: auto, where they can be",
    )
    add("--max_new_tokens", type=int, metavar="N", help="limit of a reply; default: 2048")
    add("--max_objects", type=int, metavar="N", help="objects kept of a reply; default: 300")
    add("--max_image_pixels", type=int, metavar="N", help="refuse larger pictures; default: 89 megapixels")
    add("--compat", choices=("none", "upstream"), default="none", help="upstream: prepare VQA as the original code did")
    add("--revision", help="branch, tag or commit of --model_path on the Hub")
    add("--offline", action="store_true", help="make no network attempt at all")
    add_output_options(parser)
    add("--version", action="version", version=f"%(prog)s {__version__}")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options about standard error, which `run_command` reads."""
    parser.add_argument("-v", "--verbose", action="store_true", help="more of what goes on; tracebacks of errors")
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing but results and errors")


def model_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments for `VisionReasoner.from_pretrained`; limits that were not given are left out."""
    names = ("model", "device", "dtype", "attn_implementation", "compile", "revision", "offline", "compat")
    limits = ("max_new_tokens", "max_objects", "max_image_pixels")
    return {
        "model_path": arguments.model_path,
        "router": arguments.task_router_model_path,
        "segmenter": arguments.segmentation_model_path,
        **{name: getattr(arguments, name) for name in names},
        **{name: getattr(arguments, name) for name in limits if getattr(arguments, name) is not None},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module for the exit codes."""
    return run_command(build_parser(), run, argv)


def run_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    """Parse the arguments, `run`, and make what it raises one line on standard error and an exit code.

    Args:
        parser: with `add_output_options`.
        run: what the command does; gives the exit code.
        argv: the arguments; None for those that the process was started with.
    """
    arguments = parser.parse_args(with_underscores(argv))
    level = logging.INFO if arguments.verbose else logging.ERROR if arguments.quiet else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(message)s", force=True)
    if not arguments.verbose:
        warnings.simplefilter("ignore")  # of the libraries; ours are logged
    try:
        return run(arguments)
    except VisionReasonerError as error:
        return _fail(str(error), error.exit_code, arguments.verbose)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command does the rest", INTERRUPTED, verbose=False)
    except BrokenPipeError:  # the reader of standard output has gone; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: one line for people, the traceback with -v
        return _fail(f"{one_line(error)} (run with -v for the traceback)", 1, arguments.verbose)


def with_underscores(argv: Sequence[str] | None) -> list[str]:
    """The arguments, those of the process where there are none, with --model-path as good as --model_path."""
    given = sys.argv[1:] if argv is None else argv
    flag = re.compile(r"^--[a-z0-9]+(-[a-z0-9]+)+(?==|$)")
    return [flag.sub(lambda found: "--" + found[0][2:].replace("-", "_"), text) for text in given]


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; one picture here, many in `many`."""
    files, many = expand(arguments.image_path)
    settings = model_settings(arguments)
    if arguments.batch_size is not None:
        settings["batch_size"] = arguments.batch_size
    from vision_reasoner.model import VisionReasoner

    model = VisionReasoner.from_pretrained(**settings)
    if not arguments.verbose:
        hush_transformers()
    task = None if arguments.task == "auto" else arguments.task
    if many or arguments.output_dir:
        from vision_reasoner.many import run_many

        return run_many(
            model,
            files,
            arguments.query,
            task,
            output_dir=Path(arguments.output_dir or "results"),
            settings=model.sources
            | {name: getattr(arguments, name) for name in ("model", "revision", "dtype", "compat")}
            | {"max_new_tokens": model.max_new_tokens, "max_objects": model.max_objects},
            as_json=arguments.json,
            quiet=arguments.quiet,
        )
    return run_one(model, files[0], arguments.query, task, output_path=arguments.output_path, as_json=arguments.json)


def run_one(
    model: "VisionReasoner", file: Path, query: str, task: str | None, *, output_path: str, as_json: bool
) -> int:
    """Answer for one picture.

    Raises:
        ReplyError: the reply could not be used; the picture is written all the same.
    """
    from vision_reasoner.images import load_image

    notes: list[str] = []
    image = load_image(file, max_pixels=model.max_image_pixels, notes=notes)
    prediction = model.predict(image, query, task)
    prediction.warnings = notes + prediction.warnings
    print(json.dumps(record_of(file, prediction)) if as_json else report(prediction), flush=True)
    for warning in prediction.warnings:
        logging.getLogger(__name__).warning("warning: %s", warning)
    prediction.save(output_path, image)
    logging.getLogger(__name__).warning("Result picture: %s", output_path)
    if not usable(prediction):
        raise ReplyError(
            f"the reply could not be used ({prediction.status}): {prediction.reply.strip()[:200]!r}; "
            "ask in other words, or raise --max_new_tokens"
        )
    return 0


def expand(paths: Sequence[str]) -> tuple[list[Path], bool]:
    """The picture files that paths, folders and globs stand for, and whether they are to be treated as many.

    A folder stands for the pictures right inside it. The default picture is looked for in the repository too.

    Raises:
        ImageError: a folder or glob holds no picture.
    """
    files: list[Path] = []
    many = len(paths) > 1
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            from vision_reasoner.images import SUFFIXES

            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            many = True
        elif not path.exists() and glob.has_magic(text):
            matches = (Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - may be absolute
            found = sorted(match for match in matches if match.is_file())
            many = True
        else:
            in_repository = Path(__file__).resolve().parent.parent / text
            found = [in_repository if text == DEFAULT_IMAGE and not path.exists() and in_repository.exists() else path]
        if not found:
            raise ImageError(f"{text}: no pictures there; check --image_path")
        files += found
    return list(dict.fromkeys(files)), many


def report(prediction: "Prediction") -> str:
    """The lines for standard output, in the original's words."""
    lines = [f"Task type: {prediction.task}", f"User question: {prediction.query}"]
    if prediction.thinking:
        lines.append(f"Thinking process: {prediction.thinking}")
    totals = {
        "detection": f"Total number of detected objects: {prediction.count}",
        "segmentation": f"Total number of segmented objects: {prediction.count}",
        "counting": f"Total number of interested objects is: {prediction.count}",
        "vqa": f"The answer is: {prediction.answer}",
    }
    return "\n".join([*lines, totals[prediction.task]])


def record_of(file: Path, prediction: "Prediction") -> dict[str, Any]:
    """A prediction as one JSON object, with the picture it is of and the versions that made it."""
    return {"image": str(file), **prediction.to_json(), "versions": versions()}


def versions() -> dict[str, str]:
    """The versions of what results depend on."""
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "sam2", "pillow")}
    return {"vision_reasoner": __version__, **libraries}


def usable(prediction: "Prediction") -> bool:
    """Whether the reply gave something to go on; an answer that was cut off does."""
    return prediction.usable or bool(prediction.answer)


def hush_transformers() -> None:
    """No warnings and progress bars of transformers; what we have to say is logged by us."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _fail(message: str, exit_code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
