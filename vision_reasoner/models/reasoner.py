"""From pictures and queries to replies: the vision-language model, and a scripted stand-in for tests.

Owns how a picture is framed for the model. Knows nothing of what a reply means; `parsing` reads it, with the frame
that comes with it (`Reply.model_size`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, Unpack

from PIL import Image

from vision_reasoner.errors import ImageError, UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.models.checkpoints import check_transformers_folder, locate
from vision_reasoner.models.devices import choose_device, named_dtype
from vision_reasoner.models.engine import FRAME_SIDE, Completion, Engine, Prompt, Watch, check_text
from vision_reasoner.models.local import LoadOptions, TransformersEngine
from vision_reasoner.models.vllm import VLLMEngine
from vision_reasoner.prompts import DIALECTS, VISION_REASONER, Compat, Dialect
from vision_reasoner.results import Task
from vision_reasoner.settings import LOCAL, MAX_NEW_TOKENS, VLLM

MAX_ASPECT_RATIO = 200  # the smart resize of Qwen's processor takes no more
NORMALIZED_SIZE = (1000, 1000)  # the frame of Qwen2-VL's and Qwen3-VL's boxes, whatever the picture


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
        watch: Watch | None = None,
    ) -> list[Reply]:
        """One reply for each picture with its query, in order."""
        ...


def query_for(query: str, task: Task, dialect: Dialect, compat: Compat = "none") -> str:
    """The query as it stands in the prompt."""
    if task is Task.VQA:
        return dialect.query_for(query) if compat == "upstream" and dialect.frame == "square" else query
    return dialect.query_for(query)


def prompt_for(query: str, task: Task, dialect: Dialect, compat: Compat = "none") -> str:
    """The text that goes with the picture: the dialect's prompt, or for VQA the bare question."""
    if task is Task.VQA:
        return query_for(query, task, dialect, compat)
    return dialect.text_for(query, counting=task is Task.COUNTING)


