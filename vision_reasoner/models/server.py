"""The engine that asks an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, transformers serve, hosted ones.

Images are resized here and sent as PNG: what a server is not given in the model's frame it may resize to another one,
and then boxes are in the wrong place. The key is the environment's OPENAI_API_KEY, and is written nowhere.
"""

import base64
import io
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from PIL import Image

from vision_reasoner.errors import CheckpointError, EngineError, QueryError, UsageError
from vision_reasoner.models.checkpoints import path_of
from vision_reasoner.models.engine import FRAME_SIDE, GRID, Completion, Prompt, Watch, frames_in, share_seconds
from vision_reasoner.settings import CONCURRENCY, Checkpoints, RunSettings

logger = logging.getLogger(__name__)

TIMEOUT = 600.0  # seconds for a reply, or for the next piece of one
CONNECT_TIMEOUT = 10.0
MAX_RETRIES = 4  # of the client, after 0.5, 1, 2 and 4 seconds: not reached, 408, 409, 429, 5xx
MIN_PATCHES, MAX_PATCHES = 4, 16384  # merged ones, of Qwen2.5-VL's processor, for an image that keeps its own size
_CONTROL_TOKEN = re.compile(r"<\|[a-z0-9_]+\|>")  # all of Qwen's look so
_NO_IMAGES = re.compile(
    r"(?=.*(?:image|multi-?modal|vision|mmproj))(?=.*(?:\bnot?\b|n't|without|missing|at most 0|unsupported))", re.I
)
_TOO_LONG = re.compile(r"context|too (?:long|large)|maximum.{0,40}(?:length|tokens)|max_model_len|exceed", re.I)


def find_control_token(text: str) -> str | None:
    """The first part of `text` that looks like one of Qwen's control tokens, or None."""
    found = _CONTROL_TOKEN.search(text)
    return found[0] if found else None


