"""A headless chromium for tests, driven through its devtools protocol over two pipes: no further package, no port."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_SECONDS = 120  # seconds for an answer, or for a condition to come true; a busy machine is slow


class Browser:
    """One tab. `problems` has what the page said on its console, every exception, and every request it made."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        ours, theirs = os.pipe(), os.pipe()

        def connect() -> None:  # in the child: it reads commands from 3 and writes answers to 4
            os.dup2(ours[0], 10)
            os.dup2(theirs[1], 11)
            os.dup2(10, 3)
            os.dup2(11, 4)

        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        self.process = subprocess.Popen(
            [CHROMIUM, *arguments, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            close_fds=False,
            preexec_fn=connect,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back = ours[1], theirs[0]
        self.numbers = itertools.count(1)
        self.buffer = b""
        self.session: str | None = None
        self.problems: list[str] = []
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.to)  # which ends it
        os.close(self.back)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self.numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.to, json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.back], [], [], WAIT_SECONDS)
            assert ready, "the browser does not answer"
            read = os.read(self.back, 1 << 20)
            assert read, "the browser has gone"
            self.buffer += read
        line, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        what, about = message.get("method"), message.get("params", {})
        if what == "Network.requestWillBeSent" and not about["request"]["url"].startswith("data:"):
            self.problems.append(f"request: {about['request']['url']}")
        elif what == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {about['exceptionDetails']}")
        elif what == "Runtime.consoleAPICalled":
            self.problems.append(f"console: {about['args']}")
        elif what == "Log.entryAdded":
            self.problems.append(f"log: {about['entry']['text']}")
        return message

    def open(self, page: Path, width: int = 1280, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        """Load a file in a window of that size; the request for the file itself is not a problem."""
        self.visit(page.resolve().as_uri(), width, height, scale, dark)
        self.problems.remove(f"request: {page.resolve().as_uri()}")

    def visit(self, url: str, width: int = 1280, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        """Load an address in a window of that size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise; what it throws fails the test."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + WAIT_SECONDS
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
