"""The engine that runs a transformers model in this process: a reasoner's or a router's, in true batches."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

from PIL import Image

from vision_reasoner.errors import CheckpointError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.models import window_attention
from vision_reasoner.models.aligned_mlp import align_mlps
from vision_reasoner.models.checkpoints import check_files, load_errors, locate
from vision_reasoner.models.compiled_blocks import PAYS_AFTER, CompiledBlocks
from vision_reasoner.models.engine import FRAME_SIDE, Completion, Prompt, Watch, frames_in, opening_of
from vision_reasoner.models.generation import (
    decode_greedily,
    in_batches,
    load_model,
    static_decoder,
    without_cudnn_attention,
)
from vision_reasoner.models.templates import check_template


class LoadOptions(TypedDict, total=False):
    """The options of `TransformersEngine.from_pretrained`, for functions that pass them on."""

    device: str
    dtype: str
    attn_implementation: str
    compile: str
    quantize: str
    revision: str | None
    offline: bool


@cache
def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint without its weights.

    Raises:
        CheckpointError: it does not load.
    """
    from transformers import AutoTokenizer

    check_files(folder)
    with load_errors(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def find_control_token(text: str, tokenizer: Any) -> str | None:
    """The first of a tokenizer's control tokens that `text` contains, or None."""
    tokens = set(tokenizer(text, add_special_tokens=False)["input_ids"])
    added = tokenizer.added_tokens_decoder.items()
    special = {number: str(token.content) for number, token in added if token.special}
    found = special.keys() & tokens
    return special[min(found)] if found else None


class TransformersEngine:
    """A Qwen-VL with its processor, or a Qwen2 with its tokenizer; batches of several threads take turns.

    In float32 what is written does not depend on what else is in the batch; in half precision it may in the last digit.

    Attributes:
        frame_side, vqa_frame_side: see `Engine`; what the model's config says, otherwise 840 and None.
        logprobs: whether the log-probability of each token is wanted.
        patches_on_device: whether a CUDA device cuts the images into patches itself, rather than the CPU.
        cudnn_attention: whether transformers' own decoding loop may use cuDNN's attention.
    """

    patches_on_device = True
    cudnn_attention = False

    def __init__(self, model: Any, processor: Any, *, logprobs: bool = False, compile: str = "auto") -> None:
        """Wrap a loaded model; `from_pretrained` loads one.

        Args:
            model: a Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration,
                Qwen3VLForConditionalGeneration or Qwen2ForCausalLM.
            processor: the model's processor, or for a model of text alone its tokenizer.
            logprobs: see above.
            compile: how tokens are decoded, one of `devices.COMPILES`; see `generation.static_decoder`. On CUDA the
                blocks of a Qwen2.5-VL's vision tower are compiled, too: with "on" at once, with "auto" once so many
                images have been read that it pays.

        Raises:
            CheckpointError: the config's frame does not fit the model's grid of patches.
            UsageError: `compile` has no such value, or the model cannot be decoded so.
        """
        self.model = model
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.logprobs = logprobs
        # One generation at a time: between steps the model keeps its images' positions, the tokenizer its padding.
        self._lock = threading.Lock()
        self._decoder = static_decoder(model, compile)
        self._blocks = _compiled_blocks(model, compile)
        self._fits: dict[Size, int] = {}  # by frame, how many at once memory sufficed for when it once did not
        self.frame_side: int = FRAME_SIDE
        self.vqa_frame_side: int | None = None
        if processor is not self.tokenizer:
            grid = processor.image_processor.patch_size * processor.image_processor.merge_size
            self.frame_side, self.vqa_frame_side = frames_in(model.config, grid, model.name_or_path)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        part: Literal["reasoner", "router"],
        *,
        logprobs: bool = False,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        compile: str = "auto",
        quantize: str = "none",
        revision: str | None = None,
        offline: bool = False,
    ) -> Self:
        """Load a reasoner's or router's checkpoint from a folder or Hub id.

        Raises:
            CheckpointError: it is missing, incomplete or of another kind.
            UsageError: there is no such device, dtype, attention, compile or quantize, or its package is missing.
        """
        model, processor = cls.load(
            path,
            part,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantize=quantize,
            revision=revision,
            offline=offline,
        )
        speed_up(model)
        if quantize != "none" and compile == "auto":  # graphs are measured with weights as they are
            compile = "off"
        with load_errors(Path(model.name_or_path)):
            engine = cls(model, processor, logprobs=logprobs, compile=compile)
            engine._try_prompt()
        return engine

    @staticmethod
    def load(
        path: str | Path,
        part: Literal["reasoner", "router"],
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        quantize: str = "none",
        revision: str | None = None,
        offline: bool = False,
    ) -> tuple[Any, Any]:
        """The model as transformers has it, and its processor or tokenizer; see `from_pretrained`."""
        import transformers

        folder = locate(path, part, revision=revision, offline=offline)
        classes: dict[str, Any] = {"qwen2": transformers.Qwen2ForCausalLM}
        if part == "reasoner":
            classes = {
                "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
                "qwen2_vl": transformers.Qwen2VLForConditionalGeneration,
                "qwen3_vl": transformers.Qwen3VLForConditionalGeneration,
            }
        model = load_model(
            classes,
            folder,
            part,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantize=quantize,
        )
        loader = transformers.AutoProcessor if part == "reasoner" else transformers.AutoTokenizer
        with load_errors(folder):
            processor = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        check_template(processor.chat_template, folder)
        return model, processor

    def release(self) -> None:
        """Give back the memory that is held for the next batch."""
        with self._lock:
            if self._decoder is not None:
                self._decoder.release()

    def _try_prompt(self) -> None:
        """Make a prompt, so that what does not fit together is known now rather than with the first request.

        Raises:
            CheckpointError: the tokenizer has tokens that the model has not.
            Exception: whatever the processor, template or tokenizer raise.
        """
        tokens, known = max(self.tokenizer.get_vocab().values(), default=0), self.model.get_input_embeddings()
        if tokens >= known.num_embeddings:
            raise CheckpointError(
                f"{self.model.name_or_path}: its tokenizer has a token {tokens} and its model {known.num_embeddings} "
                "tokens; they do not belong together, download both again"
            )
        with self._lock:
            if self.processor is self.tokenizer:
                self.tokenizer([self._in_template(Prompt("a").messages())], return_tensors="pt")
                return
            side = 4 * self.processor.image_processor.patch_size * self.processor.image_processor.merge_size
            image = Image.new("RGB", (side, side))
            batch, _ = self._read_images([Prompt("a", image, image.size)], [image])
            cells = int(batch["image_grid_thw"].prod()) // self.processor.image_processor.merge_size**2
            if int((batch["input_ids"] == self.model.config.image_token_id).sum()) != cells:
                raise CheckpointError(
                    f"{self.model.name_or_path}: its config and its processor name other tokens for an image; "
                    "they do not belong together, download both again"
                )

    def control_token(self, text: str) -> str | None:
        """See `Engine`: by the model's own tokenizer."""
        with self._lock:
            return find_control_token(text, self.tokenizer)

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int, watch: Watch | None = None
    ) -> list[Completion]:
        """See `Engine`.

        Raises:
            QueryError: a prompt is longer than the model takes.
            VisionReasonerError: out of memory with a single prompt.
        """

        def run(chunk: Sequence[int]) -> list[Completion]:
            asked = [prompts[i] for i in chunk]
            images = _framed_images(asked)
            with self._lock:
                if watch is not None and watch.stopped:  # perhaps while others had their turn
                    return [Completion("", False, 0, image_size=prompt.frame) for prompt in asked]
                return self._write(asked, images, max_new_tokens, watch and watch.of(chunk))

        # Where all images have one size, what was too much once is not tried again; otherwise it may well do.
        frame = prompts[0].frame if len({prompt.frame for prompt in prompts}) == 1 else None
        fits = batch_size if frame is None else min(batch_size, self._fits.get(frame, batch_size))

        def remember(batch_size: int) -> None:
            if frame is not None:
                self._fits[frame] = batch_size

        return in_batches(range(len(prompts)), fits, run, halved=remember)

    def _write(
        self, prompts: Sequence[Prompt], images: Sequence[Image.Image], max_new_tokens: int, watch: Watch | None
    ) -> list[Completion]:
        """What the model writes to one batch; `images` are the prompts' in their frames, or none at all."""
        start = time.perf_counter()
        if images:
            batch, sizes = self._read_images(prompts, images)
        else:
            texts = [self._in_template(prompt.messages()) for prompt in prompts]
            batch = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
            sizes = [None] * len(prompts)
        opening = opening_of(self._in_template(prompts[0].messages({"type": "image"} if images else None)))
        prepare_seconds = (time.perf_counter() - start) / len(prompts)
        seeing = self._blocks.reading(len(images)) if self._blocks and images else nullcontext()
        with seeing, nullcontext() if self._decoder or self.cudnn_attention else without_cudnn_attention():
            written = decode_greedily(
                self.model,
                self.tokenizer,
                batch,
                max_new_tokens,
                logprobs=self.logprobs,
                decoder=self._decoder,
                watch=watch and watch.after(opening),
            )
        return [
            replace(row.after(opening), prefill_seconds=prepare_seconds + row.prefill_seconds, image_size=size)
            for row, size in zip(written, sizes, strict=True)
        ]

    def _read_images(
        self, prompts: Sequence[Prompt], images: Sequence[Image.Image]
    ) -> tuple[Mapping[str, Any], list[Size | None]]:
        """The processor's batch of prompts with images, and the size in which it has each image."""
        from qwen_vl_utils import process_vision_info

        image_processor = self.processor.image_processor
        limits = {
            "min_pixels": image_processor.size["shortest_edge"],
            "max_pixels": image_processor.size["longest_edge"],
        }
        conversations = []
        for prompt, image in zip(prompts, images, strict=True):
            framed = prompt.frame is not None  # then it must stay as it is
            size = {"resized_width": image.width, "resized_height": image.height} if framed else limits
            conversations.append(prompt.messages({"type": "image", "image": image, **size}))
        on_device = self.patches_on_device and self.model.device.type == "cuda"
        resized, _ = process_vision_info(conversations, image_patch_size=image_processor.patch_size)
        batch = self.processor(
            text=[self._in_template(conversation) for conversation in conversations],
            images=resized,
            do_resize=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **({"device": self.model.device} if on_device else {}),
        )
        return batch, [image.size for image in resized]

    def _in_template(self, messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template may do anything
            raise CheckpointError(
                f"{self.model.name_or_path}: its chat template cannot be used ({one_line(error)}); download it again"
            ) from error


def speed_up(model: Any) -> None:
    """Give the vision tower of a Qwen2.5-VL faster modules, which change no result."""
    if model.config.model_type == "qwen2_5_vl" and model.config._attn_implementation == "sdpa":
        window_attention.install(model.model.visual)
    if model.config.model_type == "qwen2_5_vl" and model.device.type == "cuda":
        align_mlps(model.model.visual)


def _compiled_blocks(model: Any, compile: str) -> CompiledBlocks | None:
    """The compiled blocks of a vision tower that `speed_up` has prepared, where they are wanted."""
    tower = getattr(model.model, "visual", None)
    prepared = tower is not None and tower.config._attn_implementation == window_attention.NAME
    if not prepared or compile == "off" or model.device.type != "cuda":
        return None
    return CompiledBlocks(tower, after=PAYS_AFTER if compile == "auto" else 0)


def _framed_images(prompts: Sequence[Prompt]) -> list[Image.Image]:
    """The images in their frames, several at a time: Pillow resizes without holding the interpreter's lock."""
    if len(prompts) == 1:
        images = [prompts[0].framed_image()]
    else:
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(Prompt.framed_image, prompts))
    return [image for image in images if image is not None]
