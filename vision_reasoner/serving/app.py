"""The addresses: what is asked for at each, and what comes back."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vision_reasoner import __version__
from vision_reasoner.errors import UsageError, VisionReasonerError
from vision_reasoner.models.router import Route
from vision_reasoner.results import Instance, Prediction, Status, Task
from vision_reasoner.serving import examples
from vision_reasoner.serving.batching import FullError, Job
from vision_reasoner.serving.downloads import download_of
from vision_reasoner.serving.guard import PAGE_FILES, Guard, error_body
from vision_reasoner.serving.pictures import Picture
from vision_reasoner.serving.reference import reference_page
from vision_reasoner.serving.requests import (
    ExportBody,
    PredictFields,
    ResultBody,
    RouteBody,
    SegmentFields,
    event,
    problems,
    read_fields,
    status_of,
    words_of,
)
from vision_reasoner.serving.service import Service

logger = logging.getLogger(__name__)

PING_SECONDS = 10.0  # without a word, after which a stream says that it is alive
EXAMPLES = {
    "donuts.png": "please segment the donuts",
    "airplanes.png": "How many airplanes are there in this image?",
    "stand_higher.png": "find what can make the woman stand higher?",
    "company_name.png": "What is name of the company?",
}
PAGE = files("vision_reasoner.serving") / "page"
MEDIA_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript"}


def create_app(service: Service) -> FastAPI:
    """The application around a service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await to_thread.run_sync(service.close)

    app = FastAPI(
        title="VisionReasoner",
        version=__version__,
        description="Finds, segments and counts what is asked for in a picture, and answers questions about it.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, limits=service.limits, metrics=service.metrics)
    _add_errors(app)
    _add_pages(app, service)
    _add_work(app, service)
    _add_results(app, service)
    _add_state(app, service)
    return app


def example_files() -> dict[str, Path]:
    """The example pictures that are there: all of them beside a clone, one where the package is installed."""
    package = Path(__file__).resolve().parents[1]
    found = {
        name: [p for p in (package.parent / "assets" / name, package / "assets" / name) if p.is_file()]
        for name in EXAMPLES
    }
    return {name: places[0] for name, places in found.items() if places}


def _error(request: Request, status: int, kind: str, words: str, **headers: str) -> JSONResponse:
    return JSONResponse(error_body(kind, words, request.state.request_id), status, headers=headers or None)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(VisionReasonerError)
    async def ours(request: Request, error: VisionReasonerError) -> JSONResponse:
        return _error(request, status_of(error), type(error).__name__, words_of(error))

    @app.exception_handler(FullError)
    async def full(request: Request, error: FullError) -> JSONResponse:
        return _error(request, 429, "Busy", str(error), **{"Retry-After": str(round(error.seconds))})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _error(request, 422, "Invalid", problems(error.errors()))

    @app.exception_handler(ValidationError)
    async def invalid_fields(request: Request, error: ValidationError) -> JSONResponse:
        return _error(request, 422, "Invalid", problems(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return _error(request, error.status_code, "HTTP", str(error.detail))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:  # noqa: ARG001
        return _error(request, 499, "Gone", "the client has gone")  # for the log; nobody reads it

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return _error(request, 500, "Unforeseen", words_of(error))


def _add_pages(app: FastAPI, service: Service) -> None:
    def page(name: str) -> Callable[[], Response]:
        content = (PAGE / name).read_bytes()
        return lambda: Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]])

    for path, name in PAGE_FILES.items():
        app.add_api_route(path, page(name), include_in_schema=False)

    @app.get("/examples.json", include_in_schema=False)
    def listed() -> list[dict[str, str]]:
        return [{"image": f"/examples/{name}", "query": EXAMPLES[name]} for name in example_files()]

    @app.get("/examples/{name}", include_in_schema=False)
    def example(name: str) -> Response:
        if (file := example_files().get(name)) is None:
            raise HTTPException(404, "there is no such example")
        return Response(file.read_bytes(), media_type="image/png")

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(status_code=204)

    @app.get("/docs", include_in_schema=False)
    def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi(), needs_key=service.limits.api_key is not None))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the server runs", tags=["state"], responses=examples.HEALTH)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"} | service.state()

    @app.get("/readyz", summary="Whether the model is loaded", tags=["state"], responses=examples.READY)
    async def readyz() -> JSONResponse:
        return JSONResponse(service.state(), 200 if service.ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus", tags=["state"])
    def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", summary="What answers", tags=["state"], responses=examples.MODELS)
    async def models() -> dict[str, Any]:
        parts = {part: Path(source.partition(" at ")[0]).name for part, source in service.model.sources.items()}
        saving = service.corrections is not None
        about = {"id": service.model.settings.model, "object": "model", "parts": parts, "version": __version__}
        return {"object": "list", "data": [about], "saves_corrections": saving}


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _note(request: Request, service: Service, **entry: Any) -> None:
    """Add to the log's line of a request; its query only where that was asked for."""
    if not service.limits.log_queries:
        entry.pop("query", None)
    request.state.log.update(entry)


def _result(prediction: Prediction, picture: Picture, request: Request) -> dict[str, Any]:
    warnings = [*picture.notes, *prediction.warnings]
    ids = {"image_id": picture.id, "request_id": request.state.request_id}
    return prediction.to_json() | {"warnings": warnings} | ids


def _add_work(app: FastAPI, service: Service) -> None:
    @app.post("/v1/route", summary="The task of a request", tags=["work"], responses=examples.ROUTE)
    async def route(body: RouteBody, request: Request) -> dict[str, Any]:
        job = service.routes.submit(body.query, _client(request))
        found: Route = await service.wait(request, service.routes, job)
        _note(request, service, task=found.task, query=body.query)
        return {"task": found.task, "warning": found.warning}

    @app.post(
        "/v1/predict",
        summary="Find, segment, count or answer",
        description="With `stream`, events: `accepted`, `text` (the reply from character `start` on), and at the end "
        "`result` or `error`. Masks are COCO's compressed run lengths.",
        tags=["work"],
        openapi_extra=examples.body_of(PredictFields, examples.PREDICT),
        responses=examples.PREDICTION,
    )
    async def predict(request: Request) -> Response:
        data, fields = await read_fields(request, service.limits.max_upload_bytes)
        wanted = PredictFields.model_validate(fields)
        picture = await service.picture(data, wanted.image_id)
        task = None if wanted.task == "auto" else Task(wanted.task)
        job = service.predictions.submit((picture, wanted.query, task), _client(request), cost=picture.n_pixels)
        _note(request, service, image_bytes=len(picture.data), query=wanted.query)
        if wanted.stream:
            events = _events(service, job, picture, request)
            return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        prediction = await service.wait(request, service.predictions, job)
        _note(request, service, task=prediction.task, outcome=prediction.status, count=prediction.count)
        return JSONResponse(_result(prediction, picture, request))

    @app.post(
        "/v1/segment",
        summary="Masks for boxes and clicks",
        tags=["work"],
        openapi_extra=examples.body_of(SegmentFields, examples.SEGMENT),
        responses=examples.SEGMENTATION,
    )
    async def segment(request: Request) -> dict[str, Any]:
        data, fields = await read_fields(request, service.limits.max_upload_bytes)
        wanted = SegmentFields.model_validate(fields)
        picture = await service.picture(data, wanted.image_id)
        job = service.segments.submit(
            lambda: service.model.segment(picture.image, wanted.boxes, wanted.points), _client(request)
        )
        found: list[Instance] = await service.wait(request, service.segments, job)
        objects = Prediction(picture.image.size, "", Task.SEGMENTATION, instances=found).to_json()["instances"]
        return {"instances": objects, "image_id": picture.id, "request_id": request.state.request_id}


async def _events(
    service: Service, job: Job[Any, Prediction], picture: Picture, request: Request
) -> AsyncIterator[str]:
    """The events of a job; closing this iterator, as the server does when the client goes, cancels it."""
    ids = {"image_id": picture.id, "request_id": request.state.request_id}
    seen, end = "", time.monotonic() + service.limits.seconds
    try:
        yield event("accepted", ids | {"waiting": service.predictions.waiting})
        while not job.done:
            if (left := end - time.monotonic()) <= 0:
                raise HTTPException(504, f"there was no result within {service.limits.seconds:g} seconds")
            await job.wait(min(left, PING_SECONDS))
            text = job.text
            if text != seen:
                start = len(seen) if text.startswith(seen) else 0
                yield event("text", {"start": start, "text": text[start:]})
                seen = text
            elif not job.done:
                yield ": waiting\n\n"
        prediction = await job.result()
        _note(request, service, task=prediction.task, outcome=prediction.status, count=prediction.count)
        yield event("result", _result(prediction, picture, request))
    except HTTPException as error:
        yield event("error", error_body("HTTP", str(error.detail), request.state.request_id))
    except Exception as error:
        if not isinstance(error, VisionReasonerError | FullError):
            logger.exception("request %s", request.state.request_id)
        words = str(error) if isinstance(error, FullError) else words_of(error)
        yield event("error", error_body(type(error).__name__, words, request.state.request_id))
    finally:
        if not job.done:
            service.predictions.cancel(job)


def _add_results(app: FastAPI, service: Service) -> None:
    async def told(body: ResultBody) -> tuple[Picture, Prediction]:
        picture = await service.picture(None, body.image_id)
        task = Task(body.task)
        stated = task is Task.COUNTING and not body.objects  # a reply may state a count and list nothing
        answer = body.answer if task is Task.VQA or stated else None
        status = Status.OK if body.objects or answer else Status.NONE
        try:
            instances = [found.instance() for found in body.objects]
            return picture, Prediction(
                picture.image.size, body.query, task, body.thinking, status=status, instances=instances, answer=answer
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    @app.post("/v1/export", summary="A result as a file", tags=["results"], responses=examples.EXPORT)
    async def export(body: ExportBody, request: Request) -> Response:
        picture, prediction = await told(body)
        job = service.tools.submit(lambda: download_of(picture, prediction, body.format), _client(request))
        name, media_type, data = await service.wait(request, service.tools, job)
        return Response(data, media_type=media_type, headers={"Content-Disposition": _attachment(name)})

    @app.post("/v1/corrections", summary="Save what is right", tags=["results"], responses=examples.CORRECTION)
    async def correct(body: ResultBody, request: Request) -> dict[str, Any]:
        if service.corrections is None:
            raise HTTPException(403, "this server saves no corrections; see --project_dir")
        picture, prediction = await told(body)
        save = service.corrections.save
        job = service.tools.submit(lambda: save(picture, prediction), _client(request))
        n = await service.wait(request, service.tools, job)
        _note(request, service, task=prediction.task, count=prediction.count)
        return {"saved": n, "file": f"{service.corrections.folder.name}/{prediction.task}.jsonl"}


def _attachment(name: str) -> str:
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
