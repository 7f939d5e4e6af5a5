"""Rewards: golden values worked out by hand, bounds for any text, and agreement with the plain double loop."""

import json
import pickle
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.training.grpo import rewards_benchmark
from vision_reasoner.training.grpo.rewards import (
    Reward,
    compute_reward,
    score_non_repeat,
    score_think_format,
    trl_rewards,
)
from vision_reasoner.training.grpo.rewards_benchmark import best_matching, every_matching, plain_reward

Pair = tuple[list[float], list[float]]  # a box and its point

SQUARE: Pair = ([100, 100, 199, 199], [150, 150])  # 100 x 100 pixels
OTHER: Pair = ([400, 400, 499, 499], [450, 450])


def objects(*pairs: Pair) -> str:
    return json.dumps([{"bbox_2d": box, "point_2d": point} for box, point in pairs])


def reply(answer: str) -> str:
    return f"<think>I look at it. There it is.</think><answer>{answer}</answer>"


def reward(answer: str, *truth: Pair, **options: Any) -> Reward:
    return compute_reward(reply(answer), objects(*truth), **options)


# label: (predicted pairs, true pairs, accuracy)
GOLDEN: dict[str, tuple[list[Pair], list[Pair], float]] = {
    "perfect": ([SQUARE], [SQUARE], 3.0),
    # overlap 90 x 100 of 110 x 100 pixels; mean difference (10 + 0 + 10 + 0) / 4 = 5; points 10 apart
    "10 to the right": ([([110, 100, 209, 199], [160, 150])], [SQUARE], 3.0),
    # overlap 80 / 120; mean difference 10, which is not below 10; points 20 apart
    "20 to the right": ([([120, 100, 219, 199], [170, 150])], [SQUARE], 2.0),
    # 5,000 of 10,000 pixels is not above a half; mean difference 50 / 4; the point is 1 away and inside
    "upper half": ([([100, 100, 199, 149], [150, 149])], [SQUARE], 1.0),
    # 3 x 2 of 3 x 3 pixels; were the corners edges, it would be 2 x 1 of 2 x 2, which is not above a half
    "pixels count, not edges": ([([0, 0, 2, 1], [1, 1])], [([0, 0, 2, 2], [1, 1])], 3.0),
    "point 30 away": ([(SQUARE[0], [180, 150])], [SQUARE], 2.0),
    "point sqrt(25^2 + 15^2) = 29.2 away": ([(SQUARE[0], [175, 165])], [SQUARE], 3.0),
    "point near but outside its own box": ([(SQUARE[0], [205, 150])], [(SQUARE[0], [195, 150])], 2.0),
    "point on the edge of its own box": ([(SQUARE[0], [199, 150])], [(SQUARE[0], [195, 150])], 3.0),
    "corners out of order": ([([199, 199, 100, 100], [150, 150])], [SQUARE], 0.0),
    "one of two found": ([SQUARE], [SQUARE, OTHER], 1.5),
    "one too many": ([SQUARE, OTHER], [SQUARE], 1.5),
    "the same twice": ([SQUARE, SQUARE], [SQUARE], 1.5),
    "other order": ([OTHER, SQUARE], [SQUARE, OTHER], 3.0),
    "elsewhere": ([OTHER], [SQUARE], 0.0),
    "121 of 121, 120 count": ([SQUARE] * 121, [SQUARE] * 121, 3.0),
    "240 for 120": ([SQUARE] * 240, [SQUARE] * 120, 3.0),
    # the first fits both (3 and 2 points), the second only the first (3): 3 + 2 goes wrong when taken greedily
    "best in sum": (
        [([0, 0, 99, 99], [50, 50]), ([0, 0, 99, 99], [50, 50])],
        [([0, 0, 99, 99], [50, 50]), ([16, 16, 99, 99], [90, 90])],
        # to the second: IoU 84 x 84 / 100 x 100 = 0.71, mean difference 32 / 4 = 8, points 57 apart: 2
        2.5,
    ),
    "beyond any frame": ([([-1e300, -1e300, 1e300, 1e300], [1e300, 0])], [SQUARE], 0.0),
}


@pytest.mark.parametrize("label", GOLDEN)
def test_golden_accuracy(label):
    predicted, truth, expected = GOLDEN[label]
    assert reward(objects(*predicted), *truth) == (1.0, 2.0, expected, 1.0)


def test_a_perfect_reply_gives_seven():
    assert reward(objects(SQUARE, OTHER), SQUARE, OTHER).total == 7


