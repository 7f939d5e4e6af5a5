"""How fast a checkpoint answers on this machine, by stage, and against a plain implementation in the same run.

    python -m evaluation.benchmark                       # the bundled checkpoint on the README's examples
    python -m evaluation.benchmark --dtype bfloat16      # or another number format, device, batch size
    python -m evaluation.benchmark --model_path pretrained_models/VisionReasoner-7B --device cuda
    python -m evaluation.benchmark --engines transformers vllm http://localhost:8000/v1   # reasoner alone, by engine
    python -m evaluation.benchmark --shape 7b            # the released reasoner's shape, with random weights
    python -m evaluation.benchmark --shape 7b --save /tmp/7b   # these weights as a checkpoint, for --model_path

Cold is the first request of the process, importing and loading included. Warm is every further one. The plain
implementation has the same weights but asks one picture at a time, calls SAM2 once per box and brings all three masks
of a box to the picture's size; each round times both on the same requests, so that a busy machine slows both.

With --engines or --shape only the reasoner is measured, by each engine and so many pictures at once (--at_once),
against the original's way of asking (see `evaluation.timing`): tokens a second in decoding, seconds to the first token,
pictures a second, memory, and how many replies are the same. What is asked about are the bundled data sets.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation import shapes, timing
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import UsageError
from vision_reasoner.images import load_image
from vision_reasoner.masks import Mask
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.checkpoints import choose, locate
from vision_reasoner.models.devices import ATTENTIONS, COMPILES, DTYPES, peak_memory
from vision_reasoner.models.segmenter import Segmenter
from vision_reasoner.results import Instance, Prediction

STAGES = ("load", "route", "prefill", "decode", "segment")
ASSETS = Path(__file__).resolve().parent.parent / "assets"
EXAMPLES = (  # the README's; the first, which needs every part, is the cold one
    ("donuts.png", "please segment the donuts"),
    ("airplanes.png", "How many airplanes are there in this image?"),
    ("stand_higher.png", "find what can make the woman stand higher?"),
    ("company_name.png", "What is name of the company?"),
)
Request = tuple[Image.Image, str]


@dataclass(frozen=True)
class Report:
    """What was measured; seconds for one request, means over all requests and rounds.

    Attributes:
        cold: by stage and in total, for the first request.
        warm: by stage and in total.
        plain: the same for the plain implementation.
        ratios: plain seconds by ours, one for each round.
        identical: whether both gave the same boxes, answers and masks, pixel for pixel.
        peak_memory_gb: of the process, and of the CUDA device where one is used.
    """

    cold: dict[str, float]
    warm: dict[str, float]
    plain: dict[str, float]
    ratios: list[float]
    identical: bool
    n_requests: int
    n_objects: int
    peak_memory_gb: dict[str, float]

    def table(self) -> str:
        """The report for people."""
        columns = (*STAGES, "total")
        lines = [" " * 22 + "".join(f"{name:>9}" for name in columns)]
        for name, row in (("cold, first request", self.cold), ("warm, each", self.warm), ("plain, each", self.plain)):
            cells = (f"{row[column]:9.2f}" if column in row else f"{'-':>9}" for column in columns)
            lines.append(f"{name:<22}" + "".join(cells))
        low, high = min(self.ratios), max(self.ratios)
        memory = ", ".join(f"{gigabytes:.2f} GB of {where}" for where, gigabytes in self.peak_memory_gb.items())
        return "\n".join(
            [
                *lines,
                f"plain / ours: {statistics.median(self.ratios):.2f} "
                f"(median of {len(self.ratios)} rounds, {low:.2f} to {high:.2f}); "
                f"results {'identical' if self.identical else 'differ, as they may in half precision'}",
                f"seconds for one of {self.n_requests} requests with {self.n_objects} objects in all",
                f"peak memory: {memory}",
            ]
        )


def measure(
    model: VisionReasoner, requests: Sequence[Request], *, rounds: int = 3, started: float | None = None
) -> Report:
    """Time `model` and the plain implementation on `requests`.

    Args:
        model: nothing of it loaded yet, or the cold row lacks the loading.
        requests: RGB pictures with queries; the router decides on the tasks.
        rounds: how often both are timed.
        started: the `perf_counter` when the process began its work; now if None.
    """
    started = time.perf_counter() if started is None else started
    first = model.predict(*requests[0])
    cold = {"load": sum(model.load_seconds.values()), **first.timings, "total": time.perf_counter() - started}

    model.predict_batch(requests)  # loads what the first did not need
    assert isinstance(model.segmenter, Segmenter)
    one_by_one = VisionReasoner(
        model.reasoner, model.router, PlainSegmenter(model.segmenter), max_new_tokens=model.settings.max_new_tokens
    )
    warm: list[dict[str, float]] = []
    plain: list[dict[str, float]] = []
    ratios = []
    identical = True
    for _ in range(rounds):
        start = time.perf_counter()
        predictions = model.predict_batch(requests)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        references = [one_by_one.predict(image, query) for image, query in requests]
        plain_seconds = time.perf_counter() - start
        ratios.append(plain_seconds / seconds)
        warm.append(_means(predictions, seconds))
        plain.append(_means(references, plain_seconds))
        identical = identical and all(map(_same, predictions, references))
    return Report(
        cold=cold,
        warm={name: statistics.fmean(row[name] for row in warm) for name in warm[0]},
        plain={name: statistics.fmean(row[name] for row in plain) for name in plain[0]},
        ratios=ratios,
        identical=identical,
        n_requests=len(requests),
        n_objects=sum(prediction.count for prediction in predictions),
        peak_memory_gb=peak_memory(),
    )


class PlainSegmenter:
    """A segmenter's model called once per box through the package's own predictor, all three masks upsampled."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def encode(self, image: Image.Image) -> Any:
        """The package's predictor, with the picture set."""
        predictor = copy.copy(self.segmenter._predictor)
        predictor.set_image(image)
        return predictor

    def masks(
        self, features: Any, boxes: Sequence[Sequence[float]], points: Sequence[Sequence[float] | None] | None = None
    ) -> Iterator[tuple[Mask, float]]:
        """An (H, W) bool mask and a score for each box."""
        for box, point in zip(boxes, points or [None] * len(boxes), strict=True):
            prompt: dict[str, Any] = {"box": np.array(box)}
            if point is not None:
                prompt |= {"point_coords": np.array([point]), "point_labels": np.array([1])}
            masks, scores, _ = features.predict(multimask_output=True, **prompt)
            yield masks[scores.argmax()] > 0, float(scores.max())


