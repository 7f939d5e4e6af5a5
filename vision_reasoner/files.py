"""Files that an interruption cannot spoil: written whole or not at all, or as lines that are only added to."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vision_reasoner.errors import UsageError

logger = logging.getLogger(__name__)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it into place. Missing folders are made.

    Raises:
        UsageError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when it is filled; until then the old one stays."""
    scratch, old = (folder.with_name(f".{folder.name}.{ending}") for ending in ("part", "old"))
    if old.is_dir() and not folder.is_dir():  # a kill came between the two renames below
        old.rename(folder)
    for left in (scratch, old):
        shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.is_dir():
            folder.rename(old)
        scratch.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def add_lines(stream: BinaryIO, records: Iterable[Mapping[str, Any]]) -> None:
    """Add a line of JSON for each record and come back when they are on disk."""
    # ASCII, so that nothing in a record ends its line.
    stream.write(b"".join(json.dumps(record, allow_nan=False).encode("ascii") + b"\n" for record in records))
    stream.flush()
    os.fsync(stream.fileno())


def keep_lines(file: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Leave only the lines of JSON that are wanted; one that a crash tore is taken out.

    Args:
        file: of lines of JSON, whole and ready to be added to afterwards; nothing is done if it is not there.
        keep: called with each whole line's object, in order; says whether it stays.
    """
    if not file.exists():
        return
    part = file.with_name(f".{file.name}.part")
    changed = False
    try:
        with file.open("rb") as old, part.open("wb") as new:
            for number, line in enumerate(old, start=1):
                record = parse_line(line)
                if record is None:
                    logger.warning("%s: line %d is torn; what it was about is done again", file, number)
                if record is None or not keep(record):
                    changed = True
                    continue
                new.write(line.rstrip(b"\n") + b"\n")
                changed = changed or not line.endswith(b"\n")
            new.flush()
            os.fsync(new.fileno())
        if changed:
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object in a line of JSON; None where it is not a whole one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
