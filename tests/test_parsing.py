"""Replies: a labelled table of what must be read, and properties that hold for any text."""

import json
import math
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vision_reasoner.geometry import Box, Point
from vision_reasoner.parsing import (
    MAX_OBJECT_WARNINGS,
    ParsedReply,
    parse_reply,
    split_thinking,
    stated_count,
    written_boxes,
)
from vision_reasoner.prompts import ANSWER_EXAMPLE, Grammar
from vision_reasoner.results import Instance, Status

TABLE = tomllib.loads((Path(__file__).parent / "tables/replies.toml").read_text(encoding="utf-8"))["reply"]
GRAMMARS: tuple[Grammar, ...] = ("answer", "fence")
MODEL = (840, 840)
IMAGE = (1680, 420)

thinkings = st.text(max_size=60).filter(lambda text: not re.search(r"</?(think|answer)>", text))
sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
# Text made of the pieces that replies are made of, whole and broken.
pieces = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "```json\n", "```", "[", "]", "{", "}", ",", ":", '"', "'", "\\"]
    + ['"bbox_2d"', '"bbox"', '"point_2d"', '{"bbox_2d": [', '{"bbox_2d": [1, 2, 30, 40]}', '"point_2d": [3, 4]', " "]
    + ["0", "7", "840", "-1", "1e309", "NaN", "-Infinity", "1.5", "null", "true", "\n", "é", "\x00", "\ud800"]
)
mixtures = st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=60).map("".join)


def parse(text: str, **options: Any) -> ParsedReply:
    return parse_reply(text, **{"model_size": MODEL, "image_size": IMAGE, **options})


def objects(sides: tuple[int, int] = MODEL) -> st.SearchStrategy[dict[str, Any]]:
    """Well-formed objects with coordinates in a frame, at least 8 wide and high, with and without a point."""
    width, height = sides

    @st.composite
    def build(draw: st.DrawFn) -> dict[str, Any]:
        x1, y1 = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
        item: dict[str, Any] = {
            "bbox_2d": [x1, y1, draw(st.integers(x1 + 8, width)), draw(st.integers(y1 + 8, height))]
        }
        if draw(st.booleans()):
            item["point_2d"] = [draw(st.integers(0, width)), draw(st.integers(0, height))]
        return item

    return build()


lists = st.lists(objects(), max_size=12, unique_by=str)


def render(thinking: str, items: list[dict[str, Any]]) -> str:
    return f"<think>{thinking}</think><answer>{json.dumps(items)}</answer>"


def as_items(instances: list[Instance]) -> list[dict[str, Any]]:
    """Instances as the objects of a reply in the image's own frame."""
    return [
        {"bbox_2d": list(instance.box)} | ({"point_2d": list(instance.point)} if instance.point is not None else {})
        for instance in instances
    ]


def plain_reading(text: str, image: tuple[int, int]) -> list[tuple[list[int], list[int] | None]]:
    """The published way to read a well-formed reply: the JSON between the tags, rescaled from 840 per axis."""
    across, down = image[0] / 840, image[1] / 840
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    assert found is not None
    results = []
    for item in json.loads(found.group(1)):
        x1, y1, x2, y2 = item["bbox_2d"]
        box = [int(x1 * across + 0.5), int(y1 * down + 0.5), int(x2 * across + 0.5), int(y2 * down + 0.5)]
        point = item.get("point_2d")
        results.append((box, None if point is None else [int(point[0] * across + 0.5), int(point[1] * down + 0.5)]))
    return results


def read(reply: ParsedReply) -> list[tuple[list[int], list[int] | None]]:
    return [(list(found.box), None if found.point is None else list(found.point)) for found in reply.instances]


# ---- the table ----


@pytest.mark.parametrize("row", TABLE, ids=[row["label"] for row in TABLE])
def test_table_of_replies(row):
    reply = parse(row["text"], grammar=row.get("grammar", "answer"))
    boxes = row.get("boxes", [])
    points = row.get("points", [[] for _ in boxes])
    assert reply.status is Status(row["status"])
    assert reply.thinking == row.get("thinking", "")
    assert [found.box for found in reply.instances] == [Box(*box) for box in boxes]
    assert [found.point for found in reply.instances] == [Point(*point) if point else None for point in points]
    if "labels" in row:
        assert [found.label or "" for found in reply.instances] == row["labels"]
    expected = row.get("warnings", [])
    assert len(reply.warnings) == len(expected)
    for part, warning in zip(expected, reply.warnings, strict=True):
        assert part in warning
        assert "\n" not in warning