@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [
        # in a frame of 280 the limits are 10 / 3 for boxes and 10 for points
        ((280, 280), (3, 3), 3),
        ((280, 280), (4, 4), 2),  # mean difference 4; points 5.7 apart
        ((280, 280), (10, 0), 1),  # mean difference 5, points 10 apart
        ((1680, 1680), (19, 19), 3),  # 20 and 60
        ((1680, 1680), (20, 20), 2),
        # height 420: one pixel down counts as two
        ((840, 420), (0, 9), 3),  # mean difference (18 + 18) / 4 = 9
        ((840, 420), (0, 10), 2),
        ((840, 420), (19, 0), 3),  # 9.5
        ((840, 420), (20, 0), 2),
    ],
)
def test_thresholds_follow_the_frame(size, offset, expected):
    dx, dy = offset
    (x1, y1, x2, y2), (x, y) = ([50, 50, 249, 249], [150, 150])
    moved = ([x1 + dx, y1 + dy, x2 + dx, y2 + dy], [x + dx, y + dy])
    assert reward(objects(moved), ([x1, y1, x2, y2], [x, y]), model_size=size).accuracy == expected


# label: (what stands between the tags, answer format, accuracy) where SQUARE is the truth
ANSWERS = {
    "white space": (f" \n{objects(SQUARE)}\u00a0", 2.0, 3.0),
    "floats": ('[{"bbox_2d": [100.0, 100, 199, 199], "point_2d": [150, 1.5e2]}]', 2.0, 3.0),
    "more keys": ('[{"label": "x", "bbox_2d": [100, 100, 199, 199], "point_2d": [150, 150]}]', 2.0, 3.0),
    "no point": ('[{"bbox_2d": [100, 100, 199, 199]}]', 1.0, 0.0),
    "no box": ('[{"point_2d": [150, 150]}]', 1.0, 0.0),
    "neither": ("[{}]", 0.0, 0.0),
    "one object without a point costs the accuracy of all": (
        objects(SQUARE)[:-1] + ', {"bbox_2d": [1,2,3,4]}]',
        1.5,
        0.0,
    ),
    "one that is no object": (objects(SQUARE)[:-1] + ", 7]", 1.0, 0.0),
    "three numbers": ('[{"bbox_2d": [100, 100, 199], "point_2d": [150, 150]}]', 1.0, 0.0),
    "strings": ('[{"bbox_2d": ["100", "100", "199", "199"], "point_2d": [150, 150]}]', 1.0, 0.0),
    "truth values": ('[{"bbox_2d": [100, 100, 199, 199], "point_2d": [true, true]}]', 1.0, 0.0),
    "not finite": ('[{"bbox_2d": [NaN, 100, 199, 199], "point_2d": [Infinity, 1e999]}]', 0.0, 0.0),
    "nested": ('[{"bbox_2d": [[100, 100, 199, 199]], "point_2d": [150, 150]}]', 1.0, 0.0),
    "empty although there is something": ("[]", 0.0, 0.0),
    "an object, not a list": (objects(SQUARE)[1:-1], 0.0, 0.0),
    "broken JSON": (objects(SQUARE)[:-1], 0.0, 0.0),
    "Python": (objects(SQUARE).replace('"', "'"), 0.0, 0.0),
    "nothing": ("", 0.0, 0.0),
    "words": ("it is on the left", 0.0, 0.0),
}


@pytest.mark.parametrize("label", ANSWERS)
def test_the_answer_is_read_strictly(label):
    answer, form, accuracy = ANSWERS[label]
    assert reward(answer, SQUARE) == (1.0, form, accuracy, 1.0)


def test_tags_inside_the_thinking_are_no_answer():
    text = f"<think>I am to write <answer>[]</answer> here.</think><answer>{objects(SQUARE)}</answer>"
    assert compute_reward(text, objects(SQUARE)).total == 7


def test_an_answer_that_is_not_closed_is_worth_nothing():
    assert compute_reward(reply(objects(SQUARE))[: -len("</answer>")], objects(SQUARE)) == (0.0, 0.0, 0.0, 1.0)


def test_where_nothing_is_to_be_found_the_empty_answer_is_worth_most():
    assert reward("[]") == (1.0, 2.0, 3.0, 1.0)
    assert reward(objects(SQUARE)) == (1.0, 2.0, 0.0, 1.0)
    assert reward("none").total == 2
    assert reward("[]", compat="upstream").total == 2
    assert reward(objects(SQUARE), compat="upstream").total == 4


@pytest.mark.parametrize(("answer", "truth"), [(objects(SQUARE), [SQUARE]), ("[]", [SQUARE]), ("x", []), ("[{}]", [])])
def test_compat_changes_nothing_else(answer, truth):
    assert reward(answer, *truth, compat="upstream") == reward(answer, *truth)


