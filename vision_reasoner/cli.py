"""What all commands share: groups of options, how a command is run, logging, exit codes.

Standard output carries results only; everything else goes to standard error.
"""

import argparse
import importlib.util
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vision_reasoner import __version__
from vision_reasoner.errors import ExitCode, UsageError, VisionReasonerError, one_line, printable
from vision_reasoner.models.devices import ATTENTIONS, COMPILES, DTYPES, QUANTIZATIONS
from vision_reasoner.prompts import DIALECTS

if TYPE_CHECKING:
    from vision_reasoner.settings import Checkpoints, RunSettings


def make_parser(prog: str, description: str | None, *, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options of `run_command`, which keeps the line breaks of its texts."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_output_options(parser)
    return parser


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options about standard error, which `run_command` reads."""
    parser.add_argument("-v", "--verbose", action="store_true", help="more of what goes on; tracebacks of errors")
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing but results and errors")


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
        help="how it is asked: visurf, the baselines qwen and qwen2, qwen3",
    )
    add(
        "--engine",
        default="transformers",
        metavar="ENGINE",
        help="who runs the reasoner: transformers (default), vllm, or an OpenAI-compatible server: http://host:port/v1",
    )
    add(
        "--router_engine",
        default="transformers",
        metavar="ENGINE",
        help="who runs the router: transformers (default), or such a server",
    )
    add("--concurrency", type=int, metavar="N", help="requests that a server is sent at a time; default: 8")
    add("--frame_side", type=int, metavar="N", help="frame of a server's model; default: its config's, else 840")
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
        help="on CUDA: record decoding as graphs and compile the vision tower; default: auto, where it pays",
    )
    add(
        "--quantize",
        choices=QUANTIZATIONS,
        default="none",
        help="weights of reasoner and router in fewer bits: 8bit, 4bit; default: none",
    )
    add("--max_new_tokens", type=int, metavar="N", help="limit of a reply; default: 2048")
    add("--max_objects", type=int, metavar="N", help="objects kept of a reply; default: 300")
    add("--max_image_pixels", type=int, metavar="N", help="refuse larger pictures; default: 89 megapixels")
    add("--looks", type=int, metavar="N", help="views of an image to ask about, 1 to 5; default: 1")
    add("--tiles", metavar="RxC", help="ask about overlapping parts too: auto for large images, or 2x3; default: none")
    add("--merge", choices=("first", "union", "vote"), help="objects of several views to keep; default: union")
    add("--verify", action="store_true", help="ask back whether there is such a thing at all")
    add(
        "--min_confidence",
        type=float,
        metavar="P",
        help="leave out objects of less; needs --looks, --tiles or --verify",
    )
    add("--compat", choices=("none", "upstream"), default="none", help="upstream: prepare VQA as the original code did")
    add("--revision", help="branch, tag or commit of --model_path on the Hub")
    add("--offline", action="store_true", help="make no network attempt at all")
    add("--version", action="version", version=f"%(prog)s {__version__}")


def model_settings(arguments: argparse.Namespace, **changes: Any) -> "tuple[Checkpoints, RunSettings]":
    """What the options of `add_model_options` say, with other values for what is named."""
    from vision_reasoner.settings import Checkpoints, RunSettings

    checkpoints = Checkpoints(
        reasoner=arguments.model_path,
        router=arguments.task_router_model_path,
        segmenter=arguments.segmentation_model_path,
        revision=arguments.revision,
    )
    names = [field.name for field in fields(RunSettings) if hasattr(arguments, field.name)]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return checkpoints, RunSettings(**(given | changes))


def run_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    """Parse the arguments, `run`, and make what it raises one line on standard error and an exit code.

    Args:
        parser: from `make_parser`.
        run: what the command does; gives the exit code.
        argv: the arguments; None for those that the process was started with.
    """
    arguments = parser.parse_args(with_underscores(argv))
    _set_up_logging(verbose=arguments.verbose, quiet=arguments.quiet)
    if not arguments.verbose:
        warnings.simplefilter("ignore")  # of the libraries; ours are logged
    for stream in (sys.stdout, sys.stderr):  # what a console cannot show is shown as an escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return run(arguments)
    except VisionReasonerError as error:
        return _fail(str(error), error.exit_code, arguments.verbose)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command does the rest", ExitCode.INTERRUPTED, verbose=False)
    except BrokenPipeError:  # the reader of standard output has gone; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    except Exception as error:  # noqa: BLE001 - the last resort: one line for people, the traceback with -v
        return _fail(f"{one_line(error)} (run with -v for the traceback)", ExitCode.FAILURE, arguments.verbose)


def with_underscores(argv: Sequence[str] | None) -> list[str]:
    """The arguments, those of the process where there are none, with --model-path as good as --model_path."""
    given = sys.argv[1:] if argv is None else argv
    flag = re.compile(r"^--[a-z0-9]+(-[a-z0-9]+)+(?==|$)")
    return [flag.sub(lambda found: "--" + found[0][2:].replace("-", "_"), text) for text in given]


class _PrintableFormatter(logging.Formatter):
    """Queries, replies and file names in messages may hold escape codes."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _set_up_logging(*, verbose: bool, quiet: bool) -> None:
    """Log to standard error: our messages from INFO, those of libraries from WARNING on; one level more if verbose."""
    logging.basicConfig(
        level=logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
        force=True,
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_PrintableFormatter("%(message)s"))
    for package in ("vision_reasoner", "evaluation", "__main__"):  # the last: a module run by `python -m`
        level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
        logging.getLogger(package).setLevel(level)
    # Where torchao is installed transformers imports it, and torch then warns of torchao's own classes.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def is_quiet() -> bool:
    """Whether nothing but results and errors is wanted, and so no progress: as `run_command` set up logging."""
    return not logging.getLogger("vision_reasoner").isEnabledFor(logging.INFO)


def require(extra: str, *packages: str) -> None:
    """Raise a UsageError with the command that installs an extra, where one of its packages is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} is not installed; pip install -e '.[{extra}]'")


def silence_transformers() -> None:
    """No warnings and progress bars of transformers; what we have to say is logged by us."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _fail(message: str, exit_code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {printable(' '.join(message.splitlines()))}", file=sys.stderr)
    return exit_code