def test_the_table_is_large_and_its_labels_are_unique():
    assert len(TABLE) >= 60
    assert len({row["label"] for row in TABLE}) == len(TABLE)
    assert {row["status"] for row in TABLE} == {status.value for status in Status}


def test_the_prompts_own_example_is_read():
    assert parse(f"<answer>{ANSWER_EXAMPLE}</answer>").status is Status.OK


# ---- well-formed replies ----


@given(thinkings, st.lists(objects(), min_size=1, max_size=20), sizes)
def test_a_well_formed_reply_is_read_as_published(thinking, items, image):
    text = render(thinking, items)
    reply = parse(text, image_size=image, compat="upstream")  # which keeps an object as often as it is said
    # An image so small that a box has no pixel left in it is the one case in which objects are dropped.
    kept = [(box, point) for box, point in plain_reading(text, image) if box[0] < box[2] and box[1] < box[3]]
    assert read(reply) == kept
    assert reply.thinking == thinking.strip()
    if len(kept) == len(items):
        assert reply.status is Status.OK
        assert reply.warnings == []


@given(st.lists(objects(), min_size=1, max_size=8), st.integers(0, 3))
def test_layout_of_the_json_does_not_matter(items, indent):
    expected = parse(render("t", items))
    loose = f"<think>t</think>\n\n<answer>\n{json.dumps(items, indent=indent)}\n</answer>\n"
    assert parse(loose) == expected


@given(lists, thinkings)
def test_rendering_what_was_kept_and_reading_again_changes_nothing(items, thinking):
    first = parse(render(thinking, items))
    again = parse(render(first.thinking, as_items(first.instances)), model_size=IMAGE, image_size=IMAGE)
    assert again == first


@given(mixtures, st.sampled_from(GRAMMARS), sizes)
def test_rendering_what_was_kept_of_any_text_and_reading_again_keeps_it(text, grammar, image):
    first = parse(f"<answer>[{text}" if grammar == "answer" else f"```[{text}", grammar=grammar, image_size=image)
    # Different numbers may be one box in a small image, so that the same object is there twice.
    again = parse(render("", as_items(first.instances)), model_size=image, image_size=image, compat="upstream")
    assert again.instances == first.instances
    assert again.status is (Status.OK if first.instances else Status.NONE)
    assert again.warnings == []


# ---- text that is nearly right ----

TWO = ['{"bbox_2d": [10, 20, 30, 40], "label": "dog"}', '{"bbox_2d": [100, 200, 300, 400], "label": "dog"}']
LIST = f"[{', '.join(TWO)}]"
NEARLY = {
    "prose, then a bare list": f"Here are the dogs: {LIST}",
    "prose, then bare objects": f"Here are the dogs:\n{TWO[0]}\n{TWO[1]}\nThat is all.",
    "a fence for each object": "".join(f"```json\n{one}\n```\n" for one in TWO),
    "a fence for each list": "".join(f"and\n```json\n[{one}]\n```\n" for one in TWO),
    "a comma before each closing brace": LIST.replace("}", ",}"),
    "Python's quotes": LIST.replace('"', "'"),
    "tuples": LIST.replace("[1", "(1").replace("0],", "0),"),
    "an object around the list": f'{{"objects": {LIST}}}',
    "escaped quotes": LIST.replace('"', '\\"'),
    "escaped line breaks": LIST.replace("{", "{\\n").replace("}", "\\n}"),
    "typographic quotes": LIST.replace('"b', "“b").replace('d"', "d”"),
    "single typographic quotes": LIST.replace('"b', "‘b").replace('d"', "d’"),
    "typographic commas": LIST.replace(", ", "，"),
    "typographic colons": LIST.replace(":", "："),
    "no-break spaces": LIST.replace(" ", "\u00a0"),
    "keys without quotes": LIST.replace('"bbox_2d"', "bbox_2d"),
    "a missing comma": LIST.replace('40], "', '40] "'),
}


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("where", ["bare", "marked"])
@pytest.mark.parametrize("text", NEARLY.values(), ids=NEARLY)
def test_of_text_that_is_nearly_right_every_object_is_kept_and_it_is_said(text, where, grammar):
    if where == "marked":
        text = {"answer": f"<think>t</think><answer>{text}</answer>", "fence": f"```json\n{text}\n```"}[grammar]
    reply = parse(text, grammar=grammar)
    assert [found.box for found in reply.instances] == [Box(20, 10, 60, 20), Box(200, 100, 600, 200)]
    assert reply.status in (Status.OK, Status.PARTIAL)
    if where == "bare":
        assert reply.warnings
    for start, end in reply.spans:
        assert "bbox_2d" in text[start:end]


