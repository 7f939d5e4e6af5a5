"""Asking back: what is asked, what the answer does to a result, and how a reply contradicts itself."""

import pytest

from vision_reasoner.geometry import Box
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.results import Instance, Prediction, Status, Task
from vision_reasoner.verify import contradiction, presence_of, question_for, subject_of, with_answer

DOG = Instance(Box(10, 20, 30, 40))


def found(n: int, thinking: str = "", query: str = "please segment the dogs") -> Prediction:
    return Prediction((100, 80), query, Task.DETECTION, thinking, instances=[DOG] * n)


def says(text: str, likelihood: float | None = None) -> Reply:
    logprobs = () if likelihood is None else ((len(text), likelihood),)
    return Reply(text, (840, 840), logprobs=logprobs)


@pytest.mark.parametrize(
    ("query", "subject"),
    [
        ("dog", "dog"),
        ("please segment the dogs in this image", "dogs"),
        ("How many airplanes are there in this image?", "airplanes"),
        ("can you detect any cow here", "cow"),
        ("draw a bounding box around all of the red cars, please", "red cars"),
        ("the man to the left of the table", "man to the left of the table"),
        ("something that keeps the rain off", "something that keeps the rain off"),
        ("find", "find"),
        ("the", "the"),
    ],
)
def test_the_subject_of_a_request_is_what_it_asks_for(query, subject):
    assert subject_of(query) == subject


def test_the_question_asks_whether_there_is_any():
    assert question_for("detect the dogs") == "Is there any dogs?"


@pytest.mark.parametrize(
    ("reply", "presence"),
    [
        (says("yes"), 1.0),
        (says("No, there is none."), 0.0),
        (says("yes", -0.1), pytest.approx(0.905, abs=1e-3)),
        (says("no", -0.1), pytest.approx(0.095, abs=1e-3)),
        (says("<think>Is there? No, or perhaps.</think>Yes"), 1.0),
        (says("a nose and an eye"), None),
        (says(""), None),
    ],
)
def test_presence_is_how_sure_the_answer_is(reply, presence):
    assert presence_of(reply) == presence


@pytest.mark.parametrize(
    ("thinking", "n", "against"),
    [
        ("I look for dogs: (10,20). 1 dog.", 1, False),
        ("I look for dogs: (10,20). 1 dog.", 2, True),
        ("There are three dogs, one of them black.", 3, False),
        ("There are 3 dogs.", 2, True),
        ("Two dogs are in front, and a third one behind: three dogs.", 3, False),
        ("There are 2 cats and a dog.", 1, False),
        ("A tree. There is no dog in the image.", 1, True),
        ("There are no dogs on the left. On the right stands a dog.", 1, False),
        ("I look for dogs: nothing.", 2, True),
        ("No dogs can be seen.", 1, True),
        ("I look for dogs: nothing.", 0, False),
        ("", 2, False),
    ],
)
def test_a_reply_contradicts_itself_where_thinking_and_list_differ(thinking, n, against):
    assert (contradiction(found(n, thinking)) is not None) == against


def test_yes_leaves_the_result_and_says_how_sure_it_is():
    result = with_answer(found(1), says("yes", -0.1))
    assert result.instances[0].presence == pytest.approx(0.905, abs=1e-3)
    assert (result.count, result.warnings) == (1, ())


def test_no_is_a_warning_and_leaves_the_objects():
    result = with_answer(found(1), says("no"))
    assert (result.count, result.status) == (1, Status.OK)
    assert result.instances[0].presence == 0.0
    assert result.warnings == ("asked back whether there is any, the model says no",)


def test_nothing_is_left_where_answer_and_thinking_both_deny_it():
    result = with_answer(found(2, "There is no dog here. There are no dogs."), says("No."))
    assert (result.count, result.status) == (0, Status.NONE)
    assert len(result.warnings) == 2


def test_an_answer_that_is_neither_is_said():
    result = with_answer(found(1), says("perhaps"))
    assert result.instances[0].presence is None
    assert "neither yes nor no: 'perhaps'" in result.warnings[0]
