"""Measures `vision-reasoner serve` under load, on this machine, with servers that it starts and ends itself.

    python -m evaluation.load                     # p50, p95, requests/s at 1, 8 and 32 clients, one by one and batched
    python -m evaluation.load --soak 2000         # memory over so many requests
    python -m evaluation.load --hostile           # truncated files, bombs, wrong types, 100 MB, slow senders

Every client sends its next request when the last one is answered.
"""

import argparse
import io
import json
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

from PIL import Image

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "assets/airplanes.png"
QUERY = "How many airplanes are there in this image?"
START_SECONDS = 600
MARK = "7d1f0c2b9a"
FORM_TYPE = f"Content-Type: multipart/form-data; boundary={MARK}"


@contextmanager
def server(options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A server of its own on loopback, once it is ready; gives its port and process.

    Raises:
        UsageError: it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vision_reasoner", "serve", "--port", str(port), "--quiet", *options]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() - start > START_SECONDS:
                raise UsageError(f"the server did not start: {' '.join(command)}")
            time.sleep(0.1)
        print(f"ready after {time.monotonic() - start:.1f} s", file=sys.stderr)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def form(image: bytes, query: str) -> bytes:
    """A multipart body whose boundary is MARK."""
    head = f'--{MARK}\r\nContent-Disposition: form-data; name="query"\r\n\r\n{query}\r\n'
    head += f'--{MARK}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return head.encode() + image + f"\r\n--{MARK}--\r\n".encode()


def post(port: int, body: bytes, path: str = "/v1/predict") -> int:
    """The status of a request with a form."""
    connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={MARK}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def clients(
    n: int, total: int, ask: Callable[[], int], on_done: Callable[[int], object] = lambda _: None
) -> list[float]:
    """The seconds of each of `total` requests that `n` clients make, each its next one after the last.

    Raises:
        UsageError: a request was not answered with 200.
    """
    numbers = count(1)
    seconds: list[float] = []
    wrong: list[int] = []

    def run() -> None:
        while not wrong and (number := next(numbers)) <= total:
            start = time.monotonic()
            status = ask()
            seconds.append(time.monotonic() - start)
            if status != 200:
                wrong.append(status)
            on_done(number)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise UsageError(f"a request was answered with {wrong[0]}; see the server's log")
    return seconds


def measure(options: Sequence[str], image: bytes, query: str, n_requests: int) -> None:
    """Print the figures at 1, 8 and 32 clients, without batches and with them."""
    print(f"{'batch':>6} {'clients':>8} {'p50 s':>8} {'p95 s':>8} {'requests/s':>11}")
    body = form(image, query)
    for batch in (1, 8):
        with server([*options, "--batch_size", str(batch)]) as (port, _):
            post(port, body)  # the first one pays for what is set up once
            for n in (1, 8, 32):
                start = time.monotonic()
                seconds = clients(n, max(n_requests, 2 * n), lambda port=port: post(port, body))  # type: ignore[misc]
                rate = len(seconds) / (time.monotonic() - start)
                p95 = statistics.quantiles(seconds, n=20)[-1]
                print(f"{batch:>6} {n:>8} {statistics.median(seconds):>8.2f} {p95:>8.2f} {rate:>11.2f}", flush=True)


def soak(options: Sequence[str], image: bytes, query: str, n_requests: int) -> None:
    """Print the server's memory as it answers: half of the pictures are new to it."""
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    numbers = count()

    def body() -> bytes:
        number = next(numbers)
        changed = picture.copy()
        changed.putpixel((0, 0), (number % 256, number // 256 % 256, number % 2))
        data = io.BytesIO()
        changed.save(data, "PNG", compress_level=1)
        return form(data.getvalue() if number % 2 else image, query)

    with server(options) as (port, process):

        def say(number: int) -> None:
            if number in (1, 100) or number % max(1, n_requests // 8) == 0:
                print(f"after {number:>5} requests: {memory(process) / 1e6:,.0f} MB", flush=True)

        seconds = clients(8, n_requests, lambda: post(port, body()), say)
        print(f"{len(seconds)} requests, all answered; median {statistics.median(seconds):.2f} s")


def memory(process: int) -> int:
    """The bytes that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few kilobytes that says it has `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def hostile(options: Sequence[str], image: bytes, query: str) -> None:
    """Print what the server makes of bad uploads, and that it answers afterwards."""
    uploads = {
        "cut off": image[: len(image) // 3],
        "a bomb": bomb(),
        "a bomb below Pillow's limit": bomb(13_000),
        "no picture": b"%PDF-1.7" + bytes(10_000),
        "empty": b"",
        "100 MB": bytes(100_000_000),
    }
    with server(options) as (port, process):
        before = memory(process)
        for name, data in uploads.items():
            try:
                said = str(post(port, form(data, query)))
            except (BrokenPipeError, ConnectionResetError):
                said = "refused before it was read"
            print(f"{name:>28}: {said}")
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        for connection in slow:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n{FORM_TYPE}\r\n\r\n-"
            connection.sendall(head.encode())
        print(f"{'beside 100 slow senders':>28}: {post(port, form(image, query))}")
        for connection in slow:
            connection.close()
        print(
            f"{'afterwards':>28}: {post(port, form(image, query))}; memory {(memory(process) - before) / 1e6:+,.0f} MB"
        )


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.load", __doc__)
    add = parser.add_argument
    add("--image_path", type=Path, default=IMAGE, help="picture that is asked about; default: the airplanes")
    add("--query", default=QUERY, help="what is asked")
    add("--requests", type=int, default=64, metavar="N", help="for each figure; default: %(default)s")
    add("--soak", type=int, metavar="N", help="memory over N requests instead")
    add("--hostile", action="store_true", help="bad uploads instead")
    add("--server", default="[]", metavar="JSON", help='further options of the server: \'["--device", "cuda"]\'')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""

    def run(arguments: argparse.Namespace) -> int:
        options = [str(option) for option in json.loads(arguments.server)]
        image = arguments.image_path.read_bytes()
        if arguments.soak:
            soak(options, image, arguments.query, arguments.soak)
        elif arguments.hostile:
            hostile(options, image, arguments.query)
        else:
            measure(options, image, arguments.query, arguments.requests)
        return 0

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