def test_an_object_repeated_to_the_token_limit_counts_once():
    reply = parse("<think>t</think><answer>[" + f"{TWO[0]}, " * 60 + '{"bbox_')
    assert (reply.status, len(reply.instances)) == (Status.TRUNCATED, 1)
    assert "59 objects with the numbers of an earlier one are dropped" in reply.warnings
    assert len(parse("<answer>[" + f"{TWO[0]}, " * 60 + "]</answer>", compat="upstream").instances) == 60


def test_unfinished_thinking_is_no_answer():
    assert parse(f"<think>An object looks like {TWO[0]}, and").status is Status.NO_ANSWER


def test_what_is_read_strictly_stays_as_it_is_read():
    text = f"<think>not {TWO[1]}</think><answer>[{TWO[0]}]</answer> or {TWO[1]}"
    assert [found.box for found in parse(text).instances] == [Box(20, 10, 60, 20)]


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("  A dog. ", "", "A dog."),
        ("<think>It barks.</think>A dog.", "It barks.", "A dog."),
        ("<think>\nIt barks.\n</think>\n<answer> A dog. </answer>", "It barks.", "A dog."),
        ("<think>It barks.", "It barks.", ""),
        ("It barks.</think>\n\nA dog.", "It barks.", "A dog."),
        ("<think></think><answer>A dog.</answer>", "", "A dog."),
        ("The tag <think> opens </think> it.", "", "The tag <think> opens </think> it."),
        ("", "", ""),
    ],
)
def test_thinking_is_split_from_an_answer_in_prose(text, thinking, answer):
    assert split_thinking(text) == (thinking, answer)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("There are five dogs in the image.", 5),
        ("There is 1 dog.", 1),
        ("I can see Twelve of them.", 12),
        ("there are sixteen dogs", 16),
        ("The image has 7 objects.", 7),
        ("The count is 5.", 5),
        ("That is a total of nine, or 9 in total; I found 3.", 9),
        ("<think>There are 3? No.</think>There are four.", 4),
        ("<think>There are 3", None),
        ("There are no dogs, and that makes 12.", None),
        (f"There are {'9' * 5000} dogs.", None),
        ("", None),
    ],
)
def test_a_count_in_words_is_read_as_the_original_does(text, count):
    assert stated_count(text) == count


# ---- cuts ----


@given(thinkings, lists.filter(len), st.data())
def test_objects_that_are_complete_before_a_cut_survive_and_no_others_appear(thinking, items, data):
    text = render(thinking, items)
    whole = parse(text)
    cut = data.draw(st.integers(0, len(text) - 1))
    reply = parse(text[:cut])
    start = text.rindex("<answer>[") + len("<answer>")
    if cut < start:
        assert reply.status is Status.NO_ANSWER
        assert reply.instances == []
    else:
        complete = sum(bool(text[start:cut].count("}") > i) for i in range(len(items)))
        assert reply.status is Status.TRUNCATED
        assert reply.instances == whole.instances[:complete]


