"""A model's reply, as text, becomes thinking and instances in pixels of the original image.

Whatever the text, reading it neither raises nor hangs: what cannot be used is left out, and a status and warnings
say so. Two grammars are read (see `prompts.Dialect`):

- "answer": `<think>…</think><answer>[{"bbox_2d": [x1,y1,x2,y2], "point_2d": [x,y]}, …]</answer>`;
- "fence": a Markdown JSON fence around `[{"bbox_2d" or "bbox": [x1,y1,x2,y2], "label": "…"}, …]`, boxes only, perhaps
  after thinking that `</think>` ends.

An answer is read strictly first: as JSON, each object by itself, so that one broken object costs no other. Where that
meets text that is no JSON, or finds nothing, the answer is also read loosely: every `{…}` with a box in it counts,
whatever its quotes, commas and surroundings. The loose reading is taken where it finds more, and a warning says so.
This module knows nothing of models.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from vision_reasoner.geometry import Box, Point, Size, clamp, rescale
from vision_reasoner.prompts import Compat, Grammar
from vision_reasoner.results import Instance, Status

MAX_OBJECTS = 300  # more than a reply of 2048 tokens can hold; beyond it a model only repeats itself
MAX_OBJECT_CHARS = 20_000  # longer than a whole reply of 2048 tokens
MAX_UNREADABLE = 300  # broken objects, each of which may be read to its last character before it proves broken
MAX_WASTED_CHARS = 100_000  # of all broken objects together, which bounds the time on any text
MAX_OBJECT_WARNINGS = 100  # enough to see what is wrong
MAX_LABEL_CHARS = 200  # of what a model calls an object

ANSWER_AFTER_THINKING = re.compile(r"</think>\s*<answer>")
_BOX_KEYS: dict[Grammar, tuple[str, ...]] = {"answer": ("bbox_2d",), "fence": ("bbox_2d", "bbox")}
_POINT_KEYS: dict[Grammar, tuple[str, ...]] = {"answer": ("point_2d",), "fence": ()}

_FENCE = re.compile(r"```(?:json)?")
_EMPTY_LIST = re.compile(r"\[\s*\]")
_OBJECT_START = re.compile(r"""\{\s*["']""")
# Every number as float: no limit on digits (too large becomes infinite and is refused), and true is not a number.
_DECODER = json.JSONDecoder(parse_int=float)

# For loose reading. Each character stands for one, so that places in the text stay what they were.
_PLAIN_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("“”„‟″＂", '"'),
        **dict.fromkeys("‘’‚‛′", "'"),
        **dict.fromkeys("，、﹐", ","),
        **dict.fromkeys("：﹕", ":"),
        **dict.fromkeys("［【", "["),
        **dict.fromkeys("］】", "]"),
        "｛": "{",
        "｝": "}",
        **dict.fromkeys("\u00a0\u2007\u2009\u200a\u200b\u202f\u3000\ufeff", " "),
    }
)
_BRACED = re.compile(r"\{[^{}]*\}")
_NAMED_NUMBERS = re.compile(r"""\b(bbox_2d|bbox|point_2d)["']?\s*[:=]\s*[\[(]([^\[\](){}]*)[\])]""")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_LABEL = re.compile(r"""\blabel["']?\s*[:=]\s*["']([^"'{}]*)["']""")

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
_COUNT = rf"\b(\d{{1,9}}|{'|'.join(NUMBER_WORDS)})\b"
# As the original reads its baselines' replies without JSON: the first of these that is found, in this order.
_STATED_COUNTS = [
    re.compile(pattern.format(n=_COUNT))
    for pattern in (
        r"there (?:are|is) {n}",
        r"i (?:can )?(?:see|count|find) {n}",
        r"{n} (?:objects|items)",
        r"count(?:ing)? (?:is|of) {n}",
        r"total (?:of|is) {n}",
        r"{n} in total",
        r"found {n}",
    )
]


