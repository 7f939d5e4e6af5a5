"""The same application under Ray Serve, where one machine is too small.

    pip install -e ".[serve,ray]"
    serve run vision_reasoner/serving/serve.yaml

One `Entrance` has the addresses, the queues, the pictures and the corrections. Batches go from there to replicas of
`Model`. Where a replica dies, its batch is given to another: a prediction changes nothing, so it may be repeated.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, NoReturn

from pydantic import Field
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from vision_reasoner.cli import model_settings
from vision_reasoner.errors import EngineError, UsageError
from vision_reasoner.model import ImageSource, VisionReasoner
from vision_reasoner.models.engine import Watch
from vision_reasoner.models.router import Route
from vision_reasoner.results import Instance, Prediction, Task
from vision_reasoner.serving.app import create_app
from vision_reasoner.serving.command import MAX_CONNECTIONS, build_parser, limits_of
from vision_reasoner.serving.requests import Strict
from vision_reasoner.serving.service import Service, load
from vision_reasoner.settings import Checkpoints, RunSettings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1  # between two looks at what a replica has written, and whether somebody still waits for it
TRIES = 3  # replicas that may die of a batch
REST_SECONDS = 0.5  # after a death, in which Ray takes note of it


class Arguments(Strict):
    """`args` of serve.yaml.

    Attributes:
        min_replicas, max_replicas: of the model; Ray decides by the batches under way.
        gpus, cpus: that Ray reserves for a replica.
        options: those of `vision-reasoner serve`, without the dashes.
    """

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 1
    cpus: Annotated[float, Field(ge=0)] = 1
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)


def build(arguments: Arguments) -> Application:
    """The application that serve.yaml names.

    Raises:
        UsageError: an option does not exist or has no such value.
    """
    parser = build_parser()
    parser.set_defaults(project_dir=None)

    def error(message: str) -> NoReturn:
        raise UsageError(f"options of serve.yaml: {message}")

    parser.error = error  # type: ignore[method-assign]  # it would end Ray's process
    given = [f"--{k}" if v is True else f"--{k}={v}" for k, v in arguments.options.items() if v is not False]
    options = parser.parse_args(given)
    if options.project_dir is not None and not options.project_dir.is_absolute():
        raise UsageError(f"project_dir must be an absolute path, got {options.project_dir}")
    checkpoints, settings = model_settings(options)
    at_once = arguments.max_replicas * settings.portions_at_once
    model = Model.options(  # type: ignore[attr-defined]
        autoscaling_config={
            "min_replicas": arguments.min_replicas,
            "max_replicas": arguments.max_replicas,
            "target_ongoing_requests": settings.portions_at_once,
        },
        max_ongoing_requests=at_once + 2,  # a request to route and one to segment may come beside them
        ray_actor_options={"num_gpus": arguments.gpus, "num_cpus": arguments.cpus},
    ).bind(checkpoints, settings)
    entrance: Application = Entrance.bind(  # type: ignore[attr-defined]
        options, checkpoints, settings, arguments.max_replicas, model
    )
    return entrance


@serve.deployment
class Model:
    """A replica of the model, loaded."""

    def __init__(self, checkpoints: Checkpoints, settings: RunSettings) -> None:
        """Load it."""
        self.model = load(VisionReasoner.from_settings(checkpoints, settings))
        self._threads = ThreadPoolExecutor(settings.portions_at_once, "predict")

    async def work(self, name: str, *given: Any, **options: Any) -> AsyncIterator[tuple[dict[int, str], Any]]:
        """Call the model's `name`; yields texts that have grown since, by number of request, and at last the result."""
        texts: dict[int, str] = {}
        sent: dict[int, str] = {}
        stop = threading.Event()
        predicts = name == "predict_batch"
        if predicts:
            options["watch"] = Watch(on_text=texts.__setitem__, stop=stop)
        call = partial(getattr(self.model, name), *given, **options)
        work = asyncio.get_running_loop().run_in_executor(self._threads if predicts else None, call)
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=LOOK_SECONDS)
                news = {i: text for i, text in texts.copy().items() if sent.get(i) != text}
                sent |= news
                yield news, None
            yield {}, work.result()
        finally:  # also where the caller has gone
            stop.set()
            work.cancel()

    def ready(self) -> None:
        """Whether it is loaded, which it is where this can be called."""


class RemoteModel(VisionReasoner):
    """A model whose work is done by replicas of `Model`; called from threads, never in an event loop."""

    replicas: DeploymentHandle

    def wait(self) -> "RemoteModel":
        """It, when a replica is loaded."""
        self.replicas.ready.remote().result()
        return self

    def predict_batch(
        self,
        requests: Sequence[tuple[ImageSource, str]],
        task: Task | str | Sequence[Task | str | None] | None = None,
        *,
        watch: Watch | None = None,
        looks: int | None = None,
    ) -> list[Prediction]:
        """See `VisionReasoner`. The watch is told texts anew where a replica died that had written some."""
        found: list[Prediction] = self._call("predict_batch", requests, task, watch=watch, looks=looks)
        return found

    def route(self, queries: Sequence[str]) -> list[Route]:
        """See `VisionReasoner`."""
        routes: list[Route] = self._call("route", queries)
        return routes

    def segment(self, image: ImageSource, objects: Any, points: Any = None) -> list[Instance]:
        """See `VisionReasoner`."""
        found: list[Instance] = self._call("segment", image, objects, points)
        return found

    def _call(self, name: str, *given: Any, watch: Watch | None = None, **options: Any) -> Any:
        watch = watch or Watch()
        tell = watch.on_text or (lambda _number, _text: None)
        method = self.replicas.options(method_name="work", stream=True)
        for tried in range(1, TRIES + 1):
            replies = method.remote(name, *given, **options)
            try:
                for texts, outcome in replies:
                    if outcome is not None:
                        return outcome
                    for i, text in texts.items():
                        tell(i, text)
                    if watch.stopped:
                        replies.cancel()
                        raise EngineError("it was stopped")
            except RayActorError as error:
                logger.warning("a replica died at work, %d of %d: %s", tried, TRIES, type(error).__name__)
                time.sleep(REST_SECONDS)
            except RayTaskError as error:
                raise error.cause from None
        raise EngineError(f"{TRIES} replicas died at this; see Ray's logs")


@serve.deployment(max_ongoing_requests=MAX_CONNECTIONS)
@serve.ingress()
class Entrance:
    """The application."""

    def __init__(
        self, options: Any, checkpoints: Checkpoints, settings: RunSettings, replicas: int, model: DeploymentHandle
    ) -> None:
        """Prepare it; it is ready when a replica of the model is."""
        ours = logging.getLogger("vision_reasoner")  # to Ray's log of this replica
        ours.setLevel(logging.INFO)
        ours.addHandler(logging.StreamHandler())
        remote = RemoteModel.from_settings(checkpoints, settings)
        remote.replicas = model
        self.service = Service(remote, limits_of(options), load=lambda _: remote.wait(), replicas=replicas)

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(self.service)