class ServerEngine:
    """A model on a server, asked for several replies at a time.

    Attributes:
        url: the server's address, which ends in /v1 as a rule.
        model: what the model is called there.
        frame_side, vqa_frame_side: see `Engine`.
        logprobs: whether the log-probability of each token is wanted.
        concurrency: how many requests are under way at a time, those of all threads together.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        frame_side: int = FRAME_SIDE,
        vqa_frame_side: int | None = None,
        logprobs: bool = False,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        """Nothing is sent yet, unless `model` is None: then the server is asked for the first model that it has.

        Raises:
            UsageError: the openai package is not installed, or the server wants another key.
            EngineError: the server cannot be reached, or has no model.
        """
        openai = _import_openai()
        self.url = url.rstrip("/")
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._timeout = timeout
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            timeout=openai.Timeout(timeout, connect=CONNECT_TIMEOUT),
            max_retries=max_retries,
        )
        self._impatient = self._client.with_options(max_retries=0)
        self._gone = False  # whether the last request did not reach the server; then the next one is not repeated
        self._warned = threading.Event()
        self.model = model or ""
        if model is None:
            self.model = self._first_model()
        self.frame_side = frame_side
        self.vqa_frame_side = vqa_frame_side
        self.logprobs = logprobs
        self.concurrency = concurrency
        self._slots = threading.Semaphore(concurrency)

    @classmethod
    def connect(
        cls,
        url: str,
        model_path: str | Path | None = None,
        *,
        frame_side: int | None = None,
        logprobs: bool = False,
        concurrency: int = CONCURRENCY,
    ) -> Self:
        """A server's model in its own frame, as far as that can be known.

        Args:
            url: the server's address.
            model_path: what the server calls the model; or a checkpoint's folder, whose config says the frame. With
                a folder or None it is the first model that the server has.
            frame_side: the side of the frame; otherwise what the config in the folder says, or in the server's own
                where its model is a folder of this machine; otherwise 840.
            logprobs, concurrency: see the class.

        Raises:
            CheckpointError: the folder has no config, or one without a possible frame.
            UsageError: see the class.
            EngineError: likewise.
        """
        folder = None if model_path is None else path_of(model_path)
        named = str(model_path) if folder is not None and not folder.is_dir() else None
        engine = cls(url, model=named, logprobs=logprobs, concurrency=concurrency)
        if folder is None or not folder.is_dir():
            folder = Path(engine.model)  # a server on this machine may call its model by its folder
        if config_of(folder).is_file():
            engine.frame_side, engine.vqa_frame_side = frames_of(folder)
        elif named is None and model_path is not None and frame_side is None:
            raise CheckpointError(f"{folder}: no model config; give the reasoner's folder, or say --frame_side")
        engine.frame_side = frame_side or engine.frame_side
        return engine

    @classmethod
    def of_reasoner(cls, checkpoints: Checkpoints, settings: RunSettings) -> Self:
        """The server that runs the reasoner; see `connect`."""
        return cls.connect(
            settings.engine,
            checkpoints.reasoner,
            frame_side=settings.frame_side,
            logprobs=settings.logprobs,
            concurrency=settings.concurrency,
        )

    @classmethod
    def of_router(cls, checkpoints: Checkpoints, settings: RunSettings) -> Self:
        """The server that runs the router; see `connect`."""
        return cls.connect(settings.router_engine, checkpoints.router, concurrency=settings.concurrency)

    def software(self) -> str:
        """What the server says of itself, such as "vllm 0.33.0"; empty where it says nothing."""
        openai = _import_openai()
        asked = self._impatient.with_options(timeout=CONNECT_TIMEOUT)
        said: list[str] = []
        try:
            said += [model.owned_by for model in asked.models.list().data or [] if model.id == self.model]
            answer = asked.get(f"{self.url.removesuffix('/v1')}/version", cast_to=object)
            said.append(answer["version"] if isinstance(answer, dict) else "")
        except (openai.OpenAIError, ValueError, KeyError, AttributeError, TypeError) as error:  # few have all of it
            logger.debug("%s: does not say what it is (%s)", self.url, self._plain(error))
        return " ".join(word for word in said if word and isinstance(word, str))[:100]

    def control_token(self, text: str) -> str | None:
        """See `Engine`: whatever looks like one of Qwen's; a server does not tell its tokens."""
        return find_control_token(text)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        batch_size: int,  # noqa: ARG002
        watch: Watch | None = None,
    ) -> list[Completion]:
        """See `Engine`; `concurrency` says how many at once.

        Raises:
            QueryError: a prompt is longer than the model takes.
            UsageError: the server has no such model, it takes no images, or another key is wanted.
            EngineError: the server cannot be reached, refuses, or answers something else.
        """
        start = time.perf_counter()
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(prompts)))) as pool:
            one_by_one = threading.Lock()

            def write(i: int) -> Completion:
                watched = None if watch is None else _watch(watch, i, one_by_one)
                with self._slots:
                    return self._write(prompts[i], max_new_tokens, watched)

            futures = [pool.submit(write, i) for i in range(len(prompts))]
            try:
                written = [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        return share_seconds(written, time.perf_counter() - start)

    def _write(self, prompt: Prompt, max_new_tokens: int, watch: Watch | None) -> Completion:
        if watch is not None and watch.stopped:
            return Completion("", False, 0, image_size=prompt.frame)
        pixels = prompt.grid**2
        image = prompt.sized_image(MIN_PATCHES * pixels, MAX_PATCHES * pixels)
        options: dict[str, Any] = {"logprobs": True} if self.logprobs else {}
        if watch is not None:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        told, n_pieces = _Told(), 0
        start = first = time.perf_counter()
        messages = prompt.messages(None if image is None else _image_part(image))
        if watch is None:
            with self._errors():
                told.add(self._answer(messages, max_new_tokens, options))
                if told.finish is None:
                    raise ValueError("a completion without choices")
        else:
            with closing(self._stream(messages, max_new_tokens, options, told, watch)) as pieces:
                for more in pieces:
                    n_pieces += more
                    first = time.perf_counter() if first == start and more else first
                    if more and watch.on_text is not None:
                        watch.on_text(0, told.text)
        end = time.perf_counter()
        return Completion(
            text=told.text,
            finished=told.finish not in ("length", None),
            n_tokens=told.n_tokens or len(told.tokens) or n_pieces,
            prefill_seconds=first - start,
            decode_seconds=end - first,
            logprobs=self._logprobs(told),
            image_size=None if image is None else image.size,
        )

    def _stream(
        self, messages: Any, max_new_tokens: int, options: Mapping[str, Any], told: "_Told", watch: Watch
    ) -> Generator[bool, None, None]:
        """Take a reply in piece by piece, until it ends or is stopped; for each, whether there is more text."""
        try:
            with self._errors():
                answer = self._answer(messages, max_new_tokens, options, watch.seconds_left)
            with closing(self._pieces(answer, told)) as pieces:
                for more in pieces:
                    yield more
                    if watch.stopped:
                        break
        except EngineError:
            if watch.deadline is None or not watch.stopped:  # otherwise it was waited for until the deadline
                raise
        if told.finish is None and not watch.stopped:
            raise EngineError(f"{self.url}: the server cut its reply off; try again")

    def _answer(
        self, messages: Any, max_new_tokens: int, options: Mapping[str, Any], seconds_left: float = math.inf
    ) -> Any:
        """A completion, or a stream of one; where few seconds are left it is not waited for longer."""
        openai = _import_openai()
        client = self._impatient if self._gone else self._client
        if seconds_left < self._timeout:
            client = client.with_options(timeout=max(seconds_left, 0.01), max_retries=0)
        given = {"model": self.model, "messages": messages, "temperature": 0, **options}
        try:
            answer = client.chat.completions.create(max_tokens=max_new_tokens, **given)
        except openai.BadRequestError as error:
            if not _TOO_LONG.search(str(_message(error))):
                raise
            # Servers refuse a limit beyond their context, and without one take what the prompt leaves of it.
            answer = client.chat.completions.create(**given)
        self._gone = False
        return answer

    def _pieces(self, stream: Any, told: "_Told") -> Generator[bool, None, None]:
        """Take in a stream piece by piece; for each, whether there is more text than before."""
        with self._errors(), stream:
            for piece in stream:
                yield told.add(piece)

    def _logprobs(self, told: "_Told") -> tuple[tuple[int, float], ...]:
        """Where in the text each token ends, and its log-probability; none where the server does not give them."""
        if not self.logprobs or not told.text:
            return ()
        found = token_ends(told.tokens, told.text)
        if not found and not self._warned.is_set():
            self._warned.set()
            logger.warning("%s: gives no log-probabilities, so objects have no likelihood", self.url)
        return found

    def _first_model(self) -> str:
        with self._errors():
            page = self._client.models.list()
            models = [str(model.id) for model in page.data or []]
        if not models:
            raise EngineError(f"{self.url}: the server has no model; start it with one")
        return models[0]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the client raises into one line that says what to do next."""
        openai = _import_openai()
        import httpx2

        try:
            yield
        except openai.APITimeoutError as error:
            raise EngineError(f"{self.url}: no answer in {self._timeout:.0f} s; is the server too busy?") from error
        except openai.APIConnectionError as error:
            self._gone = True
            reason = self._plain(error.__cause__ or error)
            raise EngineError(f"{self.url}: cannot be reached ({reason}); is the server running?") from error
        except openai.APIStatusError as error:
            raise self._refusal(error) from error
        except httpx2.HTTPError as error:  # in the middle of a reply
            raise EngineError(f"{self.url}: the server cut its reply off ({self._plain(error)}); try again") from error
        except (openai.APIError, ValueError, AttributeError, TypeError) as error:
            raise EngineError(
                f"{self.url}: answers, but not as an OpenAI-compatible server ({self._plain(error)}); check --engine"
            ) from error

    def _refusal(self, error: Any) -> Exception:
        """The error for an answer with a status of 400 or more."""
        status, said = error.status_code, self._plain(_message(error))
        if status in (401, 403):
            return UsageError(f"{self.url}: the server wants a key (status {status}); set OPENAI_API_KEY")
        if status == 404:
            return UsageError(
                f"{self.url}: no model {self.model!r} there, or no such address ({said}); check "
                "--model_path and --engine, which ends in /v1"
            )
        if status in (400, 413, 422, 500, 501) and _TOO_LONG.search(said):
            return QueryError(
                f"{self.url}: more than the server takes at once ({said}); shorten the query, lower --max_new_tokens, "
                "or start the server with a longer context"
            )
        if status in (400, 415, 422, 500, 501) and _NO_IMAGES.match(said):
            return UsageError(f"{self.url}: its model {self.model!r} takes no images ({said}); serve one that does")
        return EngineError(f"{self.url}: the server refuses with status {status} ({said})")

    def _plain(self, said: object) -> str:
        """The first line of a message, without the key."""
        lines = str(said).strip().splitlines() or [type(said).__name__]
        return (lines[0].replace(self._key, "***") if self._key else lines[0])[:300]


@dataclass
class _Told:
    """A reply as far as it has come."""

    reasoning: str = ""
    content: str = ""
    finish: str | None = None
    n_tokens: int = 0
    tokens: list[tuple[bytes, float]] = field(default_factory=list)

    def add(self, part: Any) -> bool:
        """Take in a whole completion, or a piece of a stream; whether there is more text than before.

        Raises:
            ValueError: it is none.
        """
        choices = getattr(part, "choices", None)
        if not isinstance(choices, list):
            raise ValueError(f"no completion: {str(part)[:80]}")
        if usage := getattr(part, "usage", None):
            self.n_tokens = usage.completion_tokens
        if not choices:
            return False
        whole = getattr(choices[0], "message", None)
        said = whole or choices[0].delta
        # A server that splits thinking off gives it under one of two names.
        thought = getattr(said, "reasoning_content", None) or getattr(said, "reasoning", None) or ""
        self.reasoning += thought
        self.content += said.content or ""
        self.finish = choices[0].finish_reason or self.finish or ("stop" if whole else None)
        if choices[0].logprobs and choices[0].logprobs.content:
            self.tokens += [
                (bytes(token.bytes) if token.bytes else token.token.encode(), token.logprob)
                for token in choices[0].logprobs.content
            ]
        return bool(thought or said.content)

    @property
    def text(self) -> str:
        """As the model wrote it: thinking that the server split off is put together again."""
        if not self.reasoning:
            return self.content
        closed = "</think>" if self.content or self.finish not in ("length", None) else ""
        return f"<think>{self.reasoning}{closed}{self.content}"


def token_ends(tokens: Sequence[tuple[bytes, float]], text: str) -> tuple[tuple[int, float], ...]:
    """Where in `text` each token ends (characters), with its log-probability.

    Tokens after the text's end, such as the end token, are left out. Nothing where the tokens are not those of the
    text, or there are none.
    """
    whole = text.encode()
    if not b"".join(token for token, _ in tokens).startswith(whole):
        return ()
    ends, done = [], 0
    for token, logprob in tokens:
        if done >= len(whole):
            break
        done += len(token)
        ends.append((len(whole[:done].decode(errors="ignore")), logprob))  # inside a character is before it
    return tuple(ends)


def config_of(folder: Path) -> Path:
    """The config of a reasoner's folder, or a bundle's."""
    return (folder / "reasoner" if (folder / "reasoner").is_dir() else folder) / "config.json"


def frames_of(folder: Path) -> tuple[int, int | None]:
    """`frame_side` and `vqa_frame_side` of a reasoner's folder, or a bundle's.

    Raises:
        CheckpointError: there is no config, or one without a possible frame.
    """
    file = config_of(folder)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        vision = config.get("vision_config") or {}
        grid = int(vision.get("patch_size", GRID // 2)) * int(vision.get("spatial_merge_size", 2))
        return frames_in(SimpleNamespace(**config), grid, file)
    except (OSError, ValueError, ArithmeticError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file}: no model config; download it again") from error


def _import_openai() -> Any:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise UsageError('a server as engine needs the openai package: pip install -e ".[openai]"') from error
    return openai


def _watch(watch: Watch, number: int, lock: threading.Lock) -> Watch:
    """The watch of one request, which reports when no other one does."""
    on_text = watch.on_text
    if on_text is None:
        return watch

    def report(_: int, text: str) -> None:
        with lock:
            on_text(number, text)

    return replace(watch, on_text=report)


def _image_part(image: Image.Image) -> dict[str, Any]:
    """The image as a message's content part."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def _message(error: Any) -> object:
    """What a server says about its refusal, wherever in its answer that stands."""
    body = error.body
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(name):
            body = body[name]
    return body if isinstance(body, str) and body.strip() else error.message