class Reasoner:
    """A model that answers about pictures: what it is asked, in which frame, and what comes back.

    It may be used from several threads.

    Attributes:
        engine: who writes.
        dialect: how this model is asked and how it answers.
        compat: "upstream" prepares VQA as the original code did: question normalized, image resized to the square.
    """

    def __init__(self, engine: Engine, *, dialect: Dialect = VISION_REASONER, compat: Compat = "none") -> None:
        """Ask `engine`; `from_pretrained` makes one of a checkpoint, `server.ServerEngine` is another."""
        self.engine = engine
        self.dialect = dialect
        self.compat = compat

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dialect: Dialect = VISION_REASONER,
        compat: Compat = "none",
        logprobs: bool = False,
        engine: str = LOCAL,
        **loading: Unpack[LoadOptions],
    ) -> Self:
        """Load a reasoner from a folder or Hub id, to be run by transformers or vLLM in this process.

        Arguments not listed here are those of the engine's `from_pretrained`; the dtype "auto" is on a GPU the
        dialect's `gpu_dtype`, if it has one.

        Raises:
            CheckpointError: it is missing, incomplete or of another kind.
            UsageError: it answers in another frame than the dialect says, or there is no such device, dtype, attention
                or compile.
        """
        folder = locate(path, "reasoner", revision=loading.get("revision"), offline=loading.get("offline", False))
        _check_dialect(folder, dialect)
        device = choose_device(loading.get("device", "auto"))
        loading["dtype"] = named_dtype(loading.get("dtype", "auto"), device, dialect.gpu_dtype)
        if engine == VLLM:
            return cls(VLLMEngine.from_pretrained(path, logprobs=logprobs, **loading), dialect=dialect, compat=compat)
        loaded = TransformersEngine.from_pretrained(path, "reasoner", logprobs=logprobs, **loading)
        return cls(loaded, dialect=dialect, compat=compat)

    def frame_for(self, task: Task) -> Size | None:
        """(width, height) that an image is resized to for `task`; None where it keeps its own size."""
        if task is Task.VQA:
            upstream = self.compat == "upstream" and self.dialect.frame == "square"
            side = self.engine.frame_side if upstream else self.engine.vqa_frame_side
        else:
            side = self.engine.frame_side if self.dialect.frame == "square" else None
        return None if side is None else (side, side)

    def ask(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        *,
        tasks: Sequence[Task],
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 8,
        watch: Watch | None = None,
    ) -> list[Reply]:
        """Ask about each picture; the order of the replies is the order of the requests.

        Args:
            images: RGB pictures of any size.
            queries: one for each picture, as the user gave it.
            tasks: one for each picture; decides prompt and frame.
            max_new_tokens: the limit for each reply.
            batch_size: how many go through the model at once where the engine makes batches; fewer where memory does
                not suffice.
            watch: follows the replies while they are written, and may stop them.

        Raises:
            QueryError: a query is empty, too long or has special tokens.
            ImageError: an image that is asked about at its own size is too elongated.
            VisionReasonerError: out of memory with a single request, or the engine does not work.
        """
        prompts = []
        for image, query, task in zip(images, queries, tasks, strict=True):
            check_text(query_for(query, task, self.dialect, self.compat), self.engine.control_token)
            frame = self.frame_for(task)
            if frame is None and max(image.size) > MAX_ASPECT_RATIO * min(image.size):
                raise ImageError(
                    f"the image is {image.size[0]}x{image.size[1]}, too elongated to be asked about; cut it into pieces"
                )
            text = prompt_for(query, task, self.dialect, self.compat)
            prompts.append(Prompt(text, image, frame, system=self.dialect.system, grid=self.dialect.grid))

        def length(i: int) -> tuple[int, int]:
            width, height = prompts[i].frame or images[i].size
            return width * height, len(queries[i])

        order = sorted(range(len(prompts)), key=length)  # side by side, rows of about one length need little padding
        written = self.engine.generate(
            [prompts[i] for i in order],
            max_new_tokens=min(max_new_tokens, self.dialect.max_new_tokens or max_new_tokens),
            batch_size=batch_size,
            watch=None if watch is None else watch.of(order),
        )
        replies = {i: self._reply(row, images[i], tasks[i]) for i, row in zip(order, written, strict=True)}
        return [replies[i] for i in range(len(queries))]

    def _reply(self, written: Completion, image: Image.Image, task: Task) -> Reply:
        normalized = self.dialect.frame == "normalized_1000" and task is not Task.VQA
        return Reply(
            text=written.text,
            model_size=NORMALIZED_SIZE if normalized else written.image_size or image.size,
            finished=written.finished,
            n_tokens=written.n_tokens,
            prefill_seconds=written.prefill_seconds,
            decode_seconds=written.decode_seconds,
            logprobs=written.logprobs,
        )


def _check_dialect(folder: Path, dialect: Dialect) -> None:
    """Raise a UsageError where a checkpoint's boxes would be in another frame than `dialect` reads them in.

    One whose config says a frame was trained to answer in that square, whatever its architecture.
    """
    config = check_transformers_folder(folder, "reasoner")
    model_type = config["model_type"]
    if model_type in dialect.model_types or (dialect.frame == "square" and "frame_side" in config):
        return
    fitting = [other.name for other in DIALECTS.values() if model_type in other.model_types and other.checkpoints]
    raise UsageError(
        f"{folder}: is a {model_type!r} checkpoint, whose boxes --model {dialect.name} would put in the wrong place; "
        f"give --model {' or '.join(fitting)}"
    )


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
        watch: Watch | None = None,
    ) -> list[Reply]:
        """The next replies of the script.

        Raises:
            UsageError: the script is at its end.
        """
        start = len(self.asked)
        self.asked += [(image.size, query, task) for image, query, task in zip(images, queries, tasks, strict=True)]
        if len(self.asked) > len(self._replies):
            raise UsageError(f"the script has {len(self._replies)} replies, and {len(self.asked)} were asked for")
        replies = self._replies[start : len(self.asked)]
        if watch is not None and watch.on_text is not None:
            for i, reply in enumerate(replies):
                watch.on_text(i, reply.text)
        return replies
