"""Measure a checkpoint on a data set; the shell scripts beside this file call it.

    python -m evaluation.run --suite segmentation                              # bundled set and checkpoint, offline
    python -m evaluation.run --suite segmentation Ricky06662/refcoco_val --model_path Ricky06662/VisionReasoner-7B
    python -m evaluation.run --suite counting data/countbench --limit 100 --output_path results/try
    python -m evaluation.run --suite vqa lmms-lab/DocVQA                       # the suite docvqa, by the set's name
    python -m evaluation.run --suite vqa lmms-lab/DocVQA --num_workers 8       # eight GPUs, by Ray
    python -m evaluation.run --suite vqa lmms-lab/DocVQA --split test --submission
    python -m evaluation.run --suite my/suite.py my/data                       # a suite of your own

The folder at --output_path gets a line for each finished sample, metrics.json and report.html. The same command again
continues a run that was interrupted, does failed samples again, and otherwise only reports. The router is not asked:
a suite says what kind of request it makes.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.runner.evaluate import collect, evaluate
from evaluation.runner.manifest import describe
from evaluation.runner.options import add_data_options, conclude, default_folder, exit_code, open_samples
from evaluation.runner.schema import Manifest
from evaluation.runner.shards import parse_shard, shard_folder
from evaluation.runner.workers import Pool, import_ray, in_process, load_model, on_ray
from evaluation.suite import Suite
from vision_reasoner.cli import add_model_options, make_parser, run_command
from vision_reasoner.errors import UsageError
from vision_reasoner.models import local, server
from vision_reasoner.models.engine import check_text
from vision_reasoner.models.reasoner import query_for
from vision_reasoner.prompts import DIALECTS
from vision_reasoner.settings import LOCAL, VLLM, Checkpoints, RunSettings

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The options; those about the model are the command line's of the library."""
    parser = make_parser("python -m evaluation.run", __doc__)
    add_data_options(parser)
    add = parser.add_argument
    add("--batch_size", type=int, default=16, metavar="N", help="requests at once; default: %(default)s")
    add("--num_workers", type=int, metavar="N", help="work by Ray, with a GPU each; default with --ray_address: all")
    add("--ray_address", metavar="ADDRESS", help="of a running Ray cluster; auto: that of this machine")
    add("--shard", metavar="I/N", help="the I-th of N parts, into a folder of its own; evaluation.merge joins them")
    add(
        "--submission",
        action="store_true",
        help="answers are not published: ask, score nothing, and write submission.json for the test server",
    )
    add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes are those of the library's, 7 where too many samples failed."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and report."""
    if arguments.batch_size < 1:
        raise UsageError("--batch_size must be at least 1")
    spread = arguments.num_workers is not None or arguments.ray_address is not None
    if spread:
        _check_workers(arguments)
    part = None if arguments.shard is None else parse_shard(arguments.shard)
    samples, annotations = open_samples(arguments, scored=not arguments.submission)
    checkpoints, settings, manifest = describe(arguments, samples, annotations)
    if not samples.suite.prompted:
        samples.check_query = partial(_check_query, checkpoints, settings, samples.suite)
    if arguments.submission:
        manifest["submission"] = True
    folder = Path(arguments.output_path or default_folder(manifest, *_details(arguments)))
    load = partial(load_model, checkpoints, settings, silent=not arguments.verbose)
    pool: Pool = partial(in_process, at_once=settings.portions_at_once)
    if spread:
        digests = {part: one["digest"] for part, one in manifest["checkpoint"].items()}
        views = manifest["settings"].get("views")
        here = _everywhere(checkpoints, settings, manifest)
        load = partial(load_model, *here, digests, views, silent=not arguments.verbose)
        pool = partial(
            on_ray,
            num_workers=arguments.num_workers,
            address=arguments.ray_address,
            at_once=settings.portions_at_once,
            gpu=manifest["settings"]["device"] == "cuda",
            silent=not arguments.verbose,
        )
    options: dict[str, Any] = {
        "annotations": annotations,
        "batch_size": settings.portion,
        "overwrite": arguments.overwrite,
        "pool": pool,
        "quiet": arguments.quiet,
    }
    if part is None:
        return conclude(evaluate(samples, load, folder, manifest, by=arguments.by, **options), folder, arguments)
    manifest["shard"] = {"number": part.number, "of": part.of, "batch_size": settings.portion}
    errors = collect(samples, load, shard_folder(folder, part), manifest, **options)
    logger.info("Shard %d of %d is done; when all are: python -m evaluation.merge %s", *part, folder)
    return exit_code(errors, arguments.max_errors)


def _check_query(checkpoints: Checkpoints, settings: RunSettings, suite: Suite, query: str) -> None:
    """Raise a QueryError where a request, as it stands in the prompt, has control tokens; no weights are loaded."""

    def find(text: str) -> str | None:
        if "reasoner" in settings.served:
            return server.find_control_token(text)
        return local.find_control_token(text, local.load_tokenizer(Path(str(checkpoints.reasoner))))

    check_text(query_for(query, suite.task, DIALECTS[settings.model], settings.compat), find)


def _check_workers(arguments: argparse.Namespace) -> None:
    """Raise a UsageError where Ray cannot work as the options say."""
    if arguments.num_workers is not None and arguments.num_workers < 1:
        raise UsageError("--num_workers must be at least 1")
    if ":" in arguments.device:
        raise UsageError(
            f"--device {arguments.device}: with workers Ray says which; give {arguments.device.partition(':')[0]}"
        )
    if arguments.engine not in (LOCAL, VLLM):
        raise UsageError("a server is asked by one process; leave Ray out and raise --concurrency")
    import_ray()


def _everywhere(checkpoints: Checkpoints, settings: RunSettings, manifest: Manifest) -> tuple[Checkpoints, RunSettings]:
    """The same with nothing in it that another machine could take otherwise, and no part that is not used."""
    numerics = manifest["settings"]
    folders = {part: str(Path(getattr(checkpoints, part)).resolve()) for part in manifest["checkpoint"]}
    chosen = replace(
        settings,
        device=numerics["device"],
        dtype=numerics["dtype"],
        attn_implementation=numerics["attn_implementation"],
    )
    return Checkpoints(**folders), chosen


def _details(arguments: argparse.Namespace) -> list[str]:
    """What tells runs with the same checkpoint on the same data apart, for the default folder."""
    return [
        arguments.model if arguments.model != "vision_reasoner" else "",
        arguments.compat if arguments.compat != "none" else "",
        "submission" if arguments.submission else "",
    ]


if __name__ == "__main__":
    sys.exit(main())
