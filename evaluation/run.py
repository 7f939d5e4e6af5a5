"""Measure a checkpoint on a data set; the shell scripts beside this file call it.

    python -m evaluation.run --suite segmentation                              # bundled set and checkpoint, offline
    python -m evaluation.run --suite segmentation Ricky06662/refcoco_val --model_path Ricky06662/VisionReasoner-7B
    python -m evaluation.run --suite counting data/countbench --limit 100 --output_path results/try
    python -m evaluation.run --suite vqa lmms-lab/DocVQA                       # the suite docvqa, by the set's name
    python -m evaluation.run --suite vqa lmms-lab/DocVQA --num_workers 8       # eight GPUs, by Ray

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

from evaluation.runner.evaluate import evaluate
from evaluation.runner.figures import table
from evaluation.runner.manifest import describe
from evaluation.runner.ranking import find_annotations
from evaluation.runner.records import PAGE
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Manifest
from evaluation.runner.workers import Pool, import_ray, in_process, load_model, on_ray
from evaluation.suites import SUITES, choose_suite
from vision_reasoner.cli import add_model_options, make_parser, run_command
from vision_reasoner.data.sources import IMAGE_COLUMNS, open_source
from vision_reasoner.errors import ExitCode, UsageError
from vision_reasoner.settings import LOCAL, Checkpoints, RunSettings

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The options; those about the model are the command line's of the library."""
    parser = make_parser("python -m evaluation.run", __doc__)
    add = parser.add_argument
    add("dataset", nargs="?", help="Hub id, or parquet, save_to_disk folder or .jsonl; default: a small bundled set")
    add("--suite", choices=tuple(SUITES), required=True, help="what is asked and how it is scored")
    add("--split", help="default: test (docvqa and textvqa: validation)")
    add("--config", help="of a Hub id with several data sets")
    add("--columns", metavar="FIELD=COLUMN,...", help="where the data set calls them otherwise: question=q,answers=a")
    add("--annotations", metavar="FILE", help="detection: COCO's instances JSON; default: instances.json of the set")
    add("--batch_size", type=int, default=16, metavar="N", help="requests at once; default: %(default)s")
    add("--num_workers", type=int, metavar="N", help="work by Ray, with a GPU each; default with --ray_address: all")
    add("--ray_address", metavar="ADDRESS", help="of a running Ray cluster; auto: that of this machine")
    add("--limit", type=int, metavar="N", help="the first N samples only")
    add("--output_path", metavar="DIR", help="default: results/<suite>/<data set>/<checkpoint>")
    add("--overwrite", action="store_true", help="throw an earlier run in that folder away")
    add("--max_errors", type=int, default=0, metavar="N", help="more failed samples make the exit code 7; default: 0")
    add("--protocol", choices=("both", "upstream", "official"), default="both", help="which figures are printed")
    add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes are those of the library's, 7 where too many samples failed."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and report."""
    if arguments.batch_size < 1 or (arguments.limit is not None and arguments.limit < 1) or arguments.max_errors < 0:
        raise UsageError("--batch_size and --limit must be at least 1, --max_errors at least 0")
    spread = arguments.num_workers is not None or arguments.ray_address is not None
    if spread:
        if arguments.num_workers is not None and arguments.num_workers < 1:
            raise UsageError("--num_workers must be at least 1")
        if ":" in arguments.device:
            raise UsageError(
                f"--device {arguments.device}: with workers Ray says which; give {arguments.device.partition(':')[0]}"
            )
        if arguments.engine != LOCAL:
            raise UsageError("a server is asked by one process; leave Ray out and raise --concurrency")
        import_ray()
    suite = choose_suite(arguments.suite, arguments.dataset).with_columns(_columns(arguments.columns))
    if (data := arguments.dataset or suite.data) is None:
        raise UsageError(f"the suite {suite.name} has no data set of its own; name one (evaluation.prepare makes some)")
    source = open_source(
        data,
        split=arguments.split or suite.split,
        config=arguments.config or suite.config,
        image_columns=[suite.column(name) for name in IMAGE_COLUMNS],
        offline=arguments.offline,
    )
    samples = Samples(suite, source)
    annotations = find_annotations(arguments.annotations, source.path) if suite.ranked else None
    checkpoints, settings, manifest = describe(arguments, samples, annotations)
    folder = Path(arguments.output_path or _default_folder(arguments, manifest))
    load = partial(load_model, checkpoints, settings, silent=not arguments.verbose)
    pool: Pool = partial(in_process, at_once=settings.portions_at_once)
    if spread:
        digests = {part: one["digest"] for part, one in manifest["checkpoint"].items()}
        load = partial(load_model, *_everywhere(checkpoints, settings, manifest), digests, silent=not arguments.verbose)
        pool = partial(
            on_ray,
            num_workers=arguments.num_workers,
            address=arguments.ray_address,
            gpu=manifest["settings"]["device"] == "cuda",
            silent=not arguments.verbose,
        )
    metrics = evaluate(
        samples,
        load,
        folder,
        manifest,
        annotations=annotations,
        batch_size=settings.portion,
        overwrite=arguments.overwrite,
        pool=pool,
        quiet=arguments.quiet,
    )
    print(table(metrics, arguments.protocol))
    logger.info("Report: %s", folder / PAGE)
    if metrics["errors"] > arguments.max_errors:
        logger.error(
            "error: %d samples failed and are in no figure (--max_errors %d); the same command tries them again",
            metrics["errors"],
            arguments.max_errors,
        )
        return ExitCode.SOME_FAILED
    return 0


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


def _columns(text: str | None) -> dict[str, str]:
    """`question=q,answers=a` as a mapping."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    if any(not (name.strip() and sign and column.strip()) for name, sign, column in pairs):
        raise UsageError(f"--columns {text}: give field=column pairs with commas between, such as question=q,answers=a")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _default_folder(arguments: argparse.Namespace, manifest: Manifest) -> Path:
    """results/<suite>/<data set>/<checkpoint>, with what else tells runs apart; the same command gives the same one."""
    data, settings = manifest["data"], manifest["settings"]
    details = [
        f"limit{arguments.limit}" if arguments.limit else "",
        arguments.model if arguments.model != "vision_reasoner" else "",
        settings["compat"] if settings["compat"] != "none" else "",
    ]
    split = "" if data["split"] == SUITES[manifest["suite"]].split else data["split"]
    name = manifest["checkpoint"]["reasoner"]["name"]
    parts = ((data["name"], split), (name, *details))
    return Path("results", manifest["suite"], *("-".join(filter(None, part)) for part in parts))


if __name__ == "__main__":
    sys.exit(main())
