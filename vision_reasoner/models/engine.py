"""The seam between what is asked and who writes: prompts in, texts out.

`Reasoner` and `Router` decide what a prompt says, check it and read what comes back. An engine only writes: that of
`local` runs a transformers model here, that of `server` asks an OpenAI-compatible server.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from vision_reasoner.errors import CheckpointError, QueryError
from vision_reasoner.geometry import Size

GRID = 28  # of Qwen2-VL and Qwen2.5-VL: patches of 14 pixels, merged two by two
FRAME_SIDE = 840  # of the released checkpoints: 30 x 28, on Qwen's grid, so that its own resize leaves it alone


def frame_image(image: Image.Image, size: Size | None) -> Image.Image:
    """The image resized to the frame `size` (bilinear, aspect ratio ignored), or itself where that is None."""
    return image if size is None else image.resize(size, Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Prompt:
    """What a model is asked in one turn.

    Attributes:
        text: of the user's turn.
        image: an RGB image of any size that comes before the text, or None.
        frame: (width, height) that the image is resized to; None where it keeps its size, but for what the model's
            own processor does to it.
        system: the system turn; None leaves it to the model's chat template.
        grid: the side in pixels of the model's merged patch; an image that keeps its size is brought to a multiple.
    """

    text: str
    image: Image.Image | None = None
    frame: Size | None = None
    system: str | None = None
    grid: int = GRID

    def framed_image(self) -> Image.Image | None:
        """The image by `frame_image`; None where there is none."""
        return None if self.image is None else frame_image(self.image, self.frame)

    def sized_image(self, min_pixels: int, max_pixels: int) -> Image.Image | None:
        """The image in its frame, or else as Qwen's processor resizes it within these limits; None without one."""
        if self.image is None or self.frame is not None:
            return self.framed_image()
        from qwen_vl_utils import fetch_image

        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        sized: Image.Image = fetch_image({"image": self.image, **limits}, image_patch_size=self.grid // 2)
        return sized

    def messages(self, image: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The conversation, as chat templates and servers take it.

        Args:
            image: the content part that stands for the image, in the engine's own form.
        """
        content = self.text if image is None else [dict(image), {"type": "text", "text": self.text}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": content}]


@dataclass(frozen=True)
class Completion:
    """What a model wrote to one prompt.

    Attributes:
        text: without special tokens.
        finished: whether the model ended it itself; False where the token limit or a `Watch` cut it off.
        n_tokens: new tokens, the end token included.
        prefill_seconds: until the first token, this prompt's share of its batch; 0 where it is not known apart.
        decode_seconds: the rest, this prompt's share.
        logprobs: for each token of `text` where it ends there (characters) and its log-probability, if asked for.
        image_size: (width, height) of the image as the model saw it; None without an image.
    """

    text: str
    finished: bool
    n_tokens: int
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    logprobs: tuple[tuple[int, float], ...] = ()
    image_size: Size | None = None

    def after(self, opening: str) -> "Completion":
        """The same with `opening` before its text."""
        logprobs = tuple((end + len(opening), logprob) for end, logprob in self.logprobs)
        return replace(self, text=opening + self.text, logprobs=logprobs)


@dataclass(frozen=True)
class Watch:
    """Follows replies while they are written, and may stop them.

    Attributes:
        on_text: is told the number of a request, counted from 0, and its text so far, whenever there is more of it;
            one call at a time, perhaps from another thread. What it raises ends the request.
        stop: once it is set nothing more is written. Replies end where they are, and are not `finished`.
        deadline: the `time.monotonic()` at which it is as if `stop` were set.
    """

    on_text: Callable[[int, str], object] | None = None
    stop: threading.Event | None = None
    deadline: float | None = None

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to be written."""
        return (self.stop is not None and self.stop.is_set()) or self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """Until the deadline; infinite without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def of(self, numbers: Sequence[int]) -> "Watch":
        """The same for some of the requests, which are counted from 0 there and are `numbers` here."""
        on_text = self.on_text
        return replace(self, on_text=None if on_text is None else lambda i, text: on_text(numbers[i], text))

    def after(self, opening: str) -> "Watch":
        """The same, told texts with `opening` before them."""
        on_text = self.on_text
        return replace(self, on_text=None if on_text is None else lambda i, text: on_text(i, opening + text))


THINK = "<think>"


def opening_of(template: str) -> str:
    """What a prompt in its chat template has already written of the reply: of models that always think the first tag.

    Args:
        template: all that the model is given, as text.
    """
    return THINK if template.rstrip().endswith(THINK) else ""


class Engine(Protocol):
    """Writes greedily what a model says to prompts; may be used from several threads.

    Attributes:
        frame_side: the side of the square that images are resized to for the model.
        vqa_frame_side: the same for questions; None where the image keeps its own size for them.
    """

    frame_side: int
    vqa_frame_side: int | None

    def control_token(self, text: str) -> str | None:
        """The first of the model's control tokens that `text` contains, or None."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int, watch: Watch | None = None
    ) -> list[Completion]:
        """What the model writes to each prompt, in order.

        Args:
            prompts: all with an image or all without.
            max_new_tokens: the limit for each.
            batch_size: how many at once, where the engine makes batches.
            watch: follows and may stop it.

        Raises:
            QueryError: a prompt is longer than the model takes.
            VisionReasonerError: the engine does not work.
        """
        ...


def share_seconds(written: Sequence[Completion], seconds: float) -> list[Completion]:
    """The same with each one's share of the `seconds` that they took together, where their own times overlap."""
    spent = sum(row.prefill_seconds + row.decode_seconds for row in written)
    share = seconds / spent if spent else 0.0
    return [
        replace(row, prefill_seconds=share * row.prefill_seconds, decode_seconds=share * row.decode_seconds)
        for row in written
    ]


def check_text(text: str, control_token: Callable[[str], str | None]) -> None:
    """Reject a query, as it stands in the prompt, that is empty, not valid Unicode, or contains control tokens.

    Args:
        text: the query.
        control_token: finds one, see `Engine.control_token`.

    Raises:
        QueryError: it is one of these.
    """
    if not text.strip():
        raise QueryError("the query is empty; say what to find, count or answer")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError("the query is not valid Unicode text; check its encoding") from error
    if token := control_token(text):
        raise QueryError(f"the query contains the model's control token {token!r}; leave it out")


MAX_FRAME_SIDE = 10_080  # of which Qwen's vision tokens alone are as many as a model of these kinds has positions


def frames_in(config: Any, grid: int, where: object) -> tuple[int, int | None]:
    """`frame_side` and `vqa_frame_side` by a model's config, by default the largest up to 840 that fits, and None.

    Raises:
        CheckpointError: one is no multiple of the grid of merged patches.
    """
    side = getattr(config, "frame_side", FRAME_SIDE - FRAME_SIDE % grid)
    vqa_side = getattr(config, "vqa_frame_side", None)
    check_frame(side, grid, where)
    if vqa_side is not None:
        check_frame(vqa_side, grid, where)
    return side, vqa_side


def check_frame(side: object, grid: int, where: object) -> None:
    """Raise a CheckpointError unless a config's frame side is a multiple of the grid of merged patches."""
    if not isinstance(side, int) or not 0 < side <= MAX_FRAME_SIDE or side % grid:
        raise CheckpointError(
            f"{where}: its config says a frame side of {str(side)[:40]}, which is no multiple of {grid} up to "
            f"{MAX_FRAME_SIDE}"
        )
