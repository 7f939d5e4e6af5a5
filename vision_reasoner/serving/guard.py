"""What holds for every request, before any of it is read: who may ask, how much, how long; ids, log and metrics.

On loopback without a key the danger is a web page elsewhere that makes a browser on this machine ask. So requests must
name this host (a foreign name that was made to point here is refused), and must not come from a page of another origin.
"""

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
PAGE_FILES = {"/": "page.html", **{f"/{name}": name for name in ("page.css", "page.js", "service.js", "view.js")}}
STATE_PATHS = ("/healthz", "/readyz", "/metrics")
OPEN_PATHS = (*PAGE_FILES, "/favicon.ico", "/examples.json", "/docs", "/openapi.json", "/healthz", "/readyz")
WORK_PATHS = tuple(f"/v1/{name}" for name in ("models", "route", "predict", "segment", "export", "corrections"))
EXAMPLES = "/examples/"  # pictures
MAX_DIGITS = 15  # of a Content-Length that is read as a number
BODY_OVERHEAD = 1 << 16  # bytes of a body besides the picture
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_REQUEST_ID = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class Limits:
    """What a server lets others do.

    Attributes:
        host: the address that it listens on.
        api_key: what callers must know; None: nothing.
        max_upload_bytes: of a picture's file.
        upload_seconds: in which a request's body has to arrive.
        seconds: after which a request is given up.
        max_waiting: requests that wait at most.
        log_queries: whether queries are logged.
        project_dir: where corrections are saved; None: not at all.
    """

    host: str = "127.0.0.1"
    api_key: str | None = field(default=None, repr=False)
    max_upload_bytes: int = 32 << 20
    upload_seconds: float = 60.0
    seconds: float = 300.0
    max_waiting: int = 64
    log_queries: bool = False
    project_dir: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can ask."""
        return self.host in LOOPBACK

    @property
    def max_body_bytes(self) -> int:
        """A picture as base64 is a third longer."""
        return self.max_upload_bytes * 4 // 3 + BODY_OVERHEAD


class Metrics:
    """What is counted, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "vision_reasoner_"
        self.requests = Counter(
            f"{prefix}requests_total", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            f"{prefix}request_seconds",
            "Seconds from a request to the end of its answer",
            ["path"],
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
            registry=self.registry,
        )
        self.under_way = Gauge(
            f"{prefix}requests_under_way", "Requests that are not answered yet", registry=self.registry
        )
        self.batches = Histogram(
            f"{prefix}batch_size", "Requests answered together", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )


def error_body(kind: str, message: str, request_id: str) -> dict[str, Any]:
    """The body of every answer that is an error."""
    return {"error": {"type": kind, "message": message, "request_id": request_id}}


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        """Guard `app`."""
        self.app, self.limits, self.metrics = app, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, headers = time.monotonic(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        entry: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=request_id, log=entry)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "X-Request-Id": request_id}.items():
                    out.setdefault(name, value)
            await send(message)

        path = scope["path"] if scope["path"] in (*OPEN_PATHS, "/metrics", *WORK_PATHS) else "other"
        self.metrics.under_way.inc()
        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                code, kind, text = refusal
                response = JSONResponse(error_body(kind, text, request_id), code)
                await response(scope, receive, answer)
            else:
                await self.app(scope, self._limited(receive), answer)
        finally:
            self.metrics.under_way.dec()
            seconds = time.monotonic() - start
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            line = {"request_id": request_id, "method": scope["method"], "path": path, "status": status}
            line |= {"seconds": round(seconds, 3), "client": (scope.get("client") or ("",))[0]} | entry
            logger.log(logging.DEBUG if path in STATE_PATHS else logging.INFO, "%s", json.dumps(line))

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str, str] | None:
        """Status, kind and words where a request is refused by its headers alone."""
        try:
            host = urlsplit(f"//{headers.get('host', '')}")
            origin = urlsplit(headers["origin"]).netloc if "origin" in headers else None
        except ValueError:
            return 403, "Forbidden", "the Host or Origin of this request is none"
        if self.limits.is_loopback and host.hostname not in ("localhost", "127.0.0.1", "::1"):
            return 403, "Forbidden", "this server answers to localhost alone; see --host"
        if origin is not None and origin != host.netloc:
            return 403, "Forbidden", "requests from pages of other origins are refused"
        if self.limits.api_key is not None and path not in OPEN_PATHS and not path.startswith(EXAMPLES):
            scheme, _, key = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(key.encode("latin-1"), self.limits.api_key.encode())  # as it was sent
            if scheme.lower() != "bearer" or not right:
                return 401, "Unauthorized", "this server wants a key: Authorization: Bearer KEY"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > MAX_DIGITS or int(length) > self.limits.max_body_bytes:
            return 413, "TooLarge", self._too_large()
        return None

    def _too_large(self) -> str:
        return f"the picture has more than {self.limits.max_upload_bytes:,} bytes; give a smaller one"

    def _limited(self, receive: Receive) -> Receive:
        """`receive` that fails where a body grows too large or takes too long."""
        n_bytes, complete = 0, False
        deadline = time.monotonic() + self.limits.upload_seconds

        async def limited() -> Message:
            nonlocal n_bytes, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, "the picture took too long to arrive") from None
            n_bytes += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if n_bytes > self.limits.max_body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited
