"""Reasoners of a given shape with random weights, made on the spot, to measure speed with: nothing is downloaded.

No reply ends by itself, so that every one has as many tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.timing import Request
from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.models.checkpoints import BUNDLED, in_pretrained
from vision_reasoner.models.devices import choose_device, choose_dtype
from vision_reasoner.results import Task

QUERIES = ("the dog", "the red car that is farthest to the left", "everything on the table that one can drink from")


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
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
        },
        vision={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 1,
            "out_hidden_size": 128,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        frame_side=112,
    ),
}


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
    end = shape.text["vocab_size"] - 1
    model.get_output_embeddings().weight.data[end] = 0  # another token is always likelier
    model.generation_config = GenerationConfig(eos_token_id=[end], pad_token_id=processor.tokenizer.pad_token_id)
    return model.eval(), processor


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint that every engine loads.

    Raises:
        UsageError: the folder is there and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; give a new folder")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def random_requests() -> Iterator[Request]:
    """Pictures of random colors and size 640x480."""
    random = np.random.default_rng(0)
    for query in cycle(QUERIES):
        pixels = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        yield Image.fromarray(pixels).resize((640, 480)), query, Task.DETECTION