def test_an_unknown_compat_is_refused():
    with pytest.raises(UsageError, match="no compat 'original'"):
        reward("[]", compat="original")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("<think></think> \n <answer></answer>", 1.0),
        ("<think>a</answer></think><answer>b</answer></answer>", 1.0),
        ("<think>a</think>, so <answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>\n", 0.0),
        (" <think>a</think><answer>b</answer>", 0.0),
        ("<think>a<answer>b</answer>", 0.0),
        ("<think>a</think><answer>", 0.0),
        ("<answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_golden_think_format(text, expected):
    assert score_think_format(text) == expected


TAGS = st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "a", "<", "</answer"]))


@given(TAGS.map("".join))
@settings(deadline=None)
def test_think_format_is_the_pattern_of_the_definition(text):
    found = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL)
    assert score_think_format(text) == (found is not None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a. b. c.", 1.0),
        ("a. a. b.", 1.0),  # one repeats
        ("a. a. b. b.", 0.0),  # two do
        ("a. a. a.", 0.0),
        ("a.\n a . a", 0.0),
        ("... .. .", 1.0),
        ("a, a, a", 1.0),
        ("", 1.0),
    ],
)
def test_golden_non_repeat(text, expected):
    assert score_non_repeat(text) == expected


@pytest.mark.parametrize(
    ("solution", "why"),
    [
        ("", "no JSON list"),
        ("{}", "no JSON list"),
        ("[", "no JSON list"),
        (None, "no JSON text"),
        ([{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}], "no JSON text"),
        ('[{"bbox_2d": [1, 2, 3, 4]}]', "object 1 has no point_2d of two finite numbers"),
        ('[{"point_2d": [1, 2]}]', "object 1 has no bbox_2d of four finite numbers"),
        ('[{"bbox_2d": [1, 2, NaN, 4], "point_2d": [1, 2]}]', "object 1 has no bbox_2d"),
        ("[7]", "object 1 has no bbox_2d"),
        (objects(SQUARE, ([1, 2, 841, 4], [2, 3])), "object 2 leaves the frame of 840x840"),
        (objects(([-1, 2, 8, 4], [2, 3])), "object 1 leaves the frame"),
        (objects(([1, 2, 8, 4], [2, 841])), "object 1 leaves the frame"),
        (objects(([8, 2, 1, 4], [2, 3])), "the corners of object 1 are not in the order"),
    ],
)
def test_a_bad_solution_is_one_clear_line(solution, why):
    with pytest.raises(DataError, match=why) as caught:
        compute_reward(reply("[]"), solution)
    assert "\n" not in str(caught.value)


LONG = {
    "nothing but an opening": "<think>" + "x" * 100_000,
    "answers that never close": "<think>" + "</think><answer>" * 6_000,
    "white space before no answer": "<think>" + ("</think>" + " " * 1_000) * 100 + "</answer>",
    "open brackets": reply("[" * 100_000),
    "open objects": reply('[{"bbox_2d":' * 8_000),
    "a long number": reply('[{"bbox_2d": [' + "9" * 100_000 + ", 1, 2, 3]}]"),
    "a long fraction": reply('[{"bbox_2d": [0.' + "1" * 100_000 + ", 1, 2, 3]}]"),
    "a long string": reply('["' + "\\u0041" * 15_000 + '"]'),
    "full stops": reply("." * 100_000),
    "short sentences": reply("a." * 50_000),
    "objects": reply(objects(*[SQUARE] * 2_000)),
    "half a surrogate": reply("\ud800" * 1_000),
}


@pytest.mark.parametrize("label", LONG)
def test_the_longest_replies_take_no_time(label):
    start = time.process_time()
    total = compute_reward(LONG[label], objects(*[SQUARE] * 120)).total
    assert time.process_time() - start < 2
    assert 0 <= total <= 7


QUARTERS = st.integers(0, 4 * 280).map(lambda value: value / 4)  # exact in every frame below
ANY_NUMBERS = QUARTERS | st.floats() | st.integers()


def pairs(numbers, **sizes):
    return st.lists(
        st.tuples(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=2, max_size=2)), **sizes
    )


def upright(found):
    return [([*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])], point) for box, point in found]


TRUTHS = pairs(st.integers(0, 280), min_size=1, max_size=6).map(upright)
JSON = st.recursive(
    st.none() | st.booleans() | ANY_NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["bbox_2d", "point_2d", "label"]), inner),
    max_leaves=20,
)
TEXTS = (
    st.text()
    | st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a.", "[", "]", "{", "}", "7"])).map(
        "".join
    )
    | JSON.map(json.dumps).map(reply)
    | pairs(ANY_NUMBERS, max_size=8).map(lambda found: reply(objects(*found)))
)


