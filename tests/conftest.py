"""Fixtures that several test modules share."""

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import tiny


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The command line sets levels; the next test gets them as they were."""
    loggers = [logging.getLogger(name) for name in (None, "vision_reasoner", "evaluation")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random checkpoints (see `tiny`); do not write into it."""
    return tiny.save_bundle(tmp_path_factory.mktemp("checkpoints") / "bundle")


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Five RGB pictures of different sizes and content."""
    return [
        noise(width, height, seed=i)
        for i, (width, height) in enumerate([(96, 64), (40, 90), (64, 64), (150, 50), (80, 81)])
    ]


def peak_memory() -> int:
    """The most memory that this process has used, in bytes; getrusage would count the process that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of blurred random colours."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
