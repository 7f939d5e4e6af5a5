"""A model's reply, as text, becomes thinking and instances in pixels of the original image.

Whatever the text, reading it neither raises nor hangs: what cannot be used is left out, and a status and warnings
say so. Two grammars are read (see `prompts.Dialect`):

- "answer": `<think>…</think><answer>[{"bbox_2d": [x1,y1,x2,y2], "point_2d": [x,y]}, …]</answer>`;
- "fence": a Markdown JSON fence around `[{"bbox_2d" or "bbox": [x1,y1,x2,y2]}, …]`, boxes only.

Each object is decoded by itself, so that one broken object costs no other. This module knows nothing of models.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from vision_reasoner.geometry import Box, Point, Size, clamp, rescale
from vision_reasoner.prompts import Grammar
from vision_reasoner.results import Instance, Status

MAX_OBJECTS = 300  # more than a reply of 2048 tokens can hold; beyond it a model only repeats itself
MAX_OBJECT_CHARS = 20_000  # longer than a whole reply of 2048 tokens; with the next line it bounds the work on
MAX_UNREADABLE = 300  # broken objects, each of which may be read to its last character before it proves broken
MAX_OBJECT_WARNINGS = 100  # enough to see what is wrong

ANSWER_AFTER_THINKING = re.compile(r"</think>\s*<answer>")
_BOX_KEYS: dict[Grammar, tuple[str, ...]] = {"answer": ("bbox_2d",), "fence": ("bbox_2d", "bbox")}
_POINT_KEYS: dict[Grammar, tuple[str, ...]] = {"answer": ("point_2d",), "fence": ()}

_FENCE = re.compile(r"```(?:json)?")
_EMPTY_LIST = re.compile(r"\[\s*\]")
_OBJECT_START = re.compile(r"""\{\s*["']""")
# Every number as float: no limit on digits (too large becomes infinite and is refused), and true is not a number.
_DECODER = json.JSONDecoder(parse_int=float)


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
) -> ParsedReply:
    """Read the objects out of a model's reply. No text makes it raise.

    Coordinates go to the image as `int(v * (image_side / model_side) + 0.5)` per axis. Corners out of order are
    sorted and coordinates outside the frame put onto its border, with a warning each. An object is dropped, with a
    warning, if it is not JSON, if its box is not four finite numbers or has no area in the image, if it has a point
    that is not two finite numbers, or if `max_objects` are kept already. An object without a point is complete.

    Args:
        text: the reply as the model wrote it.
        model_size: (width, height) of the frame that the model's coordinates are in.
        image_size: (width, height) of the original image.
        grammar: how the reply is written.
        max_objects: at most so many objects are kept.

    Raises:
        ValueError: a size is not positive.
    """
    if min(*model_size, *image_size) <= 0:
        raise ValueError(f"sizes must be positive (width, height), got model {model_size} and image {image_size}")
    thinking, answer, offset, closed = split_answer(text) if grammar == "answer" else _split_fence(text)
    if answer is None:
        return ParsedReply(Status.NO_ANSWER, thinking, [], ["the reply has no answer"], [])

    instances: list[Instance] = []
    spans: list[tuple[int, int]] = []
    remarks: list[str] = []
    dropped = 0
    surplus = 0
    given_up = False
    for number, (item, start, end) in enumerate(_objects(answer), start=1):
        if item is None:
            given_up = True
            break
        if len(instances) >= max_objects:
            surplus += 1
            continue
        try:
            instance, repairs = _instance(item, model_size, image_size, grammar)
        except _UnusableObjectError as error:
            dropped += 1
            remarks.append(f"object {number} dropped: {error}")
            continue
        instances.append(instance)
        spans.append((offset + start, offset + end))
        remarks.extend(f"object {number}: {repair}" for repair in repairs)

    warnings = remarks[:MAX_OBJECT_WARNINGS]
    if len(remarks) > len(warnings):
        warnings.append(f"{len(remarks) - len(warnings)} more warnings of this kind are left out")
    if surplus:
        warnings.append(f"only the first {max_objects} objects are kept, {surplus} more are dropped")
    if given_up:
        warnings.append(f"more than {MAX_UNREADABLE} objects are not valid JSON; what follows them is not read")
    if not closed:
        warnings.append("the reply ended inside the answer; the objects that were complete are kept")
        status = Status.TRUNCATED
    elif dropped or surplus:
        status = Status.PARTIAL
    elif instances:
        status = Status.OK
    elif _EMPTY_LIST.search(answer):
        status = Status.NONE
    else:
        warnings.append("the answer holds no list of objects")
        status = Status.NO_ANSWER
    return ParsedReply(status, thinking, instances, warnings, spans)


