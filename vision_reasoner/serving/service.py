"""The model, loaded in the background, and the queues before it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from anyio import CapacityLimiter, to_thread
from prometheus_client import Gauge
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.engine import Watch
from vision_reasoner.models.router import Route
from vision_reasoner.results import Instance, Prediction, Task
from vision_reasoner.serving.batching import Batcher, Job
from vision_reasoner.serving.corrections import Corrections
from vision_reasoner.serving.guard import Limits, Metrics
from vision_reasoner.serving.pictures import CachedSegmenter, Picture, Pictures
from vision_reasoner.serving.requests import words_of

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # between two looks whether a client is still there
DECODED_AT_ONCE = 2  # uploads
ROUTED_TOGETHER = 32
COST_OF_PICTURES = 4  # pictures of the largest size that may wait, or many more small ones


def load(model: VisionReasoner) -> VisionReasoner:
    """The model with all of its parts loaded, and with a segmenter that keeps what it encoded lately."""
    loaded = VisionReasoner(model.reasoner, model.router, CachedSegmenter(model.segmenter), model.calibration)
    loaded.settings, loaded.sources = model.settings, model.sources
    return loaded


class Service:
    """Loads the model, and hands requests to it.

    Attributes:
        ready: whether the model is loaded.
        failure: what went wrong where it could not be loaded.
    """

    def __init__(
        self,
        model: VisionReasoner,
        limits: Limits,
        on_failure: Callable[[], object] = lambda: None,
        *,
        load: Callable[[VisionReasoner], VisionReasoner] = load,
        replicas: int = 1,
    ) -> None:
        """Prepare it; `start` loads the model.

        Args:
            model: answers, once it is loaded.
            limits: what others may do.
            on_failure: is called where loading fails.
            load: gives the loaded model, or raises.
            replicas: how many of the model there are at most, which work side by side.
        """
        self.model, self.limits, self._on_failure, self._load_model = model, limits, on_failure, load
        self.ready = False
        self.failure: Exception | None = None
        self.metrics = Metrics()
        self.pictures = Pictures(model.settings.max_image_pixels)
        self.corrections = None if limits.project_dir is None else Corrections(limits.project_dir)
        self.decoding = CapacityLimiter(DECODED_AT_ONCE)
        settings = model.settings
        self.predictions: Batcher[tuple[Picture, str, Task | None], Prediction] = Batcher(
            "predict",
            self._predict,
            size=settings.portion,
            threads=replicas * settings.portions_at_once,
            max_waiting=limits.max_waiting,
            max_cost=COST_OF_PICTURES * settings.max_image_pixels,
            on_batch=self.metrics.batches.observe,
        )
        self.routes: Batcher[str, Route] = Batcher(
            "route", self._route, size=ROUTED_TOGETHER, max_waiting=limits.max_waiting
        )
        self.segments: Batcher[Callable[[], list[Instance]], list[Instance]] = Batcher(
            "segment", self._call, size=1, max_waiting=limits.max_waiting
        )
        self.tools: Batcher[Callable[[], Any], Any] = Batcher(
            "tools", self._call, size=1, max_waiting=limits.max_waiting
        )
        self.batchers: tuple[Batcher[Any, Any], ...] = (self.predictions, self.routes, self.segments, self.tools)
        waiting = Gauge("vision_reasoner_requests_waiting", "Requests in the queue", registry=self.metrics.registry)
        waiting.set_function(lambda: self.predictions.waiting)

    def start(self) -> None:
        """Load the model in a thread, and begin to answer when it is there."""
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def close(self) -> None:
        """Finish what is under way."""
        for batcher in self.batchers:
            batcher.close()

    def _load(self) -> None:
        try:
            self.model = self._load_model(self.model)
        except Exception as error:  # noqa: BLE001 - said by /readyz and by the command, which ends
            self.failure = error
            self._on_failure()
            return
        for batcher in self.batchers:
            batcher.start()
        self.ready = True
        logger.info("ready")

    def _predict(self, requests: Sequence[tuple[Picture, str, Task | None]], watch: Watch) -> list[Prediction]:
        pairs = [(picture.image, query) for picture, query, _ in requests]
        return self.model.predict_batch(pairs, [task for _, _, task in requests], watch=watch)

    def _route(self, queries: Sequence[str], watch: Watch) -> list[Route]:  # noqa: ARG002
        return self.model.route(queries)

    def _call(self, tools: Sequence[Callable[[], Any]], watch: Watch) -> list[Any]:  # noqa: ARG002
        return [tool() for tool in tools]

    def state(self) -> dict[str, str]:
        """How far the model is: "loading", "ready", or "failed" with a message."""
        if self.failure is not None:
            return {"model": "failed", "message": words_of(self.failure)}
        return {"model": "ready" if self.ready else "loading"}

    async def picture(self, data: bytes | None, name: str | None) -> Picture:
        """The picture that a request brings or names.

        Raises:
            HTTPException: it brings none, or names one that is not kept (any more).
            ImageError: it cannot be used.
        """
        if data is not None:
            return await to_thread.run_sync(self.pictures.add, data, limiter=self.decoding)
        if name is None:
            raise HTTPException(422, "image: there is none; send a picture's file, or the image_id of one sent before")
        if (kept := self.pictures.get(name)) is None:
            raise HTTPException(404, "the picture of this image_id is not kept any more; send it again")
        return kept

    async def wait(self, request: Request, batcher: Batcher[Any, Any], job: Job[Any, Any]) -> Any:
        """A job's result, as long as the client is there and there is time."""
        waiting = asyncio.ensure_future(job.result())
        try:
            async with asyncio.timeout(self.limits.seconds):
                while not (await asyncio.wait([waiting], timeout=LOOK_SECONDS))[0]:
                    if await request.is_disconnected():
                        raise HTTPException(499, "the client has gone")
            return waiting.result()
        except TimeoutError:
            raise HTTPException(504, f"there was no result within {self.limits.seconds:g} seconds") from None
        finally:
            waiting.cancel()
            if not job.done:
                batcher.cancel(job)