@given(lists.filter(len), st.data())
def test_one_broken_object_costs_no_other(items, data):
    broken = data.draw(
        st.sampled_from(
            ['{"bbox_2d": [1, 2, 3', '{"bbox_2d": [1, 2, 3]}', "{}", '{"bbox_2d: [1, 2, 3]}', "7", '"x"', "{'a': 1}"]
        )
    )
    place = data.draw(st.integers(0, len(items)))
    parts = [json.dumps(item) for item in items]
    parts.insert(place, broken)
    reply = parse(f"<think>t</think><answer>[{', '.join(parts)}]</answer>")
    assert reply.status is Status.PARTIAL
    assert reply.instances == parse(render("t", items)).instances
    assert reply.warnings[0].startswith(f"object {place + 1} dropped: ")


# ---- any text ----


@settings(max_examples=400)
@given(st.one_of(mixtures, st.text()), st.sampled_from(GRAMMARS), sizes, sizes)
@example("<answer>[" + '{"bbox_2d": [1e308, -1e308, 1e308, 1e309]}', "answer", (1, 1), (5000, 1))
@example("<answer>[" + '{"bbox_2d": [0,0,' + "9" * 5000 + ",9]}]</answer>", "answer", (840, 840), (10, 10))
def test_any_text_gives_ordered_boxes_inside_the_image(text, grammar, model, image):
    for prefix in ("", "<answer>", "<answer>[", "```json\n["):
        reply = parse(prefix + text, grammar=grammar, model_size=model, image_size=image)
        for found in reply.instances:
            assert all(isinstance(value, int) for value in (*found.box, *(found.point or ())))
            assert 0 <= found.box.x1 < found.box.x2 <= image[0]
            assert 0 <= found.box.y1 < found.box.y2 <= image[1]
            if found.point is not None:
                assert 0 <= found.point.x <= image[0]
                assert 0 <= found.point.y <= image[1]
        assert all(isinstance(warning, str) for warning in reply.warnings)
        if reply.status in (Status.OK, Status.PARTIAL, Status.TRUNCATED):
            assert reply.status is not Status.OK or reply.instances
        else:
            assert reply.instances == []


numbers = st.one_of(
    st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.sampled_from(["bbox_2d", "point_2d", "label"]), st.one_of(numbers, st.lists(numbers))))
)
def test_any_json_objects_are_kept_or_named_in_a_warning(items):
    reply = parse(f"<answer>{json.dumps(items)}</answer>")
    dropped = [warning for warning in reply.warnings if " dropped: " in warning]
    assert len(reply.instances) + len(dropped) == len(items)
    if items:
        assert reply.status is (Status.PARTIAL if dropped else Status.OK)


# ---- bounds ----