@dataclass(frozen=True)
class ParsedReply:
    """What a reply says.

    Attributes:
        status: how well it could be used.
        thinking: the reasoning trace without its tags and outer white space; empty where there is none.
        instances: the objects in the model's order, in pixels of the original image, without masks.
        warnings: one line each; objects are numbered from 1 as they stand in the reply.
        spans: where each of the instances stands in the reply: its first character and the one behind its last.
    """

    status: Status
    thinking: str
    instances: list[Instance]
    warnings: list[str]
    spans: list[tuple[int, int]] = field(compare=False)  # the same objects in another layout are the same reading


def parse_reply(
    text: str,
    *,
    model_size: Size,
    image_size: Size,
    grammar: Grammar = "answer",
    max_objects: int = MAX_OBJECTS,
    compat: Compat = "none",
    truncate: bool = False,
) -> ParsedReply:
    """Read the objects out of a model's reply. No text makes it raise.

    Coordinates go to the image as `int(v * (image_side / model_side) + 0.5)` per axis. With a warning each, corners
    out of order are sorted, coordinates outside the frame are put onto its border, and numbers of a box beyond the
    fourth and points that are not two finite numbers are left out. An object is dropped, with a warning, if its box is
    not four finite numbers or has no area in the image, if an earlier object has the same numbers, or if
    `max_objects` are kept already. An object without a point is complete. Of several answer blocks the first is read;
    several fences are read as one list.

    Args:
        text: the reply as the model wrote it.
        model_size: (width, height) of the frame that the model's coordinates are in.
        image_size: (width, height) of the original image.
        grammar: how the reply is written.
        max_objects: at most so many objects are kept.
        compat: "upstream" reads the first fence alone, and keeps an object as often as it is repeated.
        truncate: whether coordinates are truncated rather than rounded, see `geometry.rescale`.

    Raises:
        ValueError: a size is not positive.
    """
    if min(*model_size, *image_size) <= 0:
        raise ValueError(f"sizes must be positive (width, height), got model {model_size} and image {image_size}")
    upstream = compat == "upstream"
    rules = _Rules(model_size, image_size, grammar, max_objects, keep_repeated=upstream, truncate=truncate)
    answer = _find_answer(text) if grammar == "answer" else _find_fences(text, first_only=upstream)
    reading = _Reading() if answer.missing else _collect(_strict_items(answer.text), rules)
    empty = not answer.missing and bool(_EMPTY_LIST.search(answer.text))
    if reading.not_json or not (reading.instances or empty):
        loose = _collect(_loose_items(answer.text), rules)
        if len(loose.instances) > len(reading.instances):
            loose.remarks.insert(0, answer.missing or "the answer is not valid JSON; its objects are read all the same")
            loose.repaired, reading = True, loose
    return _conclude(reading, answer, empty=empty, max_objects=max_objects)


def written_boxes(text: str, *, grammar: Grammar = "answer") -> list[list[float]]:
    """The four numbers of each box of a reply as they stand in it, in whatever order and frame they are.

    For finding out order and frame; `parse_reply` takes both as given. No text makes it raise.
    """
    answer = _find_answer(text) if grammar == "answer" else _find_fences(text, first_only=False)

    def boxes(items: Iterable[_Item]) -> Iterator[list[float]]:
        with contextlib.suppress(_GaveUp):
            for item in items:
                _, numbers = _first(item.value, _BOX_KEYS["fence"]) if isinstance(item.value, dict) else ("", None)
                if are_numbers(numbers, 4):
                    yield numbers

    strict = [] if answer.missing else list(boxes(_strict_items(answer.text)))
    return strict or list(boxes(_loose_items(answer.text)))


class _UnusableObjectError(ValueError):
    """Why one object of a reply cannot be used; never leaves this module."""


# --- where the answer is ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Answer:
    """The part of a reply that holds the objects.

    Attributes:
        thinking: the reasoning trace.
        text: what is read.
        offset: where it stands in the reply.
        closed: whether its end is there.
        missing: where it lacks the grammar's marks, what is said if objects are found in it all the same; else empty.
        warnings: what is odd about it.
    """

    thinking: str
    text: str
    offset: int = 0
    closed: bool = True
    missing: str = ""
    warnings: tuple[str, ...] = ()


