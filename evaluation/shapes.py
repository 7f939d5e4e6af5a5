"""How fast a reasoner of a given shape is, with random weights made on the spot: nothing is downloaded or written.

Three ways of asking are timed on the same weights and pictures, in turn in every round. `reference` is the original's:
one batch after another through transformers' own loop, over a cache that grows, with transformers' own vision tower.
`plain` is the library with `compile="off"`, `compiled` the library with `compile="on"` for the models that it is for.
No reply can end by itself, so every one has as many tokens.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from vision_reasoner.errors import CheckpointError
from vision_reasoner.models import window_attention
from vision_reasoner.models.aligned_mlp import align_mlps
from vision_reasoner.models.checkpoints import BUNDLED, in_pretrained
from vision_reasoner.models.decoding import is_supported
from vision_reasoner.models.devices import choose_device, choose_dtype
from vision_reasoner.models.engine import Completion, Prompt, Watch
from vision_reasoner.models.local import TransformersEngine
from vision_reasoner.models.reasoner import Reasoner, Reply
from vision_reasoner.results import Task

QUERIES = ("the dog", "the red car that is farthest to the left", "everything on the table that one can drink from")
LEAST = 4  # pictures in a round


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2.5-VL or Qwen3-VL, in its config's words, and the frame of its pictures."""

    text: dict[str, Any]
    vision: dict[str, Any]
    frame_side: int
    model_type: str = "qwen2_5_vl"
    tied: bool = False

    @property
    def model_class(self) -> Any:
        """The transformers class."""
        import transformers

        names = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
        return getattr(transformers, f"{names[self.model_type]}ForConditionalGeneration")

    def config(self, **more: Any) -> Any:
        """The class's config of these sizes."""
        text = {**self.text, "bos_token_id": None, "eos_token_id": None}
        return self.model_class.config_class(text_config=text, vision_config=self.vision, **more)


