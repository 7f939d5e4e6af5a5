"""Property tests in a process with limits: whatever a reply or a row says, reading it takes little time and memory.

    python -m tests.support.limited

A hang ends it by SIGXCPU, memory without bounds by MemoryError; either makes the exit code other than 0.
"""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation import truth
from vision_reasoner.errors import VisionReasonerError
from vision_reasoner.masks import decode_mask
from vision_reasoner.parsing import parse_reply, split_thinking, stated_count

SECONDS = 60  # of computing; what is below takes about 10
MEMORY = 512 << 20  # beyond what the imports take

MARKS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    ",",
    ":",
    " ",
    "\n",
    "\\",
    '\\"',
    "1,",
    "-",
    ".",
    "9" * 40,
    "e9",
    "“",
    "，",
    "\ud800",
]
WORDS = [
    "bbox_2d",
    '"bbox_2d": [',
    '"label": "',
    '{"bbox_2d": [1,2,30,40]}',
    '{"a":',
    "NaN",
    "null",
    "there are ",
    "\x00",
]
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "```json", "```"]
UNITS = st.lists(st.sampled_from(MARKS + WORDS + TAGS), min_size=1, max_size=4).map("".join)
REPLIES = st.lists(st.tuples(UNITS, st.integers(1, 3000)), min_size=1, max_size=6).map(
    lambda parts: "".join(unit * times for unit, times in parts)[:20_000]
)

NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, 1 << 31, 1 << 62, -1, 0]))
LONG = ["[" * 9000, "{" * 9000, '["a"]', "['a']", "9" * 5000, "0" * 9000, "P"]
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(LONG))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.binary(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.sampled_from(["size", "counts", "bytes", "path", "answer"]), inner, max_size=4),
    ),
    max_leaves=20,
)
SIDES = st.one_of(NUMBERS, st.sampled_from([1, 20, 46340, 1 << 16, 10**5, 10**9]))
RUNS = st.fixed_dictionaries(
    {
        "size": st.lists(SIDES, max_size=3),
        "counts": st.one_of(TEXTS, st.text("0123456789:;<=>?@PQo`", max_size=40), st.lists(NUMBERS, max_size=6)),
    }
)
READERS: tuple[Callable[..., Any], ...] = (
    truth.mask_of,
    truth.boxes_of,
    truth.point_of,
    truth.count_of,
    truth.answers_of,
    truth.id_of,
    truth.text_of,
)

bounded = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@bounded
@given(text=REPLIES, fence=st.booleans())
def read_reply(text: str, fence: bool) -> None:
    """Nothing is raised."""
    parse_reply(text, model_size=(840, 840), image_size=(640, 480), grammar="fence" if fence else "answer")
    split_thinking(text)
    stated_count(text)


@bounded
@given(value=st.one_of(VALUES, RUNS))
def read_truth(value: object) -> None:
    """Only errors of ours are raised; a mask that is accepted can be drawn."""
    for read in READERS:
        try:
            found = read({"field": value}, "field")
        except (truth.FieldError, VisionReasonerError):
            continue
        if read is truth.mask_of and found["size"][0] * found["size"][1] < 1 << 24:
            assert decode_mask(found).shape == tuple(found["size"])


def main() -> None:
    """Set the limits and try."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    read_reply()
    read_truth()


if __name__ == "__main__":
    main()
