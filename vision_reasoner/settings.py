"""Which checkpoints are used and how they run: two values that are passed on whole.

The command line, the library, evaluation's manifest and its workers all hand on these two; nothing repacks them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from vision_reasoner.errors import UsageError
from vision_reasoner.images import MAX_PIXELS
from vision_reasoner.looks import Merge, check_looks, parse_tiles
from vision_reasoner.models.checkpoints import Part
from vision_reasoner.parsing import MAX_OBJECTS
from vision_reasoner.prompts import DIALECTS, Compat

MAX_NEW_TOKENS = 2048  # of the original; more than a reply of 100 objects
BATCH_SIZE = 8
CONCURRENCY = 8
LOCAL, VLLM = "transformers", "vllm"  # the engines of this process; every other one is a server's address


@dataclass(frozen=True)
class Checkpoints:
    """Where the parts come from, as the user names them.

    Attributes:
        reasoner: the reasoner, or a bundle of all three parts, as a folder or a Hub id. None is
            pretrained_models/VisionReasoner-7B if it is there, otherwise the bundled VisionReasoner-Tiny. Where a
            server runs it, what the server calls it, or a folder whose config says its frame; None is the server's
            first model.
        router: the router; None is the bundle's, or the released one. Where a server runs it, likewise.
        segmenter: the segmenter; None likewise.
        revision: branch, tag or commit of the reasoner on the Hub, and of the other parts of the same bundle.
    """

    reasoner: str | Path | None = None
    router: str | Path | None = None
    segmenter: str | Path | None = None
    revision: str | None = None


@dataclass(frozen=True)
class RunSettings:
    """How the parts run and what limits hold.

    Attributes:
        model: how the reasoner is asked and how it answers, a key of `prompts.DIALECTS`: "vision_reasoner", "visurf",
            one of the baselines "qwen" (Qwen2.5-VL) and "qwen2" (Qwen2-VL), or "qwen3" (Qwen3-VL).
        engine: who runs the reasoner: "transformers" or "vllm" in this process, or the address of an OpenAI-compatible
            server, such as http://localhost:8000/v1.
        router_engine: who runs the router: "transformers", or the address of a server.
        concurrency: how many requests a server is sent at a time.
        frame_side: the side of the square that images are resized to for a server's model, where no config tells it.
        device: a torch device; "auto" is CUDA, else MPS, else the CPU.
        dtype: of reasoner and router; "auto" suits the device, and is float16 for the baselines on a GPU, as in the
            paper. The segmenter is float32 always.
        attn_implementation: of reasoner and router; "auto" is flash-attn where it is installed, otherwise sdpa.
        compile: whether decoding steps are recorded as CUDA graphs and the vision tower is compiled; "auto" where that
            is possible and pays.
        quantize: weights of the language models of reasoner and router in fewer bits: "none", "8bit" or "4bit".
        offline: make no network attempt at all.
        compat: "upstream" prepares VQA requests as the original code did (question normalized, image resized to the
            square frame).
        logprobs: whether instances say how likely the reasoner found them (`Instance.likelihood`).
        max_new_tokens: the limit for each reply of the reasoner.
        max_objects: how many objects of a reply are kept at most.
        max_image_pixels: larger images are refused.
        batch_size: how many requests go through the reasoner at once in this process; fewer where memory does not
            suffice.
        looks: how many views of an image are asked about; see `looks.views`. More than one tell how sure a result is.
        tiles: further views of parts of an image: "none", "auto" for images several times the frame, or rows and
            columns such as "2x3".
        merge: which objects of several views are kept: "first", "union" or "vote"; see `looks.Merge`.
        verify: the reasoner is asked back whether there is such a thing at all; see `verify`.
        min_confidence: objects of a lower confidence are left out; None keeps all.

    Raises:
        UsageError: there is no such model, engine or compat, or a limit is below 1.
    """

    model: str = "vision_reasoner"
    engine: str = LOCAL
    router_engine: str = LOCAL
    concurrency: int = CONCURRENCY
    frame_side: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    attn_implementation: str = "auto"
    compile: str = "auto"
    quantize: str = "none"
    offline: bool = False
    compat: Compat = "none"
    logprobs: bool = False
    max_new_tokens: int = MAX_NEW_TOKENS
    max_objects: int = MAX_OBJECTS
    max_image_pixels: int = MAX_PIXELS
    batch_size: int = BATCH_SIZE
    looks: int = 1
    tiles: str = "none"
    merge: Merge = "union"
    min_confidence: float | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        if self.model not in DIALECTS:
            raise UsageError(f"no model {self.model!r}: give one of {', '.join(DIALECTS)}")
        if self.compat not in get_args(Compat):
            raise UsageError(f"no compat {self.compat!r}: give one of {', '.join(get_args(Compat))}")
        _check_engine(self.engine, (LOCAL, VLLM))
        _check_engine(self.router_engine, (LOCAL,))
        if self.frame_side is not None and "reasoner" not in self.served:
            raise UsageError("frame_side is for a server's model; a checkpoint's own config says its frame")
        for name in ("concurrency", "max_new_tokens", "max_objects", "max_image_pixels", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.frame_side is not None and self.frame_side < 1:
            raise UsageError(f"frame_side must be at least 1, got {self.frame_side}")
        check_looks(self.looks)
        if self.tiles not in ("none", "auto"):
            parse_tiles(self.tiles)
        if self.merge not in get_args(Merge):
            raise UsageError(f"no merge {self.merge!r}: give one of {', '.join(get_args(Merge))}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence must be from 0 to 1, got {self.min_confidence}")
        if self.min_confidence is not None and not self.asks_more:
            raise UsageError("min_confidence needs looks of 2 or more, tiles, or verify: one look does not tell it")

    @property
    def asks_more(self) -> bool:
        """Whether the reasoner may be asked more than once about an image."""
        return self.looks > 1 or self.tiles != "none" or self.verify

    @property
    def of_views(self) -> dict[str, int | float | str | None]:
        """What of these results depend on where the reasoner is asked more than once; nothing elsewhere."""
        names = ("looks", "tiles", "merge", "min_confidence", "verify")
        return {name: getattr(self, name) for name in names} if self.asks_more else {}

    @property
    def served(self) -> tuple[Part, ...]:
        """The parts that servers run."""
        engines: dict[Part, str] = {"reasoner": self.engine, "router": self.router_engine}
        return tuple(part for part, engine in engines.items() if engine not in (LOCAL, VLLM))

    @property
    def portion(self) -> int:
        """How many requests are best handed over together: an engine that makes no batches takes one at a time."""
        return self.batch_size if self.engine == LOCAL else 1

    @property
    def portions_at_once(self) -> int:
        """How many portions are best under way together: twice what a server is sent, for masks take time as well."""
        at_once = {LOCAL: 1, VLLM: self.batch_size}
        return at_once.get(self.engine, 2 * self.concurrency)


def _check_engine(engine: str, here: tuple[str, ...]) -> None:
    """Raise a UsageError unless it is one `here`, or the address of a server without a key in it."""
    if engine in here:
        return
    try:
        address = urlsplit(engine)
        address.port  # noqa: B018 - raises where it is no number
    except ValueError:
        address = urlsplit("")
    if "@" in address.netloc or address.query or address.fragment:
        raise UsageError("the address of a server holds no key, user or query; set OPENAI_API_KEY for its key")
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError(
            f"no engine {engine!r}: give {', '.join(here)}, or a server's address such as http://localhost:8000/v1"
        )
