"""Serves the model over HTTP, with a page at / to look, correct and label with.

    pip install -e ".[serve]"
    vision-reasoner serve                         # then open http://localhost:8000/
    VISION_REASONER_API_KEY=... vision-reasoner serve --host 0.0.0.0

The page is there at once, answers come when the model is loaded. Nothing is fetched from elsewhere, by the server or
by the page. It listens on this machine alone unless --host says otherwise; with VISION_REASONER_API_KEY set, callers
must know the key. Use a reverse proxy for encryption.
"""

import argparse
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vision_reasoner.cli import add_model_options, make_parser, model_settings, run_command, silence_transformers
from vision_reasoner.errors import ExitCode, UsageError, one_line

if TYPE_CHECKING:
    from vision_reasoner.serving.guard import Limits

logger = logging.getLogger("vision_reasoner.serving.command")

KEY = "VISION_REASONER_API_KEY"
MAX_CONNECTIONS = 256  # open ones; further ones get 503


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser("vision-reasoner serve", __doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; default: this machine alone")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add(
        "--project_dir",
        type=Path,
        default=Path("corrections"),
        metavar="DIR",
        help="for what people correct; default: corrections",
    )
    add("--batch_size", type=int, metavar="N", help="requests answered together; default: 8")
    add(
        "--max_waiting",
        type=int,
        default=64,
        metavar="N",
        help="requests that wait; more get 429; default: %(default)s",
    )
    add("--max_upload_mb", type=int, default=32, metavar="MB", help="of a picture's file; default: %(default)s")
    add("--timeout", type=float, default=300.0, metavar="SECONDS", help="for an answer; default: %(default)g")
    add("--log_queries", action="store_true", help="queries in the log, too")
    add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it; what runs then is finished.

    Raises:
        UsageError: a library is missing, or an option has no such value.
        CheckpointError: a checkpoint is missing or does not load.
    """
    try:
        import uvicorn

        from vision_reasoner.serving.app import create_app
        from vision_reasoner.serving.service import Service
    except ImportError as error:
        raise UsageError(f'this needs {error.name}: pip install -e ".[serve]"') from error
    from vision_reasoner.model import VisionReasoner

    limits = limits_of(arguments)
    model = VisionReasoner.from_settings(*model_settings(arguments))
    if not arguments.verbose:
        silence_transformers()

    def stop() -> None:
        server.should_exit = True

    service = Service(model, limits, on_failure=stop)
    config = uvicorn.Config(
        create_app(service),
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(arguments.timeout),
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    with listening(arguments.host, arguments.port) as opened:
        shown = "localhost" if limits.is_loopback else arguments.host
        logger.info("http://%s:%d/ (the model is being loaded)", shown, opened.getsockname()[1])
        with suppress(KeyboardInterrupt):  # how a server is ended; what was under way is done by then
            server.run(sockets=[opened])
    if service.failure is not None:
        raise service.failure
    return ExitCode.OK


def limits_of(arguments: argparse.Namespace) -> "Limits":
    """What the options let others do; the key is the environment's. Warns where everybody may ask.

    Raises:
        UsageError: a limit is below 1.
    """
    from vision_reasoner.serving.guard import Limits

    for name in ("max_waiting", "max_upload_mb", "timeout"):
        if not getattr(arguments, name) >= 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    limits = Limits(
        host=arguments.host,
        api_key=os.environ.get(KEY) or None,
        max_upload_bytes=arguments.max_upload_mb << 20,
        seconds=arguments.timeout,
        max_waiting=arguments.max_waiting,
        log_queries=arguments.log_queries,
        project_dir=arguments.project_dir,
    )
    if not limits.is_loopback and limits.api_key is None:
        logger.warning("warning: whoever reaches %s can use this server; set %s to a secret", limits.host, KEY)
    return limits


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there.

    Raises:
        UsageError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({one_line(error)}); give another --port or --host"
        ) from error
    with opened:
        yield opened
