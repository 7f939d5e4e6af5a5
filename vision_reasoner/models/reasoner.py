"""From pictures and queries to replies: the vision-language model, and a scripted stand-in for tests.

Owns how a picture is framed for the model. Knows nothing of what a reply means; `parsing` reads it, with the frame
that comes with it (`Reply.model_size`).
"""

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from PIL import Image

from vision_reasoner.errors import CheckpointError, ImageError, UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.models import window_attention
from vision_reasoner.models.aligned_mlp import align_mlps
from vision_reasoner.models.checkpoints import load_errors, locate
from vision_reasoner.models.generation import check_text, decode_greedily, in_batches, load_model, static_decoder
from vision_reasoner.prompts import VISION_REASONER, Compat, Dialect, normalize_query
from vision_reasoner.results import Task
from vision_reasoner.settings import MAX_NEW_TOKENS

FRAME_SIDE = 840  # of the released checkpoints: 30 x 28, on Qwen's grid, so that its own resize leaves it alone
MAX_ASPECT_RATIO = 200  # the smart resize of Qwen's processor takes no more
NORMALIZED_SIZE = (1000, 1000)  # the frame of Qwen2-VL's boxes, whatever the picture


@dataclass(frozen=True)
class Reply:
    """What the model wrote about one picture.

    Attributes:
        text: without special tokens.
        model_size: (width, height) of the frame that its coordinates are in.
        finished: whether the model ended it itself; False where the token limit cut it off.
        n_tokens: new tokens, the end token included.
        prefill_seconds: from the picture to the first token, this request's share of its batch.
        decode_seconds: all further tokens, this request's share.
        logprobs: for each token of `text` where it ends there (characters) and its log-probability, where the
            reasoner was made to say so.
    """

    text: str
    model_size: Size
    finished: bool = True
    n_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    logprobs: tuple[tuple[int, float], ...] = ()

    def likelihood(self, start: int, end: int) -> float | None:
        """The mean log-probability of the tokens that reach into `text[start:end]`; None without log-probabilities."""
        begins = (0, *(token_end for token_end, _ in self.logprobs))
        inside = [
            logprob
            for begin, (token_end, logprob) in zip(begins, self.logprobs, strict=False)
            if begin < end and token_end > start
        ]
        return sum(inside) / len(inside) if inside else None


class ReasonerLike(Protocol):
    """What answers about pictures: `Reasoner`, `ScriptedReasoner`, or something of your own."""

    dialect: Dialect

    def ask(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        *,
        tasks: Sequence[Task],
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 8,
    ) -> list[Reply]:
        """One reply for each picture with its query, in order."""
        ...


def query_for(query: str, task: Task, dialect: Dialect, compat: Compat = "none") -> str:
    """The query as it stands in the prompt."""
    if task is Task.VQA:
        return normalize_query(query) if compat == "upstream" else query
    return dialect.query_for(query)


def prompt_for(query: str, task: Task, dialect: Dialect, compat: Compat = "none") -> str:
    """The text that goes with the picture: the dialect's prompt, or for VQA the bare question."""
    return query_for(query, task, dialect, compat) if task is Task.VQA else dialect.text_for(query)


def frame_image(image: Image.Image, size: Size | None) -> Image.Image:
    """The image resized to `size` (bilinear, without keeping its aspect ratio), or itself where that is None."""
    return image if size is None else image.resize(size, Image.Resampling.BILINEAR)


def frame_images(images: Sequence[Image.Image], sizes: Sequence[Size | None]) -> list[Image.Image]:
    """Each picture by `frame_image`, several at a time: Pillow resizes without holding the interpreter's lock."""
    if len(images) == 1:
        return [frame_image(images[0], sizes[0])]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(frame_image, images, sizes))