def _find_answer(text: str) -> _Answer:
    thinking, answer, offset, closed = split_answer(text)
    if answer is None:
        # Without its tags an answer may stand behind the thinking, but objects in unfinished thinking are none.
        start = text.find("</think>") + len("</think>") if "</think>" in text else 0
        rest = "" if "<think>" in text and not start else text[start:]
        return _Answer(thinking, rest, len(text) - len(rest), missing="there are no <answer> tags; objects are read")
    another = "<answer>" in text[offset + len(answer) :]
    return _Answer(
        thinking, answer, offset, closed, warnings=("only the first of several answer blocks is read",) * another
    )


def split_answer(text: str) -> tuple[str, str | None, int, bool]:
    """Thinking, what stands between the answer's tags (None without an answer), where, and whether it was closed.

    Thinking may hold any characters, tags too: it ends at the first `</think>` that an `<answer>` follows at once.
    """
    tail: str | None
    joint = ANSWER_AFTER_THINKING.search(text)
    if joint is not None:
        head, tail = text[: joint.start()], text[joint.end() :]
    else:
        start = text.find("<answer>", max(text.find("</think>"), 0))
        if start < 0:
            start = text.find("<answer>")
        head, tail = (text[:start], text[start + len("<answer>") :]) if start >= 0 else (text, None)

    _, opened, thinking = head.partition("<think>")
    if not opened:
        thinking = head
    if joint is None:
        thinking, ended, _ = thinking.partition("</think>")
        if not opened and not ended:
            thinking = ""
    if tail is None:
        return thinking.strip(), None, 0, False
    answer, closing_tag, _ = tail.partition("</answer>")
    return thinking.strip(), answer, len(text) - len(tail), bool(closing_tag)


def _find_fences(text: str, *, first_only: bool) -> _Answer:
    """What stands inside the fences, or inside the first; a reply of nothing but JSON is taken as if it had one."""
    thinking, answer, begin = _after_thinking(text)
    text = " " * begin + answer  # so that places in the text stay what they were
    marks = list(_FENCE.finditer(text))
    if not marks:
        bare = text.strip()
        offset = text.find(bare)
        if bare.startswith(("[", "{")):
            return _Answer(thinking, bare, offset, closed=bare.endswith("]" if bare.startswith("[") else "}"))
        return _Answer(thinking, text, missing="there is no fence; objects are read")
    start, closed = marks[0].end(), len(marks) % 2 == 0
    ends = [mark.start() for mark in marks[1:]] + ([] if closed else [len(text)])
    if first_only or len(marks) <= 2:
        return _Answer(thinking, text[start : ends[0]], start, closed=len(marks) > 1)
    # Prose and marks are blanked, likewise.
    parts = [(mark.end(), end) for mark, end in zip(marks, ends, strict=False)]
    lists = [(a, b) for a, b in parts if "{" in text[a:b] or "[" in text[a:b]]
    inside = [" "] * (ends[-1] - start)
    for a, b in lists:
        inside[a - start : b - start] = text[a:b]
    said = (f"{len(lists)} fences are read as one list",) if len(lists) > 1 else ()
    return _Answer(thinking, "".join(inside), start, closed, warnings=said)


def split_thinking(text: str) -> tuple[str, str]:
    """The thinking of a reply in prose, and the answer that is left; both without tags and outer white space.

    See `_after_thinking` for where thinking is.
    """
    thinking, answer, begin = _after_thinking(text)
    answer = answer.strip()
    if begin and answer.startswith("<answer>"):
        answer = answer.removeprefix("<answer>").partition("</answer>")[0]
    return thinking, answer.strip()


def _after_thinking(text: str) -> tuple[str, str, int]:
    """The thinking before an answer without its tags and outer white space, what follows it, and where that begins.

    Thinking stands first. Where a chat template opens it the reply has its end tag alone; without an end tag all of a
    reply that opens it is thinking.
    """
    opened = text.lstrip().startswith("<think>")
    head, ended, answer = text.partition("</think>")
    if not opened and (not ended or "<think>" in head):
        return "", text, 0
    thinking = head.lstrip().removeprefix("<think>").strip()
    return thinking, answer, len(text) - len(answer)


