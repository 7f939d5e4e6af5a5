"""How fast engines answer, side by side: the same requests in turn in every round, so many of them at once.

`reference` is the original's way on the same weights: one batch after another through transformers' own loop, over a
cache that grows, with transformers' own vision tower. `plain` is the library with `compile="off"`, `compiled` the
library with `compile="on"`; vLLM and servers have rows of their own. No two passes ask about the same picture, so that
no cache of an earlier one helps.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from vision_reasoner.data.sources import open_source
from vision_reasoner.images import load_image
from vision_reasoner.models.decoding import is_supported
from vision_reasoner.models.engine import Completion, Engine, Prompt, Watch
from vision_reasoner.models.local import TransformersEngine, speed_up
from vision_reasoner.models.reasoner import Reasoner, Reply
from vision_reasoner.models.server import ServerEngine
from vision_reasoner.models.vllm import VLLMEngine
from vision_reasoner.results import Task
from vision_reasoner.settings import LOCAL, VLLM

LEAST = 4  # requests in a pass
STATUS = Path("/proc/self/status")  # Linux says there how much memory a process has had at most

Request = tuple[Image.Image, str, Task]
Way = Callable[[int], Engine]
"""Gives the engine for so many requests at once."""


@dataclass
class Row:
    """What was measured of one way of asking, so many requests at once.

    Attributes:
        tokens_per_second: of decoding, all rows together, after the first token.
        first_token_seconds: of a batch, from its pictures to its first tokens.
        images_per_second: each round's.
        first_images_per_second: of the pass that warms up, when nothing has met these shapes before.
        ratios: by the reference's pictures a second in the same round.
        memory_gb: the most of that pass, 10^9 bytes: allocated on the CUDA device, elsewhere of the process, with the
            weights of all engines in this process; None where that cannot be told.
        same: the share of the rounds' replies that are the reference's, letter for letter.
    """

    name: str
    at_once: int
    first_images_per_second: float
    memory_gb: float | None
    tokens_per_second: list[float] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)
    images_per_second: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    same: float = 1.0


class Reference(TransformersEngine):
    """The model as the original runs it; `own_mlps` of it are those that `speed_up` replaced."""

    patches_on_device = False
    cudnn_attention = True

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int, watch: Watch | None = None
    ) -> list[Completion]:
        """What the model writes to each prompt, in order."""
        with _own_vision_tower(self.model):
            return super().generate(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, watch=watch)


@contextmanager
def _own_vision_tower(model: Any) -> Iterator[None]:
    """transformers' own attention and MLPs."""
    tower = model.model.visual
    before, tower.config._attn_implementation = tower.config._attn_implementation, "sdpa"
    fast = [block.mlp for block in tower.blocks]
    for block, mlp in zip(tower.blocks, model.own_mlps, strict=True):
        block.mlp = mlp
    try:
        yield
    finally:
        tower.config._attn_implementation = before
        for block, mlp in zip(tower.blocks, fast, strict=True):
            block.mlp = mlp


def ways_of(model: Any, processor: Any) -> dict[str, Way]:
    """The ways by transformers; `compiled` for the models that it is for.

    Args:
        model: a loaded reasoner, as transformers has it.
        processor: its processor.
    """
    object.__setattr__(model, "own_mlps", [block.mlp for block in model.model.visual.blocks])  # modules of no module
    speed_up(model)
    engines = {
        "reference": Reference(model, processor, compile="off"),
        "plain": TransformersEngine(model, processor, compile="off"),
    }
    if is_supported(model):
        engines["compiled"] = TransformersEngine(model, processor, compile="on")
    return {name: _always(engine) for name, engine in engines.items()}


def _always(engine: Engine) -> Way:
    return lambda _: engine


def ways_by_name(names: Sequence[str], folder: Path, *, device: str, dtype: str) -> dict[str, Way]:
    """The ways of engines that run the checkpoint in `folder`; the reference is always there.

    Args:
        names: "transformers", "vllm", or addresses of servers; the frame is the folder's.
        folder: a reasoner's.
        device, dtype: of the engines in this process.

    Raises:
        VisionReasonerError: an engine does not work.
    """
    ways = ways_of(*TransformersEngine.load(folder, "reasoner", device=device, dtype=dtype))
    if LOCAL not in names:
        ways = {"reference": ways["reference"]}
    if VLLM in names:
        ways[VLLM] = _always(VLLMEngine.from_pretrained(folder, device=device, dtype=dtype, caching=False))
    for url in (name for name in names if name not in (LOCAL, VLLM)):
        ways[url] = _server(url, folder)
    return ways


