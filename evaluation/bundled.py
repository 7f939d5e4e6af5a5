"""The small data sets under evaluation/data/, made of scenes in the schemas of the originals.

    python -m evaluation.bundled            # writes evaluation/data/<suite>/test.parquet; needs the `train` extra

Drawings, wordings and seeds are held out from training. Images are small, for they are committed.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.scene_sets import bundled_sets
from evaluation.suite import BUNDLED
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.data.sources import Row

logger = logging.getLogger(__name__)


def write(name: str, rows: list[Row], folder: Path) -> Path:
    """`folder`/`name`/test.parquet; an image that several rows share is kept once."""
    from datasets import Dataset
    from datasets import Image as ImageColumn

    target = folder / name / "test.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_list(rows).cast_column("image", ImageColumn())
    dataset.to_parquet(target, dictionary_pagesize_limit=1 << 26)
    return target


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.bundled", __doc__)
    parser.add_argument("--output", type=Path, default=BUNDLED, help="folder to write to (%(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Make and write the sets."""
    folder = arguments.output
    sets, instances = bundled_sets()
    for name, rows in sets.items():
        path = write(name, rows, folder)
        logger.info("%s: %d rows, %.1f MB", path, len(rows), path.stat().st_size / 1e6)
    (folder / "detection" / "instances.json").write_text(json.dumps(instances) + "\n", encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Make the bundled sets; exit codes are those of the library's command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
