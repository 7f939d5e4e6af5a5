"""Every error that this package raises on purpose, and the exit code that the command line gives for it.

A message is one line: what happened, to which file or value, and what to do next.
A reply that cannot be used is data (a `Status` and warnings), not an error, until somebody insists on a result.
"""


class VisionReasonerError(Exception):
    """The base of all; catch this one to catch every error of ours."""

    exit_code = 1


class UsageError(VisionReasonerError):
    """The call itself is wrong (an unknown option, two options that exclude each other): change the call."""

    exit_code = 2


class ImageError(VisionReasonerError):
    """A picture or a query cannot be worked on (missing, damaged, too large, asks for editing): give another."""

    exit_code = 3


class DataError(VisionReasonerError):
    """A data set or an annotation file cannot be used (missing, of another format, damaged): give the right one."""

    exit_code = 3


class CheckpointError(VisionReasonerError):
    """A checkpoint is missing, incomplete or of the wrong kind: download it or point to the right folder."""

    exit_code = 4


class ReplyError(VisionReasonerError):
    """A model's reply could not be used where a result was insisted on: look at the raw reply."""

    exit_code = 6


def one_line(error: BaseException) -> str:
    """What went wrong, for people: the first line of the message, and the kind of error where it is none of ours."""
    lines = str(error).strip().splitlines()
    message = lines[0][:500] if lines else "no message"
    return message if isinstance(error, VisionReasonerError) else f"{type(error).__name__}: {message}"