SHAPES = {
    "7b": Shape(  # Qwen2.5-VL-7B's config, which VisionReasoner-7B has; 8.29 B parameters
        text={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        frame_side=840,
    ),
    "qwen3-2b": Shape(  # Qwen3-VL-2B-Instruct's config; 2.13 B parameters
        text={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        vision={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "patch_size": 16,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        frame_side=544,  # about as many tokens as an image of 640 x 480 in its own size
        model_type="qwen3_vl",
        tied=True,
    ),
    "tiny": Shape(  # for trying the benchmark out
        text={
            "vocab_size": 4096,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        frame_side=112,
    ),
}


@dataclass
class Row:
    """What was measured of one way of asking, so many pictures at once.

    Attributes:
        tokens_per_second: of decoding, all rows together, after the first token.
        first_token_seconds: of a batch, from its pictures to its first tokens.
        images_per_second: each round's.
        first_images_per_second: of the pass that warms up, when nothing has met these shapes before.
        ratios: by the reference's pictures a second in the same round.
        memory_gb: the most that was allocated on the CUDA device in that pass, 10^9 bytes; None elsewhere.
    """

    name: str
    at_once: int
    first_images_per_second: float
    memory_gb: float | None
    tokens_per_second: list[float] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)
    images_per_second: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


class Reference(TransformersEngine):
    """The model as the original runs it."""

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
    """transformers' own attention and MLPs, which `build_model` has replaced."""
    tower = model.model.visual
    before, tower.config._attn_implementation = tower.config._attn_implementation, "sdpa"
    aligned = [block.mlp for block in tower.blocks]
    for block, mlp in zip(tower.blocks, model.own_mlps, strict=True):
        block.mlp = mlp
    try:
        yield
    finally:
        tower.config._attn_implementation = before
        for block, mlp in zip(tower.blocks, aligned, strict=True):
            block.mlp = mlp


def build_model(name: str, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """A model of a shape with random weights, made on the device, and the bundled checkpoint's processor.

    Args:
        name: a key of `SHAPES`.
        device: as for `TransformersEngine.from_pretrained`.
        dtype: likewise; "auto" is bfloat16 on CUDA, float32 on a CPU.

    Raises:
        CheckpointError: the bundled checkpoint is not there.
        UsageError: there is no such device or dtype.
    """
    import torch
    from transformers import AutoProcessor, GenerationConfig

    shape, where = SHAPES[name], choose_device(device)
    bundled = in_pretrained(BUNDLED)
    if bundled is None:
        raise CheckpointError(f"{BUNDLED}: not there, and its processor is needed; run this from the repository")
    processor = AutoProcessor.from_pretrained(bundled / "reasoner", local_files_only=True, trust_remote_code=False)
    ids = {
        f"{token}_token_id": processor.tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for token in ("vision_start", "vision_end")
    }
    processor.image_processor.patch_size = shape.vision.get("patch_size", processor.image_processor.patch_size)
    config = shape.config(
        image_token_id=processor.tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=processor.tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        tie_word_embeddings=shape.tied,
        frame_side=shape.frame_side,
        **ids,
    )
    torch.manual_seed(0)
    with torch.device(where):
        model = shape.model_class._from_config(config, dtype=choose_dtype(dtype, where, 0), attn_implementation="sdpa")
    model.generation_config = GenerationConfig(
        eos_token_id=[shape.text["vocab_size"]],  # one that no row can write
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    object.__setattr__(model, "own_mlps", [block.mlp for block in model.model.visual.blocks])  # of no module
    if shape.model_type == "qwen2_5_vl":
        window_attention.install(model.model.visual)
        align_mlps(model.model.visual)
    return model.eval(), processor


def measure_shape(
    model: Any, processor: Any, *, sizes: Sequence[int] = (1, 8, 32), n_tokens: int = 128, rounds: int = 3
) -> list[Row]:
    """Time the three ways.

    Args:
        model, processor: see `build_model`.
        sizes: how many pictures at once.
        n_tokens: new tokens of each reply.
        rounds: how often each way is timed, after a pass to warm up.
    """
    ways: dict[str, TransformersEngine] = {
        "reference": Reference(model, processor, compile="off"),
        "plain": TransformersEngine(model, processor, compile="off"),
    }
    if is_supported(model):
        ways["compiled"] = TransformersEngine(model, processor, compile="on")
    rows: list[Row] = []
    for at_once in sizes:
        requests = _requests(max(2 * at_once, LEAST))
        measured = []
        for name, way in ways.items():
            _reset_memory(model)
            seconds, _ = _ask(way, requests, at_once, n_tokens)
            measured.append(Row(name, at_once, len(requests) / seconds, _peak_memory(model)))
        for _ in range(rounds):
            for row, way in zip(measured, ways.values(), strict=True):
                seconds, replies = _ask(way, requests, at_once, n_tokens)
                row.images_per_second.append(len(requests) / seconds)
                row.ratios.append(row.images_per_second[-1] / measured[0].images_per_second[-1])
                row.first_token_seconds.append(sum(r.prefill_seconds for r in replies) * at_once / len(requests))
                thought = sum(r.decode_seconds for r in replies)
                row.tokens_per_second.append(sum(r.n_tokens - 1 for r in replies) / thought)
        rows += measured
        decoder = next(reversed(ways.values()))._decoder
        if decoder is not None:
            decoder.release()
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows for people: medians of the rounds, and how far the ratios spread."""
    lines = [
        f"{'at once':>7} {'':<10}{'tokens/s':>10}{'first token':>13}{'images/s':>12}{'first pass':>12}{'GB':>7}"
        "   images/s by reference"
    ]
    for row in rows:
        memory = "-" if row.memory_gb is None else f"{row.memory_gb:.1f}"
        low, middle, high = min(row.ratios), statistics.median(row.ratios), max(row.ratios)
        lines.append(
            f"{row.at_once:>7} {row.name:<10}{statistics.median(row.tokens_per_second):>10.0f}"
            f"{statistics.median(row.first_token_seconds):>11.3f} s{statistics.median(row.images_per_second):>12.2f}"
            f"{row.first_images_per_second:>12.2f}{memory:>7}   {middle:.2f} ({low:.2f} to {high:.2f})"
        )
    return "\n".join(lines)


def _requests(n: int) -> list[tuple[Image.Image, str]]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (n, 48, 64, 3), dtype=np.uint8)
    return [(Image.fromarray(pixels[i]).resize((640, 480)), QUERIES[i % len(QUERIES)]) for i in range(n)]


def _ask(
    way: TransformersEngine, requests: Sequence[tuple[Image.Image, str]], at_once: int, n_tokens: int
) -> tuple[float, list[Reply]]:
    start = time.perf_counter()
    replies = Reasoner(way).ask(
        [picture for picture, _ in requests],
        [query for _, query in requests],
        tasks=[Task.DETECTION] * len(requests),
        max_new_tokens=n_tokens,
        batch_size=at_once,
    )
    return time.perf_counter() - start, replies


def _reset_memory(model: Any) -> None:
    import torch

    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(model.device)


def _peak_memory(model: Any) -> float | None:
    import torch

    return torch.cuda.max_memory_allocated(model.device) / 1e9 if model.device.type == "cuda" else None
