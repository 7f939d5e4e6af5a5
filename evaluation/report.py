"""Report on a run again, from its folder alone: metrics.json, report.html and a table for the terminal.

    python -m evaluation.report results/segmentation/refcoco_val/VisionReasoner-7B
    python -m evaluation.report results/chartqa/ChartQA/VisionReasoner-7B --by type

No model is needed, and the data set for the page's images only. The same records give the same metrics.json.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.runner.figures import table, write_report
from evaluation.runner.options import add_group_options, add_suite_option
from evaluation.suites import add_suite
from vision_reasoner.cli import make_parser, run_command


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.report", __doc__)
    parser.add_argument("folder", type=Path, help="a run's --output_path")
    parser.add_argument("--protocol", choices=("both", "upstream", "official"), default="both")
    add_group_options(parser)
    add_suite_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Report on a finished run."""

    def run(arguments: argparse.Namespace) -> int:
        if arguments.suite is not None:
            add_suite(arguments.suite)
        print(table(write_report(arguments.folder, arguments.by), arguments.protocol))
        return 0

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
