"""Fit the confidence of a checkpoint's objects to what was right in evaluated runs, or measure a fitted one.

    python -m evaluation.run --suite detection data/mine --looks 2 --output_path results/fit
    python -m evaluation.calibrate results/fit --output path/to/VisionReasoner-7B/calibration.json
    python -m evaluation.calibrate results/other --measure path/to/VisionReasoner-7B/calibration.json

Runs must have taken several looks (`--looks`, `--tiles`) at data with true boxes. An object is right if its box is
matched with a true one, one to one, with an IoU of at least 0.5. Measure on other images than were fitted on.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluation.metrics import boxes
from evaluation.metrics import calibration as metrics
from evaluation.metrics.intervals import Estimate
from evaluation.runner.figures import aligned
from evaluation.runner.records import read_manifest, read_records
from evaluation.runner.schema import Record
from evaluation.suite import found_boxes
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.confidence import Calibration, evidence, read_calibration
from vision_reasoner.errors import DataError, UsageError, one_line
from vision_reasoner.files import check_writable
from vision_reasoner.results import Instance


class Judged(NamedTuple):
    """An object that was found: what is known of it, whether it is right, and its image."""

    known: dict[str, float]
    right: bool
    image_id: str


def judged(folder: Path) -> Iterator[Judged]:
    """The objects of a finished run, without samples that failed or have no true boxes.

    Raises:
        DataError: the folder holds no finished run, or one without several looks or without any true boxes.
    """
    name = read_manifest(folder)["data"]["name"]
    known, found, told = False, 0, 0
    for record in read_records(folder):
        if record["error"] is None and "boxes" in record["truth"]:
            known = True
            found += len(record["instances"])
            told += sum(one.get("votes") is not None or "presence" in one for one in record["instances"])
            yield from _objects(record, folder, name)
    if found and not told:  # pictures that need no tiles have objects without votes, but not all
        raise DataError(f"{folder}: was run with one look; run it with --looks 2 or more")
    if not known:
        raise DataError(
            f"{folder}: no sample has true boxes; give runs of the suite detection, grounding or segmentation"
        )


def _objects(record: Record, folder: Path, name: str) -> Iterator[Judged]:
    hits = boxes.hits(found_boxes(record), record["truth"]["boxes"])
    for found, right in zip(record["instances"], hits, strict=True):
        try:
            instance = Instance.from_json(found)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{folder}: sample {record['id']} is damaged ({one_line(error)}); run it anew") from error
        size = record["size"]
        yield Judged(evidence(instance, (size[0], size[1])), right, f"{name}/{record['image_id']}")


def summary(calibration: Calibration, objects: Sequence[Judged]) -> str:
    """How well a calibration tells right objects from wrong ones, and its reliability table."""
    confidences = [calibration.confidence(one.known) for one in objects]
    right, images = [one.right for one in objects], [one.image_id for one in objects]
    lines = [
        f"{len(objects)} objects in {len({*images})} images, {100 * sum(right) / len(objects):.1f} % right",
        f"AUROC  {_shown(metrics.auroc(confidences, right, images))}",
        f"ECE    {metrics.calibration_error(confidences, right):.3f}",
        "",
    ]
    rows = [["confidence", "objects", "mean", "right"]]
    rows += [
        [f"{b.low:.1f} to {b.high:.1f}", str(b.n), f"{b.confidence:.2f}", f"{b.right:.2f}"]
        for b in metrics.reliability(confidences, right)
    ]
    return "\n".join([*lines, *aligned(rows, right=range(1, 4))])


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{max(estimate.low, 0):.3f}, {min(estimate.high, 1):.3f}]"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.calibrate", __doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs with several looks")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write the calibration: calibration.json beside config.json",
    )
    add("--measure", type=Path, metavar="FILE", help="measure this calibration instead of fitting one")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Fit and write, or measure."""
    if arguments.measure and arguments.output:
        raise UsageError("--measure fits nothing; leave --output out")
    if arguments.output:
        check_writable(arguments.output)
    objects = [one for folder in arguments.runs for one in judged(folder)]
    if arguments.measure:
        calibration = read_calibration(arguments.measure)
        if not objects:
            raise DataError("the runs hold no objects to measure on")
    else:
        names = ", ".join(dict.fromkeys(read_manifest(folder)["data"]["name"] for folder in arguments.runs))
        try:
            fitted_on = f"{len(objects)} objects of {names}"
            calibration = Calibration.fit([one.known for one in objects], [one.right for one in objects], fitted_on)
        except ValueError as error:
            raise DataError(f"{error}; give more or other runs") from error
        if arguments.output:
            calibration.save(arguments.output)
    print(summary(calibration, objects))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