class Reasoner:
    """A Qwen2.5-VL or Qwen2-VL model with its processor, asked greedily and in true batches.

    It may be used from several threads; their batches take turns.

    Attributes:
        frame_side: the side of the square that images are resized to, where the dialect says so.
        vqa_frame_side: the same for VQA; None where the question comes with the picture at its own size.
        patches_on_device: whether a CUDA device cuts the pictures into patches itself, rather than the CPU.
    """

    patches_on_device = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        dialect: Dialect = VISION_REASONER,
        compat: Compat = "none",
        logprobs: bool = False,
        compile: str = "auto",
    ) -> None:
        """Wrap a loaded model and its processor; `from_pretrained` loads both.

        Args:
            model: a Qwen2_5_VLForConditionalGeneration or Qwen2VLForConditionalGeneration. Its config may carry
                `frame_side` (840 otherwise) and `vqa_frame_side` (otherwise the picture keeps its own size for VQA).
            processor: the model's processor.
            dialect: how this model is asked and how it answers.
            compat: "upstream" prepares VQA as the original code did: question normalized, image resized to the square.
            logprobs: whether replies say how likely each of their tokens was.
            compile: how tokens are decoded, one of `devices.COMPILES`; see `generation.static_decoder`.

        Raises:
            CheckpointError: the config's frame does not fit the model's grid of patches.
            UsageError: `compile` has no such value, or the model cannot be decoded so.
        """
        self.model = model
        self.processor = processor
        self.dialect = dialect
        self.compat = compat
        self.logprobs = logprobs
        # One generation at a time: between steps the model keeps its images' positions, the tokenizer its padding.
        self._lock = threading.Lock()
        self._decoder = static_decoder(model, compile)
        self._fits: dict[Size | None, int] = {}  # by frame, how many at once memory sufficed for when it once did not
        grid = processor.image_processor.patch_size * processor.image_processor.merge_size
        self.frame_side: int = getattr(model.config, "frame_side", FRAME_SIDE)
        self.vqa_frame_side: int | None = getattr(model.config, "vqa_frame_side", None)
        for side in (self.frame_side, self.vqa_frame_side):
            if side is not None and (not isinstance(side, int) or side <= 0 or side % grid):
                raise CheckpointError(
                    f"{model.name_or_path}: its config says a frame side of {side!r}, which is no multiple of {grid}"
                )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dialect: Dialect = VISION_REASONER,
        compat: Compat = "none",
        logprobs: bool = False,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        compile: str = "auto",
        revision: str | None = None,
        offline: bool = False,
    ) -> Self:
        """Load a reasoner from a folder or Hub id.

        Raises:
            CheckpointError: it is missing, incomplete or of another kind.
            UsageError: there is no such device, dtype, attention or compile.
        """
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration

        folder = locate(path, "reasoner", revision=revision, offline=offline)
        model = load_model(
            {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen2_vl": Qwen2VLForConditionalGeneration},
            folder,
            "reasoner",
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )
        if model.config.model_type == "qwen2_5_vl" and model.config._attn_implementation == "sdpa":
            window_attention.install(model.model.visual)
        if model.config.model_type == "qwen2_5_vl" and model.device.type == "cuda":
            align_mlps(model.model.visual)
        with load_errors(folder):
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return cls(model, processor, dialect=dialect, compat=compat, logprobs=logprobs, compile=compile)

    def frame_for(self, task: Task) -> Size | None:
        """(width, height) that an image is resized to for `task`; None where it keeps its own size."""
        if task is Task.VQA:
            side = self.frame_side if self.compat == "upstream" else self.vqa_frame_side
        else:
            side = self.frame_side if self.dialect.frame == "square" else None
        return None if side is None else (side, side)

    def ask(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        *,
        tasks: Sequence[Task],
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 8,
    ) -> list[Reply]:
        """Ask about each picture; the order of the replies is the order of the requests.

        In float32 a reply does not depend on what else is in the batch; in half precision it may in the last digit.

        Args:
            images: RGB pictures of any size.
            queries: one for each picture, as the user gave it.
            tasks: one for each picture; decides prompt and frame.
            max_new_tokens: the limit for each reply.
            batch_size: how many go through the model at once; fewer where memory does not suffice.

        Raises:
            QueryError: a query is empty, too long or has special tokens.
            ImageError: an image that is asked about at its own size is too elongated.
            VisionReasonerError: out of memory with a single request.
        """
        for image, query, task in zip(images, queries, tasks, strict=True):
            with self._lock:
                check_text(query_for(query, task, self.dialect, self.compat), self.processor.tokenizer)
            keeps_its_size = self.frame_for(task) is None
            if keeps_its_size and max(image.size) > MAX_ASPECT_RATIO * min(image.size):
                raise ImageError(
                    f"the image is {image.size[0]}x{image.size[1]}, too elongated to be asked about; cut it into pieces"
                )
        # Rows of about the same length side by side need little padding.
        frames = [self.frame_for(task) for task in tasks]
        areas = [
            size[0] * size[1] for size in (frame or image.size for frame, image in zip(frames, images, strict=True))
        ]
        order = sorted(range(len(queries)), key=lambda i: (areas[i], len(queries[i])))

        def run(chunk: Sequence[int]) -> list[Reply]:
            framed = frame_images([images[i] for i in chunk], [frames[i] for i in chunk])
            texts = [prompt_for(queries[i], tasks[i], self.dialect, self.compat) for i in chunk]
            with self._lock:
                return self._reply(framed, texts, [tasks[i] for i in chunk], max_new_tokens)

        # Where all pictures have one size, what was too much once is not tried again; otherwise it may well do.
        frame = frames[0] if len(set(frames)) == 1 else None
        fits = min(batch_size, self._fits.get(frame, batch_size))

        def remember(batch_size: int) -> None:
            if frame is not None:
                self._fits[frame] = batch_size

        replies = dict(zip(order, in_batches(order, fits, run, halved=remember), strict=True))
        return [replies[i] for i in range(len(queries))]

    def _reply(
        self, images: Sequence[Image.Image], texts: Sequence[str], tasks: Sequence[Task], max_new_tokens: int
    ) -> list[Reply]:
        from qwen_vl_utils import process_vision_info

        start = time.perf_counter()
        image_processor = self.processor.image_processor
        limits = {
            "min_pixels": image_processor.size["shortest_edge"],
            "max_pixels": image_processor.size["longest_edge"],
        }
        conversations = []
        for image, text, task in zip(images, texts, tasks, strict=True):
            framed = self.frame_for(task) is not None  # then it must stay as it is
            size = {"resized_width": image.width, "resized_height": image.height} if framed else limits
            content = [{"type": "image", "image": image, **size}, {"type": "text", "text": text}]
            conversations.append([{"role": "user", "content": content}])
        on_device = self.patches_on_device and self.model.device.type == "cuda"
        resized, _ = process_vision_info(conversations, image_patch_size=image_processor.patch_size)
        batch = self.processor(
            text=[
                self.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
                for conversation in conversations
            ],
            images=resized,
            do_resize=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **({"device": self.model.device} if on_device else {}),
        )
        prepare_seconds = (time.perf_counter() - start) / len(images)
        decoded = decode_greedily(
            self.model,
            self.processor.tokenizer,
            batch,
            max_new_tokens,
            logprobs=self.logprobs,
            decoder=self._decoder,
        )
        normalized = self.dialect.frame == "normalized_1000"
        return [
            Reply(
                text=row.text,
                model_size=NORMALIZED_SIZE if normalized and task is not Task.VQA else image.size,
                finished=row.finished,
                n_tokens=row.n_tokens,
                prefill_seconds=prepare_seconds + row.prefill_seconds,
                decode_seconds=row.decode_seconds,
                logprobs=row.logprobs,
            )
            for row, image, task in zip(decoded, resized, tasks, strict=True)
        ]


class ScriptedReasoner:
    """Says what it was told to say, one reply after the other: for testing what is built on top, without weights.

    Example:
        >>> scripted = ScriptedReasoner(['<think>one dog</think><answer>[{"bbox_2d": [84, 84, 420, 420]}]</answer>'])
        >>> picture = Image.new("RGB", (100, 50))
        >>> scripted.ask([picture], ["find the dog"], tasks=[Task.DETECTION])[0].model_size
        (840, 840)
    """

    def __init__(
        self,
        replies: Iterable[str | Reply],
        *,
        model_size: Size = (FRAME_SIDE, FRAME_SIDE),
        dialect: Dialect = VISION_REASONER,
    ) -> None:
        """Prepare the script.

        Args:
            replies: given in this order, one for each request.
            model_size: (width, height) of the frame of those that are plain text.
            dialect: whose grammar they are in.
        """
        self._replies = [reply if isinstance(reply, Reply) else Reply(reply, model_size) for reply in replies]
        self.dialect = dialect
        self.asked: list[tuple[Size, str, Task]] = []
        """(picture's size, query, task) of every request so far."""

    def ask(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        *,
        tasks: Sequence[Task],
        max_new_tokens: int = MAX_NEW_TOKENS,  # noqa: ARG002
        batch_size: int = 8,  # noqa: ARG002
    ) -> list[Reply]:
        """The next replies of the script.

        Raises:
            UsageError: the script is at its end.
        """
        start = len(self.asked)
        self.asked += [(image.size, query, task) for image, query, task in zip(images, queries, tasks, strict=True)]
        if len(self.asked) > len(self._replies):
            raise UsageError(f"the script has {len(self._replies)} replies, and {len(self.asked)} were asked for")
        return self._replies[start : len(self.asked)]