def stated_count(text: str) -> int | None:
    """The number of objects that a reply in words states, such as "There are five dogs."; None where it states none."""
    answer = _after_thinking(text)[1].lower()
    for pattern in _STATED_COUNTS:
        if found := pattern.search(answer):
            number = found[1]
            return NUMBER_WORDS.index(number) if number in NUMBER_WORDS else int(number)
    return None


# --- which objects it has ---------------------------------------------------------------------------------------------
class _Item(NamedTuple):
    """An object as it was decoded, or a text that says why it could not be; and where it stands in the answer."""

    value: dict[str, Any] | str
    start: int
    end: int


class _GaveUp(Exception):  # noqa: N818 - it ends a search and never leaves this module
    """Too much of an answer is broken to read on."""


def _strict_items(answer: str) -> Iterator[_Item]:
    """Each object of a list, as JSON.

    Brackets, commas and fences between objects are passed over; after a broken object reading goes on at the next
    brace that opens one.
    """
    opening = re.search(r"[\[{]", answer)
    if opening is None:
        return
    position = opening.start()
    unreadable = wasted = 0
    while position < len(answer):
        start = answer.find("{", position)
        # After the last object only what is still inside the list counts.
        between = answer[position:start] if start >= 0 else answer[position:].partition("]")[0]
        if _FENCE.sub("", between).strip("[], \t\r\n"):
            yield _Item("it is not an object", position, start)
        if start < 0:
            return
        try:
            value, length = _DECODER.raw_decode(answer[start : start + MAX_OBJECT_CHARS])
        except (ValueError, RecursionError) as error:
            unreadable += 1
            wasted += getattr(error, "pos", MAX_OBJECT_CHARS)
            if unreadable > MAX_UNREADABLE or wasted > MAX_WASTED_CHARS:
                raise _GaveUp from error
            yield _Item("it is not complete, valid JSON", start, start)
            following = _OBJECT_START.search(answer, start + 1)
            if following is None:
                return
            position = following.start()
        else:
            yield _Item(value, start, start + length)
            position = start + length


def _loose_items(answer: str) -> Iterator[_Item]:
    """Each `{…}` that names numbers as a box, however it is punctuated."""
    plain = answer.translate(_PLAIN_PUNCTUATION).replace('\\"', '" ').replace("\\n", "  ")
    for braced in _BRACED.finditer(plain):
        item: dict[str, Any] = {}
        for name, listed in _NAMED_NUMBERS.findall(braced[0]):
            numbers = [part for part in re.split(r"[,;\s]+", listed) if part]
            if numbers and all(_NUMBER.fullmatch(number) for number in numbers):
                item.setdefault(name, [float(number) for number in numbers])
        if label := _LABEL.search(braced[0]):
            item["label"] = label[1]
        if "bbox_2d" in item or "bbox" in item:
            yield _Item(item, braced.start(), braced.end())


# --- what they are ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Rules:
    """See `parse_reply`."""

    model_size: Size
    image_size: Size
    grammar: Grammar
    max_objects: int
    keep_repeated: bool
    truncate: bool


@dataclass
class _Reading:
    """The instances of an answer so far, and what is to be said about the others."""

    instances: list[Instance] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    dropped: int = 0
    surplus: int = 0
    repeated: int = 0
    not_json: bool = False
    gave_up: bool = False
    repaired: bool = False


def _collect(items: Iterable[_Item], rules: _Rules) -> _Reading:
    reading = _Reading()
    seen: set[tuple[float, ...]] = set()
    try:
        for number, item in enumerate(items, start=1):
            if len(reading.instances) >= rules.max_objects:
                reading.surplus += 1
                continue
            try:
                instance, repairs, numbers = _instance(item.value, rules)
            except _UnusableObjectError as error:
                reading.dropped += 1
                reading.not_json |= isinstance(item.value, str)
                reading.remarks.append(f"object {number} dropped: {error}")
                continue
            if numbers in seen and not rules.keep_repeated:
                reading.repeated += 1
                continue
            seen.add(numbers)
            reading.instances.append(instance)
            reading.spans.append((item.start, item.end))
            reading.remarks.extend(f"object {number}: {repair}" for repair in repairs)
    except _GaveUp:
        reading.gave_up = reading.not_json = True
    return reading


