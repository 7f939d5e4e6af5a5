"""OpenAI-compatible servers: one of a few lines, which says and fails what it is told to, and that of transformers."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

MODEL = "some/model"
VLLM_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiling what finds log-probabilities takes longer than all that is asked
}


@dataclass
class Says:
    """One answer of the server.

    Attributes:
        content, reasoning: the message; reasoning under the name `reasoning_name`.
        finish: why it ended.
        tokens: (text, log-probability) of each token, or None for a server that does not tell.
        status: of the answer; from 400 on `body` is what is said about it.
        body: sent as it is, instead of a completion.
        content_type: of the body.
        seconds: waited first, and between the pieces of a stream.
        cut: whether the connection ends in the middle.
    """

    content: str | None = ""
    reasoning: str | None = None
    reasoning_name: str = "reasoning_content"
    finish: str | None = "stop"
    tokens: list[tuple[str, float]] | None = None
    status: int = 200
    body: str | None = None
    content_type: str = "application/json"
    seconds: float = 0.0
    cut: bool = False


@dataclass
class Server:
    """The server's address, and what it was asked."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: [MODEL])
    version: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


Answer = Callable[[int, dict[str, Any]], Says]
"""The answer to a request, by its number from 0 and its body."""


def text_of(request: Mapping[str, Any]) -> str:
    """The text of a request's user turn."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def image_of(request: Mapping[str, Any]) -> Image.Image:
    """The image of a request's user turn, which comes first in it."""
    kind, data = request["messages"][-1]["content"][0]["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """A server on this machine that answers by `answer`."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/version" and server.version:
                self._send(json.dumps({"version": server.version}))
            elif self.path == "/version":
                self._send("no", 404, "text/plain")
            else:
                models = [{"id": name, "owned_by": "toys"} for name in server.models]
                self._send(json.dumps({"object": "list", "data": models}))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.requests)
                server.requests.append(request)
                server.keys.append(self.headers["Authorization"])
                server.under_way += 1
                server.most_at_once = max(server.most_at_once, server.under_way)
            try:
                self._answer(answer(number, request), stream=bool(request.get("stream")))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with server.lock:
                    server.under_way -= 1

        def _answer(self, says: Says, *, stream: bool) -> None:
            stopping.wait(says.seconds)
            if says.body is not None or says.status != 200:
                self._send(says.body or json.dumps({"error": {"message": "no"}}), says.status, says.content_type)
            elif stream:
                self._stream(says)
            else:
                text = json.dumps({"choices": [_choice(says, "message")], "usage": {"completion_tokens": 7}})
                self._send(text, cut=says.cut)

        def _send(
            self, text: str, status: int = 200, content_type: str = "application/json", *, cut: bool = False
        ) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

        def _stream(self, says: Says) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            pieces = [Says(None, letter, says.reasoning_name, None) for letter in says.reasoning or ""]
            pieces += [Says(letter, finish=None) for letter in says.content or ""]
            for piece in pieces[: len(pieces) // 2] if says.cut else pieces:
                stopping.wait(says.seconds)
                self._event({"choices": [_choice(piece, "delta")]})
            if not says.cut:
                self._event({"choices": [_choice(Says(finish=says.finish, tokens=says.tokens), "delta")]})
                self._event({"choices": [], "usage": {"completion_tokens": 7}})
                self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, data: object) -> None:
            self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
            self.wfile.flush()

    stopping = threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        stopping.set()
        http.shutdown()
        thread.join()
        http.server_close()


def _choice(says: Says, name: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": says.content}
    if says.reasoning is not None:
        said[says.reasoning_name] = says.reasoning
    tokens = None
    if says.tokens is not None:
        tokens = {"content": [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in says.tokens]}
    return {"index": 0, name: said, "finish_reason": says.finish, "logprobs": tokens}


@contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    """`transformers serve` with the checkpoint in `folder`; gives its address."""
    with started(transformers_command(folder), log) as (address, _):
        yield address


def transformers_command(folder: Path) -> list[str]:
    """The command that serves the checkpoint in `folder`."""
    transformers = str(Path(sys.executable).with_name("transformers"))
    return [transformers, "serve", str(folder), "--device", "cpu", "--dtype", "float32"]


@contextmanager
def vllm_serve(python: str, folder: Path, log: Path, *options: str) -> Iterator[str]:
    """vLLM's server with the checkpoint in `folder`, by the `python` of its environment; gives its address."""
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--dtype", "float32"]
    command += ["--enforce-eager", "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
    with started([*command, *options], log, **VLLM_ENVIRONMENT, VLLM_CPU_KVCACHE_SPACE="1") as (address, _):
        yield address


@contextmanager
def started(command: Sequence[str], log: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The server that `command` starts, given a host and a port, once it is healthy: its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=output,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # those that it has started, too
            process.wait(30)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server does not start: {log.read_text()[-2000:]}")