MEGABYTE = 1_000_000
UNITS = [
    "[",
    "{",
    '"',
    "\\",
    "9",
    "`",
    " ",
    "<think>",
    "</think>",
    "</think> ",
    "<answer>",
    '{"',
    '{"a":',
    '[{"a":',
    "{'",
    '{"a":{},',
    '{"bbox_2d":[1,2,3,4],"a":[',
    '{"bbox_2d":[1,2,30,40]},',
    '{"bbox_2d":[1,2]},',
    '{"a":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,',
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    ("prefix", "grammar"), [("", "answer"), ("<answer>[", "answer"), ("```json\n[", "fence")], ids=repr
)
def test_a_megabyte_of_anything_is_read_in_seconds(unit, prefix, grammar):
    start = time.process_time()
    parse(prefix + unit * (MEGABYTE // len(unit)), grammar=grammar)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "text",
    ['{"a":[' * 290 + "1," * (MEGABYTE // 2), ('{"a":[' * 290 + "1," * 9_000) * 50],
    ids=["one long tail", "many tails"],
)
def test_broken_objects_that_go_on_for_long_are_not_read_again_and_again(text):
    start = time.process_time()
    parse("<answer>[" + text)
    assert time.process_time() - start < 2


def test_broken_objects_without_end_are_given_up_with_a_word():
    reply = parse("<answer>[" + '{"a" ' * 100_000 + "]</answer>")
    assert reply.status is Status.PARTIAL
    assert len(reply.warnings) == MAX_OBJECT_WARNINGS + 2
    assert "more warnings" in reply.warnings[-2]
    assert "what follows them is not read" in reply.warnings[-1]


def test_at_most_300_objects_are_kept_with_a_warning():
    items = [{"bbox_2d": [i, 0, i + 10, 10]} for i in range(312)]
    reply = parse(render("t", items))
    assert reply.status is Status.PARTIAL
    assert len(reply.instances) == 300
    assert reply.instances == parse(render("t", items[:300])).instances
    assert reply.warnings == ["only the first 300 objects are kept, 12 more are dropped"]


def test_the_limit_on_objects_can_be_set():
    items = [{"bbox_2d": [i, 0, i + 10, 10]} for i in range(5)]
    assert len(parse(render("t", items), max_objects=2).instances) == 2
    assert parse(render("t", items), max_objects=5).status is Status.OK


def test_a_frame_without_area_is_refused():
    with pytest.raises(ValueError, match="positive"):
        parse("", image_size=(0, 10))


@given(st.integers(0, 840), st.integers(1, 4000))
def test_both_axes_are_rescaled_by_their_own_factor(value, side):
    reply = parse(render("t", [{"bbox_2d": [0, 0, 840, 840], "point_2d": [value, value]}]), image_size=(side, side * 2))
    assert reply.instances[0].point == (
        math.floor(value * (side / 840) + 0.5),
        math.floor(value * (side * 2 / 840) + 0.5),
    )


@given(
    st.text(), st.sampled_from(["answer", "fence"]), st.lists(st.sampled_from(["  ", "{", ", ", "\n", "7"]), max_size=4)
)
def test_spans_say_where_each_object_stands(thinking, grammar, noise):
    objects = ['{"bbox_2d": [10, 20, 30, 40]}', '{ "bbox_2d":[1, 2, 300, 400] }']
    before, after = {"answer": (f"<think>{thinking}</think><answer>", "</answer>"), "fence": ("```json\n", "```")}[
        grammar
    ]
    text = before + "[" + "".join(noise) + objects[0] + ", nonsense, " + objects[1] + "".join(noise) + "]" + after
    parsed = parse(text, grammar=grammar)
    assert len(parsed.spans) == len(parsed.instances)
    if "<answer>" not in thinking and "```" not in thinking:
        assert [text[start:end] for start, end in parsed.spans][-1:] == objects[-1:]


def test_the_span_of_a_bare_list_counts_the_space_before_it():
    text = '  \n[{"bbox": [1, 2, 30, 40]}]'
    ((start, end),) = parse(text, grammar="fence").spans
    assert text[start:end] == '{"bbox": [1, 2, 30, 40]}'


# --- boxes as they stand in a reply -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "grammar", "expected"),
    [
        ('<answer>[{"bbox_2d": [9, 2, 3, 4]}, {"bbox_2d": [900, 0, 950.5, 5]}]</answer>', "answer", [[9, 2, 3, 4]]),
        ('<answer>[{"bbox_2d": [0.1, 0.2, 0.3, 0.4]}]</answer>', "answer", [[0.1, 0.2, 0.3, 0.4]]),
        ('```json\n[{"bbox": [1, 2, 3, 4], "label": "a"}]\n```', "answer", [[1, 2, 3, 4]]),
        ('```json\n[{"bbox": [1, 2, 3, 4], "label": "a"}]\n```', "fence", [[1, 2, 3, 4]]),
        ('<answer>[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6', "answer", [[1, 2, 3, 4]]),
        ("<answer>[{'bbox_2d': [1, 2, 3, 4]}]</answer>", "answer", [[1, 2, 3, 4]]),
        ("<answer>[]</answer>", "answer", []),
        ('<answer>[{"bbox_2d": [1, 2, 3]}, {"bbox_2d": "all"}, 7]</answer>', "answer", []),
        ("none", "answer", []),
    ],
)
def test_boxes_are_read_as_they_stand_there(text: str, grammar: Grammar, expected: list[list[float]]) -> None:
    assert written_boxes(text, grammar=grammar)[: len(expected) or None] == expected


@given(mixtures, st.sampled_from(GRAMMARS))
def test_reading_boxes_as_they_stand_there_never_raises(text: str, grammar: Grammar) -> None:
    for box in written_boxes(text, grammar=grammar):
        assert len(box) == 4
        assert all(map(math.isfinite, box))