def _means(predictions: Sequence[Prediction], seconds: float) -> dict[str, float]:
    n = len(predictions)
    stages = {name: sum(p.timings.get(name, 0.0) for p in predictions) / n for name in STAGES if name != "load"}
    return {**stages, "total": seconds / n}


def _same(one: Prediction, other: Prediction) -> bool:
    return (one.task, one.reply, one.answer) == (other.task, other.reply, other.answer) and [
        _without_score(instance) for instance in one.instances
    ] == [_without_score(instance) for instance in other.instances]


def _without_score(instance: Instance) -> Instance:
    return Instance(instance.box, instance.point, instance.mask)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.benchmark", __doc__)
    add = parser.add_argument
    add("--image_path", nargs="+", metavar="PATH", help="pictures; default: the README's examples")
    add("--query", help="what to ask about each of --image_path")
    add("--model_path", help="reasoner or bundle, folder or Hub id")
    add("--task_router_model_path", metavar="PATH", help="router")
    add("--segmentation_model_path", metavar="PATH", help="SAM2")
    add("--device", default="auto")
    add("--dtype", choices=DTYPES, default="auto")
    add("--attn_implementation", choices=ATTENTIONS, default="auto")
    add(
        "--compile",
        choices=COMPILES,
        default="auto",
        help="record decoding as CUDA graphs and compile the vision tower; default: auto",
    )
    add("--batch_size", type=int, default=8)
    add("--max_new_tokens", type=int, help="limit of a reply; default: 2048, with --engines or --shape 128")
    add("--requests", type=int, default=8, help="how many requests a round has, the pictures in turn (default: 8)")
    add("--rounds", type=int, default=3, help="how often each implementation is timed (default: 3)")
    add(
        "--engines",
        nargs="+",
        metavar="ENGINE",
        help="compare these: transformers, vllm, addresses of servers that run the checkpoint of --model_path",
    )
    add("--shape", choices=tuple(shapes.SHAPES), help="measure a reasoner of this shape with random weights")
    add("--save", type=Path, metavar="DIR", help="with --shape: write it as a checkpoint, and measure nothing")
    add("--at_once", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="of engines: pictures at once")
    add("--offline", action="store_true", help="make no network attempt at all")
    add("--json", action="store_true", help="print the figures as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    started = time.perf_counter()
    return run_command(build_parser(), partial(run, started=started), argv)


def run(arguments: argparse.Namespace, *, started: float) -> int:
    """Do what was asked.

    Args:
        arguments: see `build_parser`.
        started: when the command began, by time.perf_counter.
    """
    if min(arguments.requests, arguments.rounds, *arguments.at_once) < 1:
        raise UsageError("--requests, --rounds and --at_once must be at least 1")
    if (arguments.engines and arguments.shape) or (arguments.save and not arguments.shape):
        raise UsageError("--shape goes without --engines, and --save with --shape; see --help")
    if arguments.shape is not None or arguments.engines is not None:
        return _compare(arguments)
    model = VisionReasoner.from_pretrained(
        arguments.model_path,
        arguments.task_router_model_path,
        arguments.segmentation_model_path,
        device=arguments.device,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
        compile=arguments.compile,
        batch_size=arguments.batch_size,
        max_new_tokens=arguments.max_new_tokens or 2048,
        offline=arguments.offline,
    )
    requests = _requests(arguments.image_path, arguments.query, arguments.requests)
    report = measure(model, requests, rounds=arguments.rounds, started=started)
    print(json.dumps(asdict(report)) if arguments.json else report.table())
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    """The reasoner by several engines."""
    if arguments.shape is not None:
        model, processor = shapes.build_model(arguments.shape, arguments.device, arguments.dtype)
        if arguments.save is not None:
            shapes.save(model, processor, arguments.save)
            return 0
        ways, requests = timing.ways_of(model, processor), shapes.random_requests()
    else:
        folder = locate(choose(arguments.model_path).reasoner, "reasoner", offline=arguments.offline)
        ways = timing.ways_by_name(arguments.engines, folder, device=arguments.device, dtype=arguments.dtype)
        requests = timing.bundled_requests()
    rows = timing.measure(
        ways, requests, sizes=arguments.at_once, n_tokens=arguments.max_new_tokens or 128, rounds=arguments.rounds
    )
    print(json.dumps([asdict(row) for row in rows]) if arguments.json else timing.table(rows))
    return 0


def _requests(paths: Sequence[str] | None, query: str | None, n: int) -> list[Request]:
    if (paths is None) != (query is None):
        raise UsageError("--image_path and --query go together")
    examples = [(str(ASSETS / name), text) for name, text in EXAMPLES]
    if paths is not None and query is not None:
        examples = [(path, query) for path in paths]
    pictures = [(load_image(path), text) for path, text in examples]
    return [pictures[i % len(pictures)] for i in range(n)]


if __name__ == "__main__":
    sys.exit(main())
