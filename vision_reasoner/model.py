"""The whole system behind one object: route a request, ask about the picture, read the reply, segment what was found.

Each step is usable alone: `route`, `ask`, `parse_reply` (in `parsing`), `segment`. Parts load when they are first
needed, once: the router only where no task is given, the segmenter only for segmentation.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self, get_args

from PIL import Image

from vision_reasoner.errors import CheckpointError, ImageError, UsageError, VisionReasonerError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.images import MAX_PIXELS, ImageSource, load_image
from vision_reasoner.masks import Mask
from vision_reasoner.models.checkpoints import BASELINES, choose
from vision_reasoner.models.devices import is_out_of_memory
from vision_reasoner.models.reasoner import MAX_NEW_TOKENS, AnyReasoner, Compat, Reasoner, Reply
from vision_reasoner.models.router import Route, Router
from vision_reasoner.models.segmenter import Segmenter
from vision_reasoner.parsing import MAX_OBJECTS, parse_reply
from vision_reasoner.prompts import DIALECTS
from vision_reasoner.results import Instance, Prediction, Status, Task

logger = logging.getLogger(__name__)


class AnyRouter(Protocol):
    """What tells the task of requests: `Router`, or something of your own."""

    def route_batch(self, queries: Sequence[str]) -> list[Route]:
        """The task of each request, in order."""
        ...


class AnySegmenter(Protocol):
    """What makes masks: `Segmenter`, or something of your own."""

    def encode(self, image: Image.Image) -> Any:
        """The features of an RGB picture, for `masks`."""
        ...

    def masks(
        self,
        features: Any,
        boxes: Sequence[Sequence[float]],
        points: Sequence[Sequence[float] | None] | None = None,
    ) -> Iterable[tuple[Mask, float]]:
        """An (H, W) bool mask and a score for each box in the picture that was encoded."""
        ...


class VisionReasoner:
    """Finds, segments and counts objects in pictures and answers questions about them.

    Example:
        >>> model = VisionReasoner.from_pretrained()  # doctest: +SKIP
        >>> result = model.predict("assets/airplanes.png", "How many airplanes are there?")  # doctest: +SKIP
        >>> result.task, result.count  # doctest: +SKIP
        (<Task.COUNTING: 'counting'>, 10)

    Attributes:
        sources: the folder or Hub id of each part that comes from a checkpoint.
        load_seconds: how long each part took to load, for those that are.
    """

    def __init__(
        self,
        reasoner: AnyReasoner | None = None,
        router: AnyRouter | None = None,
        segmenter: AnySegmenter | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_objects: int = MAX_OBJECTS,
        max_image_pixels: int = MAX_PIXELS,
        batch_size: int = 8,
    ) -> None:
        """Put given parts together; `from_pretrained` takes them from checkpoints.

        Args:
            reasoner: needed for everything.
            router: needed where a request comes without a task.
            segmenter: needed for segmentation.
            max_new_tokens: the limit for each reply of the reasoner.
            max_objects: how many objects of a reply are kept at most.
            max_image_pixels: larger pictures are refused.
            batch_size: how many requests go through the reasoner at once; fewer where memory does not suffice.
        """
        limits = {"max_new_tokens": max_new_tokens, "max_objects": max_objects, "batch_size": batch_size}
        for name, value in limits.items():
            if value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        self.max_new_tokens = max_new_tokens
        self.max_objects = max_objects
        self.max_image_pixels = max_image_pixels
        self.batch_size = batch_size
        self.sources: dict[str, str] = {}
        self.load_seconds: dict[str, float] = {}
        self._parts: dict[str, Any] = {"reasoner": reasoner, "router": router, "segmenter": segmenter}
        self._loaders: dict[str, Callable[[], Any]] = {}
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path | None = None,
        router: str | Path | None = None,
        segmenter: str | Path | None = None,
        *,
        model: str = "vision_reasoner",
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        compile: str = "auto",
        revision: str | None = None,
        offline: bool = False,
        compat: Compat = "none",
        logprobs: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_objects: int = MAX_OBJECTS,
        max_image_pixels: int = MAX_PIXELS,
        batch_size: int = 8,
    ) -> Self:
        """Take the parts from checkpoints. Nothing is loaded yet: a part loads when it is first needed.

        Args:
            model_path: the reasoner, or a bundle of all three parts, as a folder or a Hub id. None is
                pretrained_models/VisionReasoner-7B if it is there, otherwise the bundled VisionReasoner-Tiny.
            router: the router; None is the bundle's, or the released one.
            segmenter: the segmenter; None likewise.
            model: how the reasoner is asked and how it answers, a key of `prompts.DIALECTS`: "vision_reasoner", or one
                of the baselines "qwen" (Qwen2.5-VL) and "qwen2" (Qwen2-VL).
            device: a torch device; "auto" is CUDA, else MPS, else the CPU.
            dtype: of reasoner and router; "auto" suits the device. The segmenter is float32 always.
            attn_implementation: of reasoner and router; "auto" is flash-attn where it is installed, otherwise sdpa.
            compile: how reasoner and router decode. "auto" is fast on CUDA: over a cache of fixed size, each step one
                recorded graph (see `generation.static_decoder`); on other devices transformers' own loop, which "off"
                is everywhere.
            revision: of the reasoner on the Hub.
            offline: make no network attempt at all.
            compat: "upstream" prepares VQA requests as the original code did (question normalised, picture squashed).
            logprobs: whether instances say how likely the reasoner found them (`Instance.likelihood`).
            max_new_tokens, max_objects, max_image_pixels, batch_size: see the class.

        Raises:
            CheckpointError: no checkpoint is given and none lies where it should.
            UsageError: an option has no such value.
        """
        if model not in DIALECTS:
            raise UsageError(f"no model {model!r}: give one of {', '.join(DIALECTS)}")
        if compat not in get_args(Compat):
            raise UsageError(f"no compat {compat!r}: give one of {', '.join(get_args(Compat))}")
        choice = choose(model_path, router, segmenter, baseline=model if model in BASELINES else None)
        if choice.note:
            logger.info(choice.note)
        language: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "attn_implementation": attn_implementation,
            "compile": compile,
            "offline": offline,
        }
        assembled = cls(
            max_new_tokens=max_new_tokens,
            max_objects=max_objects,
            max_image_pixels=max_image_pixels,
            batch_size=batch_size,
        )
        assembled.sources = {part: getattr(choice, part) for part in ("reasoner", "router", "segmenter")}
        assembled._loaders = {
            "reasoner": lambda: Reasoner.from_pretrained(
                choice.reasoner,
                dialect=DIALECTS[model],
                compat=compat,
                logprobs=logprobs,
                revision=revision,
                **language,
            ),
            "router": lambda: Router.from_pretrained(choice.router, **language),
            "segmenter": lambda: Segmenter.from_pretrained(choice.segmenter, device=device, offline=offline),
        }
        return assembled

    @property
    def reasoner(self) -> AnyReasoner:
        """The reasoner, loaded at first use."""
        reasoner: AnyReasoner = self._part("reasoner")
        return reasoner

    @property
    def router(self) -> AnyRouter:
        """The router, loaded at first use."""
        router: AnyRouter = self._part("router")
        return router

    @property
    def segmenter(self) -> AnySegmenter:
        """The segmenter, loaded at first use."""
        segmenter: AnySegmenter = self._part("segmenter")
        return segmenter

    def predict(self, image: ImageSource, query: str, task: Task | str | None = None) -> Prediction:
        """The result for one picture and one query; see `predict_batch`."""
        return self.predict_batch([(image, query)], task=task)[0]

    def predict_batch(
        self,
        requests: Sequence[tuple[ImageSource, str]],
        task: Task | str | Sequence[Task | str | None] | None = None,
    ) -> list[Prediction]:
        """The result for each request, in order, whatever tasks they turn out to be.

        A reply that cannot be used is a `Status` with warnings, never an error. All pictures are in memory at once;
        give very many in portions.

        Args:
            requests: (picture, query) pairs; see `images.load_image` for what a picture may be.
            task: one for all, or one for each; None lets the router decide.

        Returns:
            Boxes, points and masks in pixels of the pictures as `load_image` gives them. `timings` are each request's
            share of the seconds in route, see, think and segment.

        Raises:
            ImageError: a picture cannot be loaded, a query cannot be used, or asks for editing.
            UsageError: there is no such task, or a part is needed that was not given.
            CheckpointError: a part does not load.
            VisionReasonerError: out of memory with a single request.
        """
        tasks = _tasks(task, len(requests))
        pictures = self._load([source for source, _ in requests])
        for picture in pictures:
            if isinstance(picture, ImageError):
                raise picture
        loaded = [picture for picture in pictures if not isinstance(picture, ImageError)]
        return self._predict(loaded, [query for _, query in requests], tasks)

    def predict_each(
        self,
        requests: Sequence[tuple[ImageSource, str]],
        task: Task | str | Sequence[Task | str | None] | None = None,
    ) -> list[Prediction | Exception]:
        """Like `predict_batch`, with the error in its place where a request fails by itself.

        Where the requests cannot be done together they are done one by one.

        Raises:
            UsageError: there is no such task, or a part is needed that was not given.
            CheckpointError: a part does not load.
            Exception: something unforeseen that every single one of several requests meets.
        """
        tasks = _tasks(task, len(requests))
        pictures = self._load([source for source, _ in requests])
        loaded = {i: picture for i, picture in enumerate(pictures) if not isinstance(picture, ImageError)}

        def attempt(chunk: Sequence[int]) -> list[Prediction | Exception]:
            """Together, or where that fails one by one."""
            try:
                return list(
                    self._predict(
                        [loaded[i] for i in chunk], [requests[i][1] for i in chunk], [tasks[i] for i in chunk]
                    )
                )
            except (UsageError, CheckpointError):
                raise
            except Exception as error:
                if len(chunk) == 1:
                    return [error]
                alone = [attempt([i])[0] for i in chunk]
                if not any(isinstance(outcome, Prediction | VisionReasonerError) for outcome in alone):
                    raise
                return alone

        done = dict(zip(loaded, attempt(list(loaded)) if loaded else [], strict=True))
        return [picture if isinstance(picture, ImageError) else done[i] for i, picture in enumerate(pictures)]

    def _predict(
        self, pictures: Sequence["_Loaded"], queries: Sequence[str], tasks: list[Task | None]
    ) -> list[Prediction]:
        images = [image for image, _ in pictures]
        warnings = [list(notes) for _, notes in pictures]
        timings: list[dict[str, float]] = [{} for _ in queries]

        if unknown := [i for i, known in enumerate(tasks) if known is None]:
            self._part("router")  # loads before the clock starts
            start = time.perf_counter()
            routes = self.route([queries[i] for i in unknown])
            seconds = (time.perf_counter() - start) / len(unknown)
            for i, route in zip(unknown, routes, strict=True):
                tasks[i] = route.require_task()
                warnings[i] += [route.warning] if route.warning else []
                timings[i]["route"] = seconds

        decided = [task for task in tasks if task is not None]
        predictions = []
        encoded: tuple[Image.Image, Any] | None = None  # requests about one picture in a row share its features
        for i, reply in enumerate(self.ask(images, queries, decided)):
            prediction = self._read(reply, images[i], queries[i], decided[i])
            prediction.warnings = warnings[i] + prediction.warnings
            prediction.timings = {**timings[i], "see": reply.see_seconds, "think": reply.think_seconds}
            if prediction.task is Task.SEGMENTATION and prediction.instances:
                segmenter = self.segmenter
                start = time.perf_counter()
                with _memory_errors(images[i], prediction.instances):
                    if encoded is None or encoded[0] is not images[i]:
                        encoded = (images[i], segmenter.encode(images[i]))
                    prediction.instances = self._with_masks(encoded[1], prediction.instances)
                prediction.timings["segment"] = time.perf_counter() - start
            predictions.append(prediction)
        return predictions

    def route(self, queries: Sequence[str]) -> list[Route]:
        """The task of each query. The router is loaded if there is any."""
        return self.router.route_batch(queries) if queries else []

    def ask(self, images: Sequence[Image.Image], queries: Sequence[str], tasks: Sequence[Task]) -> list[Reply]:
        """The reasoner's raw reply to each query about its picture (RGB), with the frame its coordinates are in."""
        if not images:
            return []
        return self.reasoner.ask(
            images, queries, tasks=tasks, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )

    def segment(self, image: Image.Image, objects: Sequence[Instance | Box]) -> list[Instance]:
        """The objects with their masks and scores.

        Args:
            image: the RGB picture.
            objects: instances with box and perhaps point, or plain boxes, in pixels of the picture.

        Raises:
            VisionReasonerError: out of memory.
        """
        instances = [found if isinstance(found, Instance) else Instance(Box(*found)) for found in objects]
        segmenter = self.segmenter
        with _memory_errors(image, instances):
            return self._with_masks(segmenter.encode(image), instances)

    def _with_masks(self, features: Any, instances: Sequence[Instance]) -> list[Instance]:
        points: list[Point | None] = [instance.point for instance in instances]
        masks = self.segmenter.masks(features, [instance.box for instance in instances], points)
        return [
            replace(instance, mask=mask, score=score) for instance, (mask, score) in zip(instances, masks, strict=True)
        ]

    def _load(self, sources: Sequence[ImageSource]) -> list["_Loaded | ImageError"]:
        """The pictures; one given for several requests is loaded, and seen, once."""
        loaded: dict[Any, _Loaded | ImageError] = {}
        keys = [source if isinstance(source, (str, Path)) else id(source) for source in sources]
        for key, source in zip(keys, sources, strict=True):
            if key not in loaded:
                notes: list[str] = []
                try:
                    loaded[key] = (load_image(source, max_pixels=self.max_image_pixels, notes=notes), notes)
                except ImageError as error:
                    loaded[key] = error
        return [loaded[key] for key in keys]

    def _read(self, reply: Reply, image: Image.Image, query: str, task: Task) -> Prediction:
        """What a reply says, still without masks."""
        warnings = []
        if not reply.finished:
            warnings.append(f"the reply was cut off after {reply.n_tokens} tokens (--max_new_tokens)")
        if task is Task.VQA:
            answer = reply.text.strip()
            status = Status.NO_ANSWER if not answer else Status.OK if reply.finished else Status.TRUNCATED
            return Prediction(
                image.size, query, task, reply=reply.text, status=status, warnings=warnings, answer=answer
            )
        parsed = parse_reply(
            reply.text,
            model_size=reply.model_size,
            image_size=image.size,
            grammar=self.reasoner.dialect.grammar,
            max_objects=self.max_objects,
        )
        return Prediction(
            image.size,
            query,
            task,
            thinking=parsed.thinking,
            reply=reply.text,
            status=parsed.status,
            warnings=warnings + parsed.warnings,
            instances=[
                replace(instance, likelihood=reply.likelihood(*span))
                for instance, span in zip(parsed.instances, parsed.spans, strict=True)
            ],
        )

    def _part(self, name: str) -> Any:
        with self._lock:
            if self._parts[name] is None:
                if name not in self._loaders:
                    hint = " or say the task" if name == "router" else ""
                    raise UsageError(f"this needs a {name}, and none was given: pass {name}= to VisionReasoner{hint}")
                start = time.perf_counter()
                self._parts[name] = self._loaders[name]()
                self.load_seconds[name] = time.perf_counter() - start
            return self._parts[name]


@contextmanager
def _memory_errors(image: Image.Image, instances: Sequence[Instance]) -> Iterator[None]:
    """Say which picture and how many objects memory did not suffice for."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise VisionReasonerError(
            f"out of memory while segmenting {len(instances)} objects of a {image.width}x{image.height} picture; "
            "give a smaller picture or another --device"
        ) from error


_Loaded = tuple[Image.Image, list[str]]
"""A picture and what is to be said about it."""


def _tasks(task: Task | str | Sequence[Task | str | None] | None, n: int) -> list[Task | None]:
    """`task` as one for each of `n` requests."""
    wanted = [task] * n if task is None or isinstance(task, str) else list(task)
    if len(wanted) != n:
        raise UsageError(f"{n} requests need as many tasks (or one for all), got {len(wanted)}")
    known = tuple(Task)
    for name in wanted:
        if name is not None and name not in known:
            raise UsageError(f"no task {name!r}: give one of {', '.join(known)}")
    return [None if name is None else Task(name) for name in wanted]