def _server(url: str, folder: Path) -> Way:
    return lambda at_once: ServerEngine.connect(url, folder, concurrency=at_once)


def bundled_requests() -> Iterator[Request]:
    """The samples of the bundled sets in a random order that is always the same, over and over."""
    samples: list[tuple[Samples, int, Task]] = []
    for name in ("segmentation", "detection", "counting", "vqa"):
        suite = SUITES[name]
        assert suite.data is not None
        found = Samples(suite, open_source(suite.data))
        samples += [(found, i, suite.task) for i in range(found.source.n)]
    random.Random(0).shuffle(samples)
    for found, i, task in cycle(samples):
        sample = found[i]
        yield load_image(sample.image), sample.query, task


def measure(
    ways: Mapping[str, Way],
    requests: Iterator[Request],
    *,
    sizes: Sequence[int] = (1, 8, 32),
    n_tokens: int = 128,
    rounds: int = 3,
) -> list[Row]:
    """Time the ways.

    Args:
        ways: by name; the first one is what the others are compared with.
        requests: as many as are wanted.
        sizes: how many requests at once.
        n_tokens: new tokens of each reply at most.
        rounds: how often each way is timed, after a pass to warm up.
    """
    rows: list[Row] = []
    for at_once in sizes:
        engines = {name: way(at_once) for name, way in ways.items()}
        n = max(2 * at_once, LEAST)
        warm_up, measured = list(islice(requests, n)), []
        for name, engine in engines.items():
            _reset_memory()
            seconds, _ = _ask(engine, warm_up, at_once, n_tokens)
            measured.append(Row(name, at_once, n / seconds, _peak_memory()))
        same = [0] * len(measured)
        for _ in range(rounds):
            asked, texts = list(islice(requests, n)), []
            for row, engine in zip(measured, engines.values(), strict=True):
                seconds, replies = _ask(engine, asked, at_once, n_tokens)
                _note(row, measured[0], replies, seconds)
                texts.append([reply.text for reply in replies])
            same = [known + sum(map(str.__eq__, told, texts[0])) for known, told in zip(same, texts, strict=True)]
        for row, found in zip(measured, same, strict=True):
            row.same = found / (n * rounds)
        rows += measured
        for engine in engines.values():
            if isinstance(engine, TransformersEngine):
                engine.release()
    return rows


def _note(row: Row, reference: Row, replies: Sequence[Reply], seconds: float) -> None:
    """Add a round to a row."""
    n = len(replies)
    row.images_per_second.append(n / seconds)
    row.ratios.append(row.images_per_second[-1] / reference.images_per_second[-1])
    row.first_token_seconds.append(sum(r.prefill_seconds for r in replies) * row.at_once / n)
    thought = sum(r.decode_seconds for r in replies)
    row.tokens_per_second.append(sum(r.n_tokens - 1 for r in replies) / thought if thought else 0.0)


def table(rows: Sequence[Row]) -> str:
    """The rows for people: medians of the rounds, and how far the ratios spread."""
    width = max(len(row.name) for row in rows) + 2
    lines = [
        f"{'at once':>7} {'':<{width}}{'tokens/s':>9}{'first token':>13}{'images/s':>10}{'first pass':>12}{'GB':>7}"
        f"{'same':>7}   images/s by {rows[0].name}"
    ]
    for row in rows:
        memory = "-" if row.memory_gb is None else f"{row.memory_gb:.1f}"
        low, middle, high = min(row.ratios), statistics.median(row.ratios), max(row.ratios)
        lines.append(
            f"{row.at_once:>7} {row.name:<{width}}{statistics.median(row.tokens_per_second):>9.0f}"
            f"{statistics.median(row.first_token_seconds):>11.3f} s{statistics.median(row.images_per_second):>10.2f}"
            f"{row.first_images_per_second:>12.2f}{memory:>7}{100 * row.same:>5.0f} %"
            f"   {middle:.2f} ({low:.2f} to {high:.2f})"
        )
    return "\n".join(lines)


def _ask(engine: Engine, requests: Sequence[Request], at_once: int, n_tokens: int) -> tuple[float, list[Reply]]:
    start = time.perf_counter()
    replies = Reasoner(engine).ask(
        [image for image, _, _ in requests],
        [query for _, query, _ in requests],
        tasks=[task for _, _, task in requests],
        max_new_tokens=n_tokens,
        batch_size=at_once,
        watch=Watch(),  # a server then tells when the first token was there
    )
    return time.perf_counter() - start, replies


def _reset_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> float | None:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    if not STATUS.is_file():
        return None
    kilobytes = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")).split()[1]
    return 1024 * int(kilobytes) / 1e9
