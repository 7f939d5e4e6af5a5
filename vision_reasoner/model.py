"""The whole system behind one object: route a request, ask about the picture, read the reply, segment what was found.

Each step is usable alone: `route`, `ask`, `parse_reply` (in `parsing`), `segment`. Parts load when they are first
needed, once: the router only where no task is given, the segmenter only for segmentation.
"""

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from PIL import Image

from vision_reasoner.confidence import Calibration, evidence, find_calibration, keep_confident
from vision_reasoner.errors import CheckpointError, ImageError, UsageError, VisionReasonerError
from vision_reasoner.geometry import Point, Size
from vision_reasoner.images import MAX_PIXELS, ImageSource, load_image
from vision_reasoner.inputs import Boxes, Points, check_texts, instances_of, tasks_of
from vision_reasoner.looks import Merge, View, auto_tiles, check_looks, combine, parse_tiles, views
from vision_reasoner.looks import whole as whole_view
from vision_reasoner.masks import Mask
from vision_reasoner.models.checkpoints import Part, choose, locate, revision_of
from vision_reasoner.models.devices import is_out_of_memory
from vision_reasoner.models.engine import FRAME_SIDE, Watch
from vision_reasoner.models.local import LoadOptions
from vision_reasoner.models.reasoner import Reasoner, ReasonerLike, Reply
from vision_reasoner.models.router import Route, Router
from vision_reasoner.models.segmenter import Segmenter
from vision_reasoner.models.server import ServerEngine
from vision_reasoner.parallel import in_threads, portioned
from vision_reasoner.parsing import MAX_OBJECTS
from vision_reasoner.prompts import DIALECTS, Compat
from vision_reasoner.reading import read_reply
from vision_reasoner.results import Instance, Prediction, Task
from vision_reasoner.settings import BATCH_SIZE, CONCURRENCY, LOCAL, MAX_NEW_TOKENS, Checkpoints, RunSettings
from vision_reasoner.verify import question_for, with_answer

logger = logging.getLogger(__name__)

VERIFY = -1  # the number, in place of a view's, of asking back
VIEWS_AT_ONCE = 32  # in memory, where images are looked at more than once


class RouterLike(Protocol):
    """What tells the task of requests: `Router`, or something of your own."""

    def route_batch(self, queries: Sequence[str]) -> list[Route]:
        """The task of each request, in order."""
        ...


