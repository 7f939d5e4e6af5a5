"""The server on a port of its own, in a thread, with a model that needs no weights; and a plain client."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from tests.test_model import Fills
from vision_reasoner import VisionReasoner
from vision_reasoner.models.engine import Watch
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.models.router import Route
from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.results import Task
from vision_reasoner.serving.app import create_app
from vision_reasoner.serving.command import listening
from vision_reasoner.serving.guard import Limits
from vision_reasoner.serving.service import Service

REPLY = (
    '<think>I look: (210,210) and [420,420,630,630].</think><answer>[{"bbox_2d": [84, 84, 420, 420], "point_2d": '
    '[210, 210]}, {"bbox_2d": [420, 420, 630, 630], "point_2d": [500, 500]}]</answer>'
)
WAIT_SECONDS = 60


class Writes:
    """A reasoner that writes REPLY in pieces: "nothing" has no objects, "fail" raises, "slow" writes until stopped."""

    dialect = VISION_REASONER

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.stopped = threading.Event()

    def ask(
        self, images: Sequence[Image.Image], queries: Sequence[str], *, watch: Watch | None = None, **options: Any
    ) -> list[Reply]:
        del images, options
        self.batches.append(list(queries))
        self.gate.wait(WAIT_SECONDS)
        if "fail" in queries:
            raise RuntimeError("a secret of the server")
        texts = ["<think>Nothing.</think><answer>[]</answer>" if q == "nothing" else REPLY for q in queries]
        assert watch is not None
        assert watch.on_text is not None
        while "slow" in queries:
            watch.on_text(0, "<think>I")
            if watch.stopped:
                self.stopped.set()
                break
            time.sleep(0.01)
        for i, text in enumerate(texts):
            for end in (9, 20, len(text)):
                watch.on_text(i, text[:end])
        return [Reply(text, (840, 840)) for text in texts]


class Routes:
    """A router: "edit" is none of the tasks."""

    def route_batch(self, queries: Sequence[str]) -> list[Route]:
        asked = [None if q == "edit" else Task.SEGMENTATION for q in queries]
        return [Route(task, "#### 1", None if task else "it asks for editing") for task in asked]


class Client:
    """Asks a server."""

    def __init__(self, port: int, reasoner: Any, segmenter: Any, service: Service) -> None:
        self.port, self.reasoner, self.segmenter, self.service = port, reasoner, segmenter, service
        self.url = f"http://localhost:{port}/"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("localhost", self.port, timeout=WAIT_SECONDS)

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body."""
        connection = self.connect()
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def json(self, path: str, data: Any = None) -> tuple[int, Any]:
        """Status and JSON of a request with JSON."""
        body = None if data is None else json.dumps(data).encode()
        status, _, content = self.ask(path, body, {"Content-Type": "application/json"} if body else {})
        return status, json.loads(content)

    def form(self, path: str, image: bytes | None = None, **fields: str) -> tuple[int, Any]:
        """Status and JSON of a request with a form."""
        status, _, content = self.ask(path, *form_of(image, **fields))
        return status, json.loads(content)


def form_of(image: bytes | None, **fields: str) -> tuple[bytes, dict[str, str]]:
    """A multipart body and its headers."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
    ]
    if image is not None:
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        parts.append(head.encode() + image + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={mark}"}


@contextmanager
def serving(project_dir: Path | None = None, model: VisionReasoner | None = None, **limits: Any) -> Iterator[Client]:
    """A server that is ready; by default of `Writes`, `Routes` and `Fills`."""
    reasoner, segmenter = Writes(), Fills()
    served = model or VisionReasoner(reasoner, Routes(), segmenter, max_image_pixels=1_000_000)
    service = Service(served, Limits(project_dir=project_dir, **limits))
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), log_config=None, access_log=False, timeout_graceful_shutdown=WAIT_SECONDS)
    )
    with listening("127.0.0.1", 0) as opened:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            wait_until(lambda: service.ready or service.failure is not None)
            yield Client(opened.getsockname()[1], reasoner, segmenter, service)
        finally:
            reasoner.gate.set()
            server.should_exit = True
            thread.join()


def wait_until(holds: Any) -> None:
    """Wait until a function gives something true."""
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
