"""Score replies that were made elsewhere, by the rules of `evaluation.run` and into the same kind of folder.

    python -m evaluation.score --suite vqa lmms-lab/DocVQA --replies replies.jsonl --name my-model
    python -m evaluation.score --suite vqa lmms-lab/ChartQA --replies logs/model/20260101_samples_chartqa.jsonl
    python -m evaluation.score --suite counting data/countbench --replies detection_eval_results/countbench
    python -m evaluation.score --suite grounding data/refcoco_testA --replies boxes.jsonl --model qwen

Files of replies are

- JSON lines of `{"id": ..., "reply": "..."}` (or a JSON list of these). The id is that of samples.jsonl: image and
  annotation where the data set has both ("5/1"), otherwise the row's number from 0; --id_column takes a column's values
  instead. A reply is read as one of --model; "frame": [width, height] says in which frame its coordinates are. In place
  of a reply: "answer" of a question, "count", "instances" (`{"box": [x1, y1, x2, y2], "mask": run lengths,
  "likelihood": log-probability}` in pixels of the image), or "error". "masks" beside a reply are run lengths, one for
  each of its objects;
- lmms-eval's sample logs (--log_samples), of which filtered_resps is scored;
- a folder of the original repository's output_*.json, or some of these files. They hold no replies but measurements,
  which give the figures of the upstream protocol.

No model is run. Masks are scored where the rows have them; --segmentation_model_path has SAM2 make them. A sample
without a reply counts as failed; an id that is there twice or is none of the data set's is an error.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from evaluation.runner.evaluate import evaluate
from evaluation.runner.manifest import describe_replies
from evaluation.runner.options import add_data_options, conclude, default_folder, open_samples
from evaluation.runner.scoring import check_masks, from_replies, read_replies
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import UsageError
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.engine import FRAME_SIDE
from vision_reasoner.prompts import DIALECTS
from vision_reasoner.settings import RunSettings

BATCH = 64  # samples between two writes


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.score", __doc__)
    add_data_options(parser)
    add = parser.add_argument
    add("--replies", nargs="+", type=Path, required=True, metavar="FILE", help="see above")
    add("--name", help="what made the replies; default: the file's or folder's name")
    add("--id_column", metavar="COLUMN", help="the data set's column that has the ids of the replies")
    add("--model", choices=tuple(DIALECTS), default="vision_reasoner", help="whose replies they are like")
    add("--frame_side", type=int, default=FRAME_SIDE, metavar="N", help="of vision_reasoner's; default: %(default)s")
    add("--max_objects", type=int, metavar="N", help="objects kept of a reply; default: 300")
    add("--compat", choices=("none", "upstream"), default="none", help="upstream: read replies as the original does")
    add("--segmentation_model_path", metavar="PATH", help="SAM2 that makes masks of boxes: folder or Hub id")
    add("--device", default="auto", help="of SAM2; default: auto, the best there is")
    add("--offline", action="store_true", help="make no network attempt at all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Score; exit codes are those of `evaluation.run`."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Read, score and report."""
    settings = _settings(arguments)
    samples, annotations = open_samples(arguments, instruction=False)
    n = min(arguments.limit or samples.source.n, samples.source.n)
    replies = read_replies(arguments.replies, samples, n, id_column=arguments.id_column)
    segmenter = arguments.segmentation_model_path
    if segmenter is None:
        check_masks(replies, samples.suite.task, settings)
    name = arguments.name or arguments.replies[0].resolve().stem
    checkpoints, manifest = describe_replies(arguments, samples, annotations, settings, (name, replies.digest))
    folder = Path(arguments.output_path or default_folder(manifest))
    metrics = evaluate(
        samples,
        partial(VisionReasoner.from_settings, checkpoints, settings),
        folder,
        manifest,
        by=arguments.by,
        annotations=annotations,
        batch_size=BATCH,
        overwrite=arguments.overwrite,
        pool=partial(from_replies, replies, settings, arguments.frame_side),
        told=set(range(manifest["n"])) - replies.given.keys(),
        quiet=arguments.quiet,
    )
    return conclude(metrics, folder, arguments)


def _settings(arguments: argparse.Namespace) -> RunSettings:
    """How replies are read."""
    if arguments.frame_side < 1:
        raise UsageError("--frame_side must be at least 1")
    limits = {} if arguments.max_objects is None else {"max_objects": arguments.max_objects}
    return RunSettings(
        model=arguments.model, device=arguments.device, offline=arguments.offline, compat=arguments.compat, **limits
    )


if __name__ == "__main__":
    sys.exit(main())
