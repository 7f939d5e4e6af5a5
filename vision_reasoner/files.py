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

from vision_reasoner.errors import UsageError, one_line

logger = logging.getLogger(__name__)

LOCK = ".lock"
MAX_NAME_BYTES = 200  # of 255, with room for a number and an ending


def packaged(name: str) -> Path:
    """A file that comes with the code: in the repository, or inside the installed package.

    Args:
        name: its path in the repository, such as "assets/airplanes.png".
    """
    package = Path(__file__).resolve().parent
    return next((path for path in (package.parent / name, package / name) if path.exists()), package.parent / name)


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it into place. Missing folders are made.

    A symbolic link stays one: the file that it points to is replaced. What a killed process left is removed.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        target = path.resolve() if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _part_beside(target)
        try:
            write(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from error


def check_writable(path: Path) -> None:
    """Make the folder of `path` and see whether a file can be written there, before any work is done for it.

    Raises:
        UsageError: it cannot, or `path` is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the path of a file")
    try:
        target = path.resolve() if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _part_beside(target)
        part.touch()
        part.unlink()
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from error


def _part_beside(target: Path) -> Path:
    """A name for a file that becomes `target`, short whatever the target's, after those of dead processes are gone."""
    stem = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
    for left in target.parent.glob(f"{stem}.*.part"):
        if not _is_alive(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)
    return target.with_name(f"{stem}.{os.getpid()}.part")


def _is_alive(process: str) -> bool:
    if not process.isdecimal() or os.name == "nt":
        return True  # not known
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder, which is made if need be. The system lets go when the process ends.

    Raises:
        UsageError: another process writes there, or the folder cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UsageError(f"{folder}: another process is writing here; wait for it, or give another folder") from error
    except (OSError, NotImplementedError) as error:
        raise UsageError(f"{folder}: cannot be written to ({one_line(error)}); give another folder") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
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


def append_jsonl(stream: BinaryIO, records: Iterable[Mapping[str, Any]]) -> None:
    """Add a line of JSON for each record to a file that is open for it, and come back when they are on disk.

    Raises:
        UsageError: they cannot be written; part of them may be, which `filter_jsonl` takes out.
    """
    # ASCII, so that nothing in a record ends its line.
    data = memoryview(b"".join(json.dumps(record, allow_nan=False).encode("ascii") + b"\n" for record in records))
    try:
        while data:  # without the stream's buffer, which would be written again when it is closed
            data = data[os.write(stream.fileno(), data) :]
        os.fsync(stream.fileno())
    except OSError as error:
        raise UsageError(
            f"{stream.name}: cannot be written ({error.strerror or error}); make room, the same command does the rest"
        ) from error


def filter_jsonl(file: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Leave only the lines of JSON that are wanted; one that a crash truncated is taken out.

    Args:
        file: of lines of JSON, whole and ready to be added to afterwards; nothing is done if it is not there.
        keep: called with each whole line's object, in order; says whether it stays.

    Raises:
        UsageError: it cannot be read or written.
    """
    if not file.exists():
        return
    part = file.with_name(f".{file.name}.part")
    changed = False
    try:
        with file.open("rb") as old, part.open("wb") as new:
            for number, line in enumerate(old, start=1):
                record = parse_jsonl_line(line)
                if record is None:
                    logger.warning("%s: line %d is truncated; what it was about is done again", file, number)
                if record is None or not keep(record):
                    changed = True
                    continue
                new.write(line.rstrip(b"\n") + b"\n")
                changed = changed or not line.endswith(b"\n")
            new.flush()
            os.fsync(new.fileno())
        if changed:
            part.replace(file)
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be written ({error.strerror or error}); make room, or give another"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def parse_jsonl_line(line: bytes) -> dict[str, Any] | None:
    """The object in a line of JSON; None where it is not a whole one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unique_stem(stem: str, taken: set[str]) -> str:
    """A file name's stem that can be that of a new file beside those of `taken`, numbered where it is taken.

    Args:
        stem: as it is wanted; one of dots alone, or too long to get an ending, is changed.
        taken: those that are there, in lower case; gets the new one.
    """
    short = _short(stem)
    number, name = 1, short
    while name.lower() in taken:
        number += 1
        name = f"{short}-{number}"
    taken.add(name.lower())
    return name


def _short(stem: str) -> str:
    if not stem.strip("."):
        return "image"
    name = os.fsencode(stem)
    if len(name) <= MAX_NAME_BYTES:
        return stem
    digest = hashlib.sha256(name).hexdigest()[:8]
    return f"{os.fsdecode(name[: MAX_NAME_BYTES - 9]).encode(errors='ignore').decode()}-{digest}"