def _conclude(reading: _Reading, answer: _Answer, *, empty: bool, max_objects: int) -> ParsedReply:
    """The reading with its status."""
    if answer.missing and not reading.instances:
        return ParsedReply(Status.NO_ANSWER, answer.thinking, [], ["the reply has no answer"], [])
    warnings = [*answer.warnings, *reading.remarks[:MAX_OBJECT_WARNINGS]]
    if len(reading.remarks) > MAX_OBJECT_WARNINGS:
        warnings.append(f"{len(reading.remarks) - MAX_OBJECT_WARNINGS} more warnings of this kind are left out")
    if reading.repeated:
        warnings.append(f"{reading.repeated} objects with the numbers of an earlier one are dropped")
    if reading.surplus:
        warnings.append(f"only the first {max_objects} objects are kept, {reading.surplus} more are dropped")
    if reading.gave_up:
        warnings.append("too many objects are not valid JSON; what follows them is not read")
    if not answer.closed:
        warnings.append("the reply ended inside the answer; the objects that were complete are kept")
        status = Status.TRUNCATED
    elif reading.dropped or reading.surplus or reading.repeated or reading.gave_up or reading.repaired:
        status = Status.PARTIAL
    elif reading.instances:
        status = Status.OK
    elif empty:
        status = Status.NONE
    else:
        warnings.append("the answer holds no list of objects")
        status = Status.NO_ANSWER
    spans = [(answer.offset + start, answer.offset + end) for start, end in reading.spans]
    return ParsedReply(status, answer.thinking, reading.instances, warnings, spans)


def _instance(item: dict[str, Any] | str, rules: _Rules) -> tuple[Instance, list[str], tuple[float, ...]]:
    """One object in pixels of the image, what had to be put right in it, and its numbers; or _UnusableObjectError."""
    if isinstance(item, str):
        raise _UnusableObjectError(item)
    repairs = []
    keys = _BOX_KEYS[rules.grammar]
    name, corners = _first(item, keys)
    if corners is None:
        raise _UnusableObjectError(f"it has no {keys[0]}")
    if isinstance(corners, list) and len(corners) > 4 and are_numbers(corners[:4], 4):
        repairs.append(f"its {name} has {len(corners)} numbers, of which the first 4 are taken")
        corners = corners[:4]
    if not are_numbers(corners, 4):
        raise _UnusableObjectError(f"its {name} is not a list of 4 finite numbers")
    name, point = _first(item, _POINT_KEYS[rules.grammar])
    if point is not None and not are_numbers(point, 2):
        repairs.append(f"its {name} is not a list of 2 finite numbers and is left out")
        point = None

    x1, x2 = sorted(corners[0::2])
    y1, y2 = sorted(corners[1::2])
    upright = [x1, y1, x2, y2]
    if upright != corners:
        repairs.append("the corners of its box were out of order and are sorted")
    inside = clamp(upright, rules.model_size)
    inside_point = None if point is None else clamp(point, rules.model_size)
    if inside != upright or inside_point != point:
        width, height = rules.model_size
        repairs.append(f"it left the frame of {width}x{height} and is put onto the border")

    def in_image(values: list[float]) -> list[int]:
        return rescale(values, from_size=rules.model_size, to_size=rules.image_size, truncate=rules.truncate)

    box = Box(*in_image(inside))
    if box.area == 0:
        raise _UnusableObjectError("its box has no area in the image")
    label = item.get("label")
    found = Instance(
        box,
        None if inside_point is None else Point(*in_image(inside_point)),
        label=label.strip()[:MAX_LABEL_CHARS] or None if isinstance(label, str) else None,
    )
    return found, repairs, (*upright, *(point or ()))


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, Any]:
    """The first of `keys` whose value is not null, and that value; None where none is there."""
    for key in keys:
        if item.get(key) is not None:
            return key, item[key]
    return "", None


def are_numbers(value: object, length: int) -> TypeGuard[list[float]]:
    """Whether a decoded value is a list of `length` finite numbers; they must have been decoded as float."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(number, float) and math.isfinite(number) for number in value)
    )
