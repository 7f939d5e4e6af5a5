"""What the commands that measure share: the options about the data, opening it, and what is said in the end."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from evaluation.runner.figures import table
from evaluation.runner.groups import TARGETS, check_values
from evaluation.runner.ranking import find_annotations
from evaluation.runner.records import PAGE, read_manifest
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Manifest, Metrics
from evaluation.runner.submission import write_submission
from evaluation.suite import unscored
from evaluation.suites import SUITES, choose_suite
from vision_reasoner.data.sources import IMAGE_COLUMNS, open_source
from vision_reasoner.errors import ExitCode, UsageError

logger = logging.getLogger(__name__)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """What is measured and where its results go."""
    add = parser.add_argument
    add("dataset", nargs="?", help="Hub id, or parquet, save_to_disk folder or .jsonl; default: a small bundled set")
    add("--suite", required=True, help=f"what is asked and how it is scored: {', '.join(SUITES)}, or a .py file")
    add("--split", help="default: test (docvqa and textvqa: validation)")
    add("--config", help="of a Hub id with several data sets")
    add("--columns", metavar="FIELD=COLUMN,...", help="where the data set calls them otherwise: question=q,answers=a")
    add("--annotations", metavar="FILE", help="detection: COCO's instances JSON; default: instances.json of the set")
    add("--limit", type=int, metavar="N", help="the first N samples only")
    add("--output_path", metavar="DIR", help="default: results/<suite>/<data set>/<checkpoint>")
    add("--overwrite", action="store_true", help="throw an earlier run in that folder away")
    add_result_options(parser)


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """What is said about finished samples."""
    add = parser.add_argument
    add("--max_errors", type=int, default=0, metavar="N", help="more failed samples make the exit code 7; default: 0")
    add("--protocol", choices=("both", "upstream", "official"), default="both", help="which figures are printed")
    add_group_options(parser)


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """Figures of parts of the samples."""
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="figures also for each value of a column of the data set, or of targets, the number of true objects",
    )


def add_suite_option(parser: argparse.ArgumentParser) -> None:
    """For runs of a suite that is not one of ours."""
    parser.add_argument("--suite", type=Path, metavar="FILE", help="the .py file of the runs' suite, if it has one")


def open_samples(
    arguments: argparse.Namespace, *, instruction: bool = True, scored: bool = True
) -> tuple[Samples, Path | None]:
    """The samples that `add_data_options` tell of, and the instances file, where one is scored against.

    Args:
        arguments: of the command line.
        instruction: whether requests get the suite's instruction; not where they were asked elsewhere.
        scored: whether the truth is read.

    Raises:
        UsageError: a number is out of range, or no data set is named.
        DataError: the data set cannot be read, or is not one of this suite.
    """
    if (arguments.limit is not None and arguments.limit < 1) or arguments.max_errors < 0:
        raise UsageError("--limit must be at least 1, --max_errors at least 0")
    suite = choose_suite(arguments.suite, arguments.dataset).with_columns(_columns(arguments.columns))
    if not instruction:
        suite = replace(suite, instruction="")
    if not scored:
        suite = unscored(suite)
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
    if not scored and "ann_id" not in samples.columns:
        raise UsageError(
            f"--submission: {source.path} has no column {suite.column('ann_id')!r} of the questions' ids; --columns "
            f"ann_id=... takes another (it has {', '.join(source.columns)})"
        )
    if unknown := [column for column in arguments.by if column not in (*source.columns, TARGETS)]:
        raise UsageError(f"--by {unknown[0]}: {source.path} has no such column (it has {', '.join(source.columns)})")
    large = {samples.columns.get(field) for field in (*IMAGE_COLUMNS, "ignore")}
    small = [column for column in source.columns if column not in large]
    for column in set(arguments.by) - {TARGETS}:
        check_values(column, source.column(column)[: arguments.limit] if column in small else (), small)
    return samples, find_annotations(arguments.annotations, source.path) if suite.ranked else None


def _columns(text: str | None) -> dict[str, str]:
    """`question=q,answers=a` as a mapping."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    if any(not (name.strip() and sign and column.strip()) for name, sign, column in pairs):
        raise UsageError(f"--columns {text}: give field=column pairs with commas between, such as question=q,answers=a")
    return {name.strip(): column.strip() for name, _, column in pairs}


def default_folder(manifest: Manifest, *details: str) -> Path:
    """results/<suite>/<data set>/<checkpoint>, with what else tells runs apart; the same command gives the same one."""
    data = manifest["data"]
    split = "" if data["split"] == SUITES[manifest["suite"]].split else data["split"]
    limit = f"limit{manifest['n']}" if manifest["n"] < data["rows"] else ""
    name = manifest["checkpoint"]["reasoner"]["name"]
    parts = ((data["name"], split), (name, limit, *details))
    return Path("results", manifest["suite"], *("-".join(filter(None, part)) for part in parts))


def conclude(metrics: Metrics, folder: Path, arguments: argparse.Namespace) -> int:
    """Print the figures of a finished run; gives the exit code."""
    print(table(metrics, arguments.protocol))
    logger.info("Report: %s", folder / PAGE)
    if "submission" in read_manifest(folder) and metrics["errors"] <= arguments.max_errors:
        logger.info("For the test server: %s", write_submission(folder))
    return exit_code(metrics["errors"], arguments.max_errors)


def exit_code(errors: int, most: int) -> int:
    """SOME_FAILED where more samples failed than may, which is said; otherwise OK."""
    if errors <= most:
        return ExitCode.OK
    logger.error(
        "error: %d samples failed and are in no figure (--max_errors %d); the same command tries them again",
        errors,
        most,
    )
    return ExitCode.SOME_FAILED