@given(TEXTS, st.just([]) | TRUTHS, st.sampled_from([None, "upstream"]))
@settings(deadline=None)
def test_any_text_gets_a_reward_within_bounds(text, truth, compat):
    parts = compute_reward(text, objects(*truth), model_size=(280, 280), compat=compat)
    assert all(0 <= part <= most for part, most in zip(parts, (1, 2, 3, 1), strict=True))
    assert all(type(part) is float for part in parts)
    assert parts.total == pytest.approx(sum(parts))
    assert 0 <= parts.total <= 7


@given(TRUTHS)
@settings(deadline=None)
def test_the_solution_itself_is_a_perfect_answer(truth):
    inside = [(box, box[:2]) for box, _ in truth]
    assert reward(objects(*inside), *inside, model_size=(280, 280)).total == 7


@st.composite
def scenes(draw):
    """Predictions near some of the true objects, and the truth."""
    truth = draw(TRUTHS)
    shifts = st.lists(st.integers(-12, 12), min_size=6, max_size=6)
    near = [
        ([v + d for v, d in zip(box, shift, strict=False)], [v + d for v, d in zip(point, shift[4:], strict=True)])
        for (box, point), shift in zip(truth, draw(st.lists(shifts, min_size=1, max_size=len(truth))), strict=False)
    ]
    return near + draw(pairs(QUARTERS, max_size=2)), truth


@given(scenes(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_objects_does_not_matter(scene, random):
    predicted, truth = scene
    before = reward(objects(*predicted), *truth, model_size=(280, 280))
    random.shuffle(predicted)
    random.shuffle(truth)
    assert reward(objects(*predicted), *truth, model_size=(280, 280)) == pytest.approx(before)


@given(scenes(), st.sampled_from([(280, 280), (840, 840), (420, 280)]))
@settings(deadline=None)
def test_all_pairs_at_once_equal_the_double_loop(scene, size):
    predicted, truth = scene
    text, solution = reply(objects(*predicted)), objects(*truth)
    ours = compute_reward(text, solution, model_size=size)
    assert ours == plain_reward(text, solution, model_size=size)
    if max(len(predicted), len(truth)) <= 5:
        assert ours == plain_reward(text, solution, model_size=size, matching=every_matching)


def test_trying_all_matchings_finds_more_than_taking_the_best_pair_first():
    scores = [[3, 2], [2, 0]]
    assert best_matching(scores) == every_matching(scores) == 4


def test_the_benchmark_compares_equal_rewards(capsys, monkeypatch):
    monkeypatch.setattr(rewards_benchmark, "FEW_OBJECTS", (1, 3))
    assert rewards_benchmark.main(["--objects", "2", "--rounds", "1"]) == 0
    assert "all rewards were equal" in capsys.readouterr().out


def test_the_benchmark_notices_a_difference():
    with pytest.raises(AssertionError, match="differ"):
        rewards_benchmark.measure(2, lambda *_: Reward(0.0, 0.0, 0.0, 0.0), 1)


def test_trl_gets_one_function_for_each_part():
    completions = [[{"role": "assistant", "content": text}] for text in (reply(objects(SQUARE)), "no")]
    columns = {"solution": [objects(SQUARE)] * 2, "prompt": ["p"] * 2, "image": [None] * 2}
    functions = trl_rewards()
    assert [function.__name__ for function in functions] == ["think_format", "answer_format", "accuracy", "non_repeat"]
    values = [function(completions=completions, completion_ids=[[1], [2]], **columns) for function in functions]
    assert values == [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [1.0, 1.0]]


def test_trl_rewards_can_be_pickled_and_keep_their_settings():
    solution = objects(([10, 10, 20, 20], [15, 15]))
    said = [[{"role": "assistant", "content": reply(solution)}]]
    for function in trl_rewards(model_size=(280, 280), compat="upstream"):
        again = pickle.loads(pickle.dumps(function))
        assert again.__name__ == function.__name__
        assert again(said, [solution]) == function(said, [solution]) != [0]


def test_trl_rewards_take_the_frame_and_a_choice_of_parts():
    completions = [[{"role": "assistant", "content": reply(objects(([0, 0, 10, 14], [5, 5])))}]]
    [function] = trl_rewards(model_size=(280, 280), parts=["accuracy"])
    # 11 x 11 of 11 x 15 pixels; mean difference 1; in an 840 frame the box would not differ either
    assert function(completions=completions, solution=[objects(([0, 0, 10, 10], [5, 5]))]) == [3.0]
    [function] = trl_rewards(model_size=(280, 280), parts=["accuracy"], compat="upstream")
    assert function(completions=completions, solution=["[]"]) == [0.0]
    with pytest.raises(UsageError, match="no reward 'beauty'"):
        trl_rewards(parts=["beauty"])


def test_rewards_need_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers'}"
    code = f"import sys, vision_reasoner.training.grpo.rewards; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
