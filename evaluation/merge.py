"""Make the shards of a run one run again, with its figures; no model is needed.

    python -m evaluation.run --suite counting data/countbench --output_path results/count --shard 1/2
    python -m evaluation.run --suite counting data/countbench --output_path results/count --shard 2/2
    python -m evaluation.merge results/count

Figures are those of one run without shards, to the last digit. Shards that are missing, not finished, there twice or of
another run are refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.runner.figures import write_report
from evaluation.runner.options import add_result_options, add_suite_option, conclude
from evaluation.runner.shards import find_shards, merge
from evaluation.suites import add_suite
from vision_reasoner.cli import make_parser, run_command


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.merge", __doc__)
    add = parser.add_argument
    add("folder", type=Path, help="of the run; gets records, figures and report")
    add(
        "shards", type=Path, nargs="*", metavar="SHARD", help="their folders; default: shard-*-of-* in the run's folder"
    )
    add("--overwrite", action="store_true", help="throw an earlier run in that folder away")
    add_result_options(parser)
    add_suite_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Join shards; exit codes are those of `evaluation.run`."""

    def run(arguments: argparse.Namespace) -> int:
        folder = arguments.folder
        if arguments.suite is not None:
            add_suite(arguments.suite)
        merge(folder, arguments.shards or find_shards(folder), overwrite=arguments.overwrite)
        return conclude(write_report(folder, arguments.by), folder, arguments)

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