class SegmenterLike(Protocol):
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
        settings: how the parts run and what limits hold.
        sources: the folder or Hub id of each part that comes from a checkpoint; for one that a server runs its address.
        load_seconds: how long each part took to load, for those that are.
    """

    def __init__(
        self,
        reasoner: ReasonerLike | None = None,
        router: RouterLike | None = None,
        segmenter: SegmenterLike | None = None,
        calibration: Calibration | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_objects: int = MAX_OBJECTS,
        max_image_pixels: int = MAX_PIXELS,
        batch_size: int = BATCH_SIZE,
        looks: int = 1,
        tiles: str = "none",
        merge: Merge = "union",
        min_confidence: float | None = None,
        verify: bool = False,
    ) -> None:
        """Put given parts together; `from_pretrained` takes them from checkpoints.

        Args:
            reasoner: needed for everything.
            router: needed where a request comes without a task.
            segmenter: needed for segmentation.
            calibration: tells the confidence of objects where there are several looks, tiles or `verify`.
            max_new_tokens, max_objects, ...: see `settings.RunSettings`.
        """
        self.settings = RunSettings(
            max_new_tokens=max_new_tokens,
            max_objects=max_objects,
            max_image_pixels=max_image_pixels,
            batch_size=batch_size,
            looks=looks,
            tiles=tiles,
            merge=merge,
            min_confidence=min_confidence,
            verify=verify,
        )
        self.sources: dict[str, str] = {}
        self.load_seconds: dict[str, float] = {}
        self._parts: dict[str, Any] = {"reasoner": reasoner, "router": router, "segmenter": segmenter}
        self._parts["calibration"] = calibration
        self._loaders: dict[str, Callable[[], Any]] = {}
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path | None = None,
        router: str | Path | None = None,
        segmenter: str | Path | None = None,
        *,
        revision: str | None = None,
        model: str = "vision_reasoner",
        engine: str = LOCAL,
        router_engine: str = LOCAL,
        concurrency: int = CONCURRENCY,
        frame_side: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        compile: str = "auto",
        quantize: str = "none",
        offline: bool = False,
        compat: Compat = "none",
        logprobs: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_objects: int = MAX_OBJECTS,
        max_image_pixels: int = MAX_PIXELS,
        batch_size: int = BATCH_SIZE,
        looks: int = 1,
        tiles: str = "none",
        merge: Merge = "union",
        min_confidence: float | None = None,
        verify: bool = False,
    ) -> Self:
        """Take the parts from checkpoints. Nothing is loaded yet: a part loads when it is first needed.

        Args:
            model_path, router, segmenter, revision: see `settings.Checkpoints`.
            model, engine, device, dtype, ...: see `settings.RunSettings`.

        Raises:
            CheckpointError: no checkpoint is given and none lies where it should.
            UsageError: an option has no such value.
        """
        settings = RunSettings(
            model=model,
            engine=engine,
            router_engine=router_engine,
            concurrency=concurrency,
            frame_side=frame_side,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            compile=compile,
            quantize=quantize,
            offline=offline,
            compat=compat,
            logprobs=logprobs,
            max_new_tokens=max_new_tokens,
            max_objects=max_objects,
            max_image_pixels=max_image_pixels,
            batch_size=batch_size,
            looks=looks,
            tiles=tiles,
            merge=merge,
            min_confidence=min_confidence,
            verify=verify,
        )
        return cls.from_settings(Checkpoints(model_path, router, segmenter, revision), settings)

    @classmethod
    def from_settings(cls, checkpoints: Checkpoints, settings: RunSettings) -> Self:
        """Like `from_pretrained`, from the two values that hold all of its arguments."""
        choice = choose(
            checkpoints.reasoner,
            checkpoints.router,
            checkpoints.segmenter,
            model=settings.model,
            revision=checkpoints.revision,
            offline=settings.offline,
            served=settings.served,
        )
        if choice.note:
            logger.info(choice.note)
        language: LoadOptions = {
            "device": settings.device,
            "dtype": settings.dtype,
            "attn_implementation": settings.attn_implementation,
            "compile": settings.compile,
            "quantize": settings.quantize,
            "offline": settings.offline,
        }
        dialect, compat = DIALECTS[settings.model], settings.compat

        def reasoner() -> Reasoner:
            if "reasoner" in settings.served:
                return Reasoner(ServerEngine.of_reasoner(checkpoints, settings), dialect=dialect, compat=compat)
            loading: LoadOptions = {**language, "revision": checkpoints.revision}
            return Reasoner.from_pretrained(
                choice.reasoner,
                dialect=dialect,
                compat=compat,
                logprobs=settings.logprobs or settings.asks_more,
                engine=settings.engine,
                **loading,
            )

        def calibration() -> Calibration | None:
            folder = Path(choice.reasoner).expanduser()
            if "reasoner" not in settings.served:
                folder = locate(choice.reasoner, "reasoner", revision=checkpoints.revision, offline=settings.offline)
            return find_calibration(folder)

        def router() -> Router:
            if "router" in settings.served:
                return Router(ServerEngine.of_router(checkpoints, settings))
            revision = revision_of("router", choice, checkpoints.reasoner, checkpoints.revision)
            loading: LoadOptions = {**language, "revision": revision}
            return Router.from_pretrained(choice.router, **loading)

        assembled = cls()
        assembled.settings = settings
        assembled.sources = {part: getattr(choice, part) for part in ("reasoner", "router", "segmenter")}
        addresses: dict[Part, str] = {"reasoner": settings.engine, "router": settings.router_engine}
        for part in settings.served:
            assembled.sources[part] = f"{assembled.sources[part]} at {addresses[part]}".strip()
        if settings.frame_side is not None:  # results depend on it
            assembled.sources["reasoner"] += f" in a frame of {settings.frame_side}"
        assembled._loaders = {
            "reasoner": reasoner,
            "router": router,
            "calibration": calibration,
            "segmenter": lambda: Segmenter.from_pretrained(
                choice.segmenter,
                device=settings.device,
                revision=revision_of("segmenter", choice, checkpoints.reasoner, checkpoints.revision),
                offline=settings.offline,
            ),
        }
        return assembled

    @property
    def reasoner(self) -> ReasonerLike:
        """The reasoner, loaded at first use."""
        reasoner: ReasonerLike = self._part("reasoner")
        return reasoner

    @property
    def router(self) -> RouterLike:
        """The router, loaded at first use."""
        router: RouterLike = self._part("router")
        return router

    @property
    def segmenter(self) -> SegmenterLike:
        """The segmenter, loaded at first use."""
        segmenter: SegmenterLike = self._part("segmenter")
        return segmenter

    @property
    def calibration(self) -> Calibration | None:
        """What tells the confidence of objects; None where the reasoner's checkpoint has none."""
        with self._lock:
            if self._parts["calibration"] is None and "calibration" in self._loaders:
                self._parts["calibration"] = self._loaders["calibration"]()
            calibration: Calibration | None = self._parts["calibration"]
        return calibration

    def predict(
        self,
        image: ImageSource,
        query: str,
        task: Task | str | None = None,
        *,
        watch: Watch | None = None,
        looks: int | None = None,
    ) -> Prediction:
        """The result for one picture and one query; see `predict_batch`."""
        return self.predict_batch([(image, query)], task=task, watch=watch, looks=looks)[0]

    def predict_batch(
        self,
        requests: Sequence[tuple[ImageSource, str]],
        task: Task | str | Sequence[Task | str | None] | None = None,
        *,
        watch: Watch | None = None,
        looks: int | None = None,
    ) -> list[Prediction]:
        """The result for each request, in order, whatever tasks they turn out to be.

        A reply that cannot be used is a `Status` with warnings, never an error. All pictures are in memory at once;
        give very many in portions.

        Args:
            requests: (picture, query) pairs; see `images.load_image` for what a picture may be.
            task: one for all, or one for each; None lets the router decide.
            watch: follows the replies while they are written, and may stop them; objects that were named until then
                are still segmented. Of several looks it follows the first.
            looks: how many views of each picture are asked about, see `looks.views`; None is `settings.looks`.

        Returns:
            Boxes, points and masks in pixels of the pictures as `load_image` gives them. `timings` are each request's
            share of the seconds in route, see, think and segment.

        Raises:
            ImageError: an image cannot be loaded.
            QueryError: a query cannot be used, or asks for editing.
            UsageError: there is no such task, or a part is needed that was not given.
            CheckpointError: a part does not load.
            VisionReasonerError: out of memory with a single request.
        """
        tasks = tasks_of(task, len(requests))
        queries = [query for _, query in requests]
        check_texts(queries)
        return self._predict(self._load_all([source for source, _ in requests]), queries, tasks, watch, looks)

    async def apredict(
        self, image: ImageSource, query: str, task: Task | str | None = None, *, seconds: float | None = None
    ) -> Prediction:
        """The result for one picture and one query, computed in a thread; see `astream`."""
        async with aclosing(self.astream(image, query, task, seconds=seconds)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Prediction):
                    return piece
        raise AssertionError("a stream ends with its result")

    async def astream(
        self, image: ImageSource, query: str, task: Task | str | None = None, *, seconds: float | None = None
    ) -> AsyncGenerator[str | Prediction]:
        """The reply as it is written, and then the result, computed in a thread of its own.

        `parse_reply` and `split_thinking` read what is there so far. Where the task that awaits is canceled, or the
        iterator is closed (`contextlib.aclosing`), the model stops writing. How many are under way is the caller's
        to bound.

        Args:
            image, query, task: as for `predict`.
            seconds: a time limit for the reply, from now on; its result is of what was written until then, and the
                warnings say so.

        Yields:
            The whole text so far, whenever there is more of it; last of all the prediction.

        Raises:
            VisionReasonerError: as for `predict`.
        """
        loop = asyncio.get_running_loop()
        texts: asyncio.Queue[str | None] = asyncio.Queue()
        stop = threading.Event()
        watch = Watch(
            on_text=lambda _, text: loop.call_soon_threadsafe(texts.put_nowait, text),
            stop=stop,
            deadline=None if seconds is None else time.monotonic() + seconds,
        )
        thread = ThreadPoolExecutor(1, "predict")
        result = asyncio.wrap_future(thread.submit(self.predict, image, query, task, watch=watch))
        result.add_done_callback(lambda _: texts.put_nowait(None))
        thread.shutdown(wait=False)  # it ends with its work
        try:
            while (text := await texts.get()) is not None:
                yield text
            yield await result
        finally:
            stop.set()
            result.cancel()  # nobody waits for it any more

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
        tasks = tasks_of(task, len(requests))
        images = self._load([source for source, _ in requests])
        loaded = {i: image for i, image in enumerate(images) if not isinstance(image, ImageError)}

        def attempt(chunk: Sequence[int]) -> list[Prediction | Exception]:
            """Together, or where that fails one by one."""
            try:
                return list(
                    self._predict(
                        [loaded[i] for i in chunk],
                        [requests[i][1] for i in chunk],
                        [tasks[i] for i in chunk],
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
        return [image if isinstance(image, ImageError) else done[i] for i, image in enumerate(images)]

    def predict_as_done(
        self, requests: Iterable[tuple[ImageSource, str]], task: Task | str | None = None
    ) -> Iterator[tuple[int, Prediction | Exception]]:
        """Like `predict_each` for any number of requests: each one's number, from 0, and its result once it is there.

        Requests are taken as the engine gets free: `settings.batch_size` together with that of this process, otherwise
        one by one with as many under way as keep it busy.

        Args:
            requests: see `predict_batch`.
            task: of all of them; None lets the router decide.

        Raises:
            UsageError, CheckpointError: as `predict_each`.
        """

        def answer(portion: Sequence[tuple[int, tuple[ImageSource, str]]]) -> list[tuple[int, Prediction | Exception]]:
            outcomes = self.predict_each([request for _, request in portion], task)
            return [(i, outcome) for (i, _), outcome in zip(portion, outcomes, strict=True)]

        portions = portioned(enumerate(requests), self.settings.portion)
        for done in in_threads(answer, portions, self.settings.portions_at_once):
            yield from done

    def _predict(
        self,
        images: Sequence["_Loaded"],
        queries: Sequence[str],
        tasks: Sequence[Task | None],
        watch: Watch | None = None,
        looks: int | None = None,
    ) -> list[Prediction]:
        if self.settings.min_confidence is not None and self.calibration is None:
            raise UsageError(
                "min_confidence needs a calibrated checkpoint; make a calibration by `python -m evaluation.calibrate`"
            )
        routes = self._route_where_needed(queries, tasks)
        decided = [task or routes[i].task for i, task in enumerate(tasks)]
        pixels = [image for image, _ in images]
        shown = [
            self._views(image.size, query, task, looks)
            for image, query, task in zip(pixels, queries, decided, strict=True)
        ]
        predictions = []
        encoded: tuple[Image.Image, Any] | None = None  # requests about one image in a row share its features
        for i, prediction in enumerate(self._look(pixels, queries, decided, shown, watch)):
            timings = dict(prediction.timings)
            notes = list(images[i][1])
            if i in routes:
                timings = {"route": routes[i].seconds, **timings}
                notes += routes[i].notes
            instances = prediction.instances
            if prediction.task is Task.SEGMENTATION and instances:
                segmenter = self.segmenter  # loads before the clock starts
                start = time.perf_counter()
                with _memory_errors(pixels[i], instances):
                    if encoded is None or encoded[0] is not pixels[i]:
                        encoded = (pixels[i], segmenter.encode(pixels[i]))
                    instances = self._with_masks(encoded[1], instances)
                timings["segment"] = time.perf_counter() - start
            whole = replace(prediction, warnings=[*notes, *prediction.warnings], instances=instances, timings=timings)
            # pictures that need no tiles have a confidence as well: objects of all are ranked and left out alike
            told = (
                len(shown[i]) > 1 or self.settings.verify or (self.settings.asks_more and self.calibration is not None)
            )
            predictions.append(self._with_confidence(whole) if told and whole.task is not Task.VQA else whole)
        return predictions

    def _views(self, size: Size, query: str, task: Task, looks: int | None) -> list[View]:
        """The views of an image of `size` that a request is asked about."""
        if task is Task.VQA:
            return [whole_view(size)]
        tiles = self.settings.tiles
        if tiles == "auto":
            frame = self.reasoner.frame_for(task) if isinstance(self.reasoner, Reasoner) else None
            grid = auto_tiles(size, FRAME_SIDE if frame is None else frame[0])
        else:
            grid = None if tiles == "none" else parse_tiles(tiles)
        wanted = self.settings.looks if looks is None else looks
        check_looks(wanted)
        return views(size, query, wanted, grid)

    def _look(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        tasks: Sequence[Task],
        shown: Sequence[Sequence[View]],
        watch: Watch | None,
    ) -> Iterator[Prediction]:
        """What is found in the views of each image together, still without masks."""
        jobs = [(i, number) for i, several in enumerate(shown) for number in range(len(several))]
        if self.settings.verify:
            jobs += [(i, VERIFY) for i, task in enumerate(tasks) if task is not Task.VQA]
            jobs.sort(key=lambda job: job[0])
        # Views are copies, so that where there are many only those of one portion are in memory.
        portion = VIEWS_AT_ONCE if len(jobs) > len(images) else max(len(jobs), 1)
        replies: dict[int, list[Reply]] = {}
        expected = Counter(i for i, _ in jobs)
        for start in range(0, len(jobs), portion):
            part = jobs[start : start + portion]
            written = self._ask(
                [images[i] if number == VERIFY else shown[i][number].show(images[i]) for i, number in part],
                [question_for(queries[i]) if number == VERIFY else queries[i] for i, number in part],
                [Task.VQA if number == VERIFY else tasks[i] for i, number in part],
                watch and _watch_first(watch, part),
            )
            for (i, _), reply in zip(part, written, strict=True):
                replies.setdefault(i, []).append(reply)
                if len(replies[i]) == expected[i]:
                    yield self._together(replies.pop(i), shown[i], images[i].size, queries[i], tasks[i], watch)

    def _together(
        self, replies: list[Reply], shown: Sequence[View], size: Size, query: str, task: Task, watch: Watch | None
    ) -> Prediction:
        """The replies about one image as one result: those to its views, then perhaps that to asking back."""
        dialect, stopped = self.reasoner.dialect, watch is not None and watch.stopped
        readings = [
            read_reply(reply, view.size, query, task, dialect=dialect, settings=self.settings, stopped=stopped)
            for reply, view in zip(replies, shown, strict=False)
        ]
        combined = readings[0] if len(readings) == 1 else self._combine(readings, shown, size)
        return combined if len(replies) == len(shown) else with_answer(combined, replies[-1])

    def _combine(self, readings: Sequence[Prediction], shown: Sequence[View], size: Size) -> Prediction:
        """The views of one image as one result, of as many objects as are allowed."""
        combined = combine(readings, shown, size, self.settings.merge)
        n = len(combined.instances)
        if n <= (most := self.settings.max_objects):
            return combined
        note = f"{n} objects were found in several looks, only the first {most} are kept (--max_objects)"
        return replace(combined, instances=combined.instances[:most], warnings=[*combined.warnings, note])

    def _with_confidence(self, prediction: Prediction) -> Prediction:
        """The result with the confidence of its objects, without those that have too little."""
        if self.calibration is None:
            note = "no confidence, only votes: the checkpoint has no calibration (see python -m evaluation.calibrate)"
            return replace(prediction, warnings=[*prediction.warnings, note])
        instances = [
            replace(instance, confidence=self.calibration.confidence(evidence(instance, prediction.image_size)))
            for instance in prediction.instances
        ]
        return keep_confident(replace(prediction, instances=instances), self.settings.min_confidence or 0.0)

    def _route_where_needed(self, queries: Sequence[str], tasks: Sequence[Task | None]) -> dict[int, "_Routed"]:
        """What the router says about each request without a task, by the request's number."""
        unknown = [i for i, task in enumerate(tasks) if task is None]
        if not unknown:
            return {}
        router = self.router  # loads before the clock starts
        start = time.perf_counter()
        routes = router.route_batch([queries[i] for i in unknown])
        seconds = (time.perf_counter() - start) / len(unknown)
        return {
            i: _Routed(route.require_task(), [route.warning] if route.warning else [], seconds)
            for i, route in zip(unknown, routes, strict=True)
        }

    def route(self, queries: Sequence[str]) -> list[Route]:
        """The task of each query. The router is loaded if there is any.

        Raises:
            UsageError: a single text is given instead of a list of them.
            QueryError: a query cannot be used.
        """
        check_texts(queries)
        return self.router.route_batch(queries) if len(queries) else []

    def ask(
        self,
        images: Sequence[ImageSource],
        queries: Sequence[str],
        tasks: Task | str | Sequence[Task | str],
        *,
        watch: Watch | None = None,
    ) -> list[Reply]:
        """The reasoner's raw reply to each query about its image, with the frame that its coordinates are in.

        Args:
            images: see `images.load_image` for what an image may be.
            queries: one for each image.
            tasks: one for all, or one for each.
            watch: follows the replies while they are written, and may stop them.

        Raises:
            ImageError: an image cannot be loaded.
            QueryError: a query cannot be used.
            UsageError: there is no such task, or images, queries and tasks differ in number.
        """
        check_texts(queries)
        if len(images) != len(queries):
            raise UsageError(f"{len(images)} images need as many queries, got {len(queries)}")
        decided = [task for task in tasks_of(tasks, len(queries)) if task is not None]
        if len(decided) < len(queries):
            raise UsageError("ask needs the task of each query; route(queries) tells it")
        return self._ask([image for image, _ in self._load_all(images)], queries, decided, watch)

    def _ask(
        self, images: Sequence[Image.Image], queries: Sequence[str], tasks: Sequence[Task], watch: Watch | None
    ) -> list[Reply]:
        if not images:
            return []
        return self.reasoner.ask(
            images,
            queries,
            tasks=tasks,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            **({} if watch is None else {"watch": watch}),  # a reasoner of one's own need not know it
        )

    def segment(
        self,
        image: ImageSource,
        objects: Boxes,
        points: Points = None,
    ) -> list[Instance]:
        """The objects with their masks and scores.

        Args:
            image: see `images.load_image` for what an image may be.
            objects: instances with box and perhaps point, or (N, 4) boxes, xyxy in pixels of the image, as an array,
                tuples or lists. Fractions are rounded.
            points: for boxes, a point (x, y) inside each object, or None where there is none.

        Raises:
            ImageError: the image cannot be loaded.
            UsageError: a box or point is not finite, has another shape, is empty, or lies outside the image.
            VisionReasonerError: out of memory.
        """
        ((pixels, _),) = self._load_all([image])
        instances = instances_of(objects, points, pixels.size)
        segmenter = self.segmenter
        with _memory_errors(pixels, instances):
            return self._with_masks(segmenter.encode(pixels), instances)

    def _with_masks(self, features: Any, instances: Sequence[Instance]) -> list[Instance]:
        points: list[Point | None] = [instance.point for instance in instances]
        masks = self.segmenter.masks(features, [instance.box for instance in instances], points)
        return [
            replace(instance, mask=mask, score=score if math.isfinite(score) else None)
            for instance, (mask, score) in zip(instances, masks, strict=True)
        ]

    def _load_all(self, sources: Sequence[ImageSource]) -> list["_Loaded"]:
        """The images; raises the first one's ImageError that cannot be loaded."""
        loaded = []
        for image in self._load(sources):
            if isinstance(image, ImageError):
                raise image
            loaded.append(image)
        return loaded

    def _load(self, sources: Sequence[ImageSource]) -> list["_Loaded | ImageError"]:
        """The images; one given for several requests is loaded, and encoded, once."""
        loaded: dict[Any, _Loaded | ImageError] = {}
        keys = [source if isinstance(source, (str, Path)) else id(source) for source in sources]
        for key, source in zip(keys, sources, strict=True):
            if key not in loaded:
                notes: list[str] = []
                try:
                    loaded[key] = (load_image(source, max_pixels=self.settings.max_image_pixels, notes=notes), notes)
                except ImageError as error:
                    loaded[key] = error
        return [loaded[key] for key in keys]

    def load(self, part: Part) -> None:
        """Load a part now, if it is not there; otherwise the first request that needs it does.

        Raises:
            UsageError: it was not given.
            CheckpointError: it cannot be loaded.
            EngineError: its server cannot be reached.
        """
        self._part(part)

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
"""An image and what is to be said about it."""


class _Routed(NamedTuple):
    """A task that the router decided on, what is to be said about it, and this request's share of the seconds."""

    task: Task
    notes: list[str]
    seconds: float


def _watch_first(watch: Watch, part: Sequence[tuple[int, int]]) -> Watch:
    """The same, for views of requests, each (request's number, view's number); it is told of first views alone."""
    on_text = watch.on_text
    if on_text is None:
        return watch

    def of_request(number: int, text: str) -> None:
        request, view = part[number]
        if view == 0:
            on_text(request, text)

    return replace(watch, on_text=of_request)
