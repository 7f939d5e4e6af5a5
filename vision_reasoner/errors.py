"""Every error that this package raises on purpose, and the exit code that the command line gives for it.

A message is one line: what happened, to which file or value, and what to do next.
A reply that cannot be used is data (a `Status` and warnings), not an error, until somebody insists on a result.
"""

import unicodedata
from enum import IntEnum

MAX_MESSAGE = 500  # characters of a message that is shown


class ExitCode(IntEnum):
    """What a command tells the shell."""

    OK = 0
    """Fine; "nothing found" is fine, too."""
    FAILURE = 1
    """Something unforeseen."""
    USAGE = 2
    """The call itself is wrong."""
    INPUT = 3
    """An image, a query or a data set cannot be used."""
    CHECKPOINT = 4
    """A checkpoint is missing, incomplete or of the wrong kind."""
    ENGINE = 5
    """A server that runs a model cannot be reached, or does not answer as it should."""
    REPLY = 6
    """The reply could not be used."""
    SOME_FAILED = 7
    """Some of many images, samples or checks failed."""
    INTERRUPTED = 130
    """128 + SIGINT, as shells say it."""


class VisionReasonerError(Exception):
    """The base of all; catch this one to catch every error of ours."""

    exit_code = ExitCode.FAILURE


class UsageError(VisionReasonerError):
    """The call itself is wrong (an unknown option, two options that exclude each other): change the call."""

    exit_code = ExitCode.USAGE


class ImageError(VisionReasonerError):
    """An image cannot be worked on (missing, damaged, too large): give another."""

    exit_code = ExitCode.INPUT


class QueryError(VisionReasonerError):
    """A query cannot be used (empty, not valid Unicode, has special tokens, asks for editing): ask in other words."""

    exit_code = ExitCode.INPUT


class DataError(VisionReasonerError):
    """A data set or an annotation file cannot be used (missing, of another format, damaged): give the right one."""

    exit_code = ExitCode.INPUT


class CheckpointError(VisionReasonerError):
    """A checkpoint is missing, incomplete or of the wrong kind: download it or point to the right folder."""

    exit_code = ExitCode.CHECKPOINT


class EngineError(VisionReasonerError):
    """A server that runs a model cannot be reached, refuses or breaks off: start it, or look at what it says."""

    exit_code = ExitCode.ENGINE


class ReplyError(VisionReasonerError):
    """A model's reply could not be used where a result was insisted on: look at the raw reply."""

    exit_code = ExitCode.REPLY


def printable(text: str, *, one_line: bool = False) -> str:
    """`text` with control characters as escapes, so that a terminal shows them instead of acting on them.

    Line breaks and tabs stay, but for `one_line`.
    """
    kept = "" if one_line else "\n\t"
    return "".join(
        character if character in kept or unicodedata.category(character) != "Cc" else repr(character)[1:-1]
        for character in text
    )


def one_line(error: BaseException) -> str:
    """What went wrong, for people: the first line of the message, and the kind of error where it is none of ours."""
    lines = str(error).strip().splitlines()
    message = lines[0][:MAX_MESSAGE] if lines else "no message"
    return message if isinstance(error, VisionReasonerError) else f"{type(error).__name__}: {message}"
