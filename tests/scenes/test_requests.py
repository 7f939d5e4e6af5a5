"""Requests: every answer is the right one for its scene, and the held-out wordings are held out."""

import random

import pytest

from tests.support.drawings import sprites
from vision_reasoner.results import Task
from vision_reasoner.scenes import requests as asking
from vision_reasoner.scenes.classes import CLASSES
from vision_reasoner.scenes.requests import NO_OBJECT, Request, RequestContext, Wording, random_requests
from vision_reasoner.scenes.scene import Scene, random_scene


def asked(template: asking.RequestTemplate, n: int = 20) -> list[tuple[Scene, Request]]:
    """`n` scenes with a request of one kind."""
    found: list[tuple[Scene, Request]] = []
    rng = random.Random(0)
    while len(found) < n:
        scene = random_scene(sprites(), rng, (280, 280))
        request = template(RequestContext(scene, rng))
        if request is not None:
            found.append((scene, request))
    return found


def said(request: Request) -> str:
    return "".join(span.text for span in request.thinking)


def test_by_name_means_every_object_of_the_class() -> None:
    for scene, request in asked(asking.by_name):
        labels = {scene.objects[i].label for i in request.targets}
        assert len(labels) == 1
        assert list(request.targets) == [i for i, o in enumerate(scene.objects) if o.label in labels]
        name = CLASSES[labels.pop()]
        assert name.name in request.query or name.plural in request.query


def test_counting_says_the_number_of_targets() -> None:
    for _, request in asked(asking.counting):
        assert request.task is Task.COUNTING
        assert (f". {len(request.targets)} " if request.targets else "nothing") in said(request)
        assert said(request).count("(") == len(request.targets)


def test_what_is_absent_has_no_target() -> None:
    for scene, request in asked(asking.absent):
        assert request.targets == ()
        assert request.thinking[1].target == NO_OBJECT
        assert not any(request.thinking[1].class_id == o.label for o in scene.objects)


def test_by_colour_means_those_of_the_class_in_that_color() -> None:
    for scene, request in asked(asking.by_color):
        for i in request.targets:
            color = scene.objects[i].color
            assert color is not None
            assert color in request.query
            assert color in said(request)


@pytest.mark.parametrize(
    ("word", "axis", "sign"), [("leftmost", 0, 1), ("rightmost", 0, -1), ("topmost", 1, 1), ("lowest", 1, -1)]
)
def test_by_place_means_the_outermost(word: str, axis: int, sign: int) -> None:
    for scene, request in asked(asking.by_place, 60):
        if f"the {word} is" in said(request):
            (best,) = request.targets
            same = [o for o in scene.objects if o.label == scene.objects[best].label]
            centers = [sign * (o.box[axis] + o.box[axis + 2]) for o in same]
            assert centers[same.index(scene.objects[best])] == min(centers)


def test_by_purpose_means_all_that_serve_it() -> None:
    for scene, request in asked(asking.by_purpose):
        purpose = next(p for p in asking.PURPOSES if f"that {p[0]}:" in said(request))
        assert sorted(request.targets) == [i for i, o in enumerate(scene.objects) if o.name in purpose[1]]


def test_questions_have_answers_and_no_targets() -> None:
    for template in (asking.ask_name, asking.ask_color, asking.ask_there, asking.ask_what, asking.ask_side):
        for scene, request in asked(template, 5):
            assert request.task is Task.VQA
            assert request.answer is not None
            assert request.answer.text
            if template is asking.ask_name:
                assert request.answer.text in {o.text for o in scene.objects}


def test_a_question_about_a_side_leads_over_the_thing_it_names() -> None:
    for scene, request in asked(asking.ask_side):
        answer = request.answer
        assert answer is not None
        assert answer.anchor is not None
        named = scene.objects[answer.anchor]
        assert answer.class_id == named.label
        assert named.name in request.query
        assert answer.target not in (None, answer.anchor)


def test_held_out_wordings_are_never_trained_on() -> None:
    wordings = [w for w in vars(asking).values() if isinstance(w, Wording)]
    wordings += [w for t in (asking.SIZES, asking.PLACES, asking.RELATIONS) for w in t.values()]
    assert len(wordings) > 20
    for wording in wordings:
        assert not {t for t in wording.train if t} & {t for t in wording.held_out if t}


def test_requests_on_one_image_differ() -> None:
    scene = random_scene(sprites(), random.Random(1), (280, 280))
    queries = [r.query for r in random_requests(scene, random.Random(0), 8)]
    assert len(queries) == len(set(queries)) == 8