class _UnusableObjectError(ValueError):
    """Why one object of a reply cannot be used; never leaves this module."""


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


def _split_fence(text: str) -> tuple[str, str | None, int, bool]:
    """No thinking, what stands inside the fence (None without an answer), where, and whether the fence was closed.

    A reply that is nothing but JSON is taken as if it stood in a fence; it is closed if its last bracket is there.
    """
    opening = _FENCE.search(text)
    if opening is not None:
        answer, closing_fence, _ = text[opening.end() :].partition("```")
        return "", answer, opening.end(), bool(closing_fence)
    bare = text.strip()
    if bare.startswith(("[", "{")):
        return "", bare, text.index(bare), bare.endswith("]" if bare.startswith("[") else "}")
    return "", None, 0, False


def _objects(answer: str) -> Iterator[tuple[dict[str, Any] | str | None, int, int]]:
    """Each object of a list as it was decoded, or a text that says why it could not be; None where reading is given up.

    With it comes where it stands in `answer`: the first character and the one behind the last.

    Brackets and commas between objects are passed over; after a broken object reading goes on at the next brace that
    opens one.
    """
    opening = re.search(r"[\[{]", answer)
    if opening is None:
        return
    position = opening.start()
    unreadable = 0
    while position < len(answer):
        start = answer.find("{", position)
        # After the last object only what is still inside the list counts.
        between = answer[position:start] if start >= 0 else answer[position:].partition("]")[0]
        if between.strip("[], \t\r\n"):
            yield "it is not an object", position, start
        if start < 0:
            return
        try:
            value, length = _DECODER.raw_decode(answer[start : start + MAX_OBJECT_CHARS])
        except (ValueError, RecursionError):
            unreadable += 1
            if unreadable > MAX_UNREADABLE:
                yield None, start, start
                return
            yield "it is not complete, valid JSON", start, start
            following = _OBJECT_START.search(answer, start + 1)
            if following is None:
                return
            position = following.start()
        else:
            yield value, start, start + length
            position = start + length


def _instance(
    item: dict[str, Any] | str, model_size: Size, image_size: Size, grammar: Grammar
) -> tuple[Instance, list[str]]:
    """One object in pixels of the image, and what had to be put right in it; raises _UnusableObjectError."""
    if isinstance(item, str):
        raise _UnusableObjectError(item)
    corners = _numbers(item, _BOX_KEYS[grammar], 4)
    if corners is None:
        raise _UnusableObjectError(f"it has no {_BOX_KEYS[grammar][0]}")
    point = _numbers(item, _POINT_KEYS[grammar], 2)

    repairs = []
    x1, x2 = sorted(corners[0::2])
    y1, y2 = sorted(corners[1::2])
    upright = [x1, y1, x2, y2]
    if upright != corners:
        repairs.append("the corners of its box were out of order and are sorted")
    inside = clamp(upright, model_size)
    inside_point = None if point is None else clamp(point, model_size)
    if inside != upright or inside_point != point:
        repairs.append(f"it left the frame of {model_size[0]}x{model_size[1]} and is put onto the border")

    box = Box(*rescale(inside, from_size=model_size, to_size=image_size))
    if box.area == 0:
        raise _UnusableObjectError("its box has no area in the image")
    if inside_point is None:
        return Instance(box), repairs
    return Instance(box, Point(*rescale(inside_point, from_size=model_size, to_size=image_size))), repairs


def _numbers(item: dict[str, Any], keys: tuple[str, ...], length: int) -> list[float] | None:
    """The finite numbers under the first of `keys` that is there; None where none is, or where it is null."""
    for key in keys:
        value = item.get(key)
        if value is None:
            continue
        if not are_numbers(value, length):
            raise _UnusableObjectError(f"its {key} is not a list of {length} finite numbers")
        return value
    return None


def are_numbers(value: object, length: int) -> TypeGuard[list[float]]:
    """Whether a decoded value is a list of `length` finite numbers; they must have been decoded as float."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(number, float) and math.isfinite(number) for number in value)
    )
