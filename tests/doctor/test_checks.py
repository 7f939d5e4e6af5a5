"""Each check on models that do it right, and on models that do not."""

import numpy as np
import pytest

from tests.support.known import Knows, answer, as_it_should, fence
from tests.test_model import Fills
from vision_reasoner import VisionReasoner
from vision_reasoner.doctor.checks import ROUTES, check_router, check_segmenter, examine
from vision_reasoner.doctor.scenes import SIZES
from vision_reasoner.errors import CheckpointError, EngineError, QueryError
from vision_reasoner.models.engine import Prompt
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.models.router import route_of
from vision_reasoner.prompts import DIALECTS


class Routes:
    """A router that says what it is told to."""

    def __init__(self, *replies):
        self.replies = replies

    def route_batch(self, queries):
        return [route_of(reply, query) for reply, query in zip(self.replies, queries, strict=True)]


ROUTER = Routes("#### 1", "#### 1", "#### 2", "#### 4", "#### 3")


class Exact:
    """A segmenter that is right about disks."""

    def encode(self, image):
        return image.size

    def masks(self, features, boxes, points=None):
        del points
        y, x = np.ogrid[: features[1], : features[0]]
        for x1, y1, x2, y2 in boxes:
            yield np.hypot(x + 0.5 - (x1 + x2) / 2, y + 0.5 - (y1 + y2) / 2) <= (x2 - x1) / 2, 1.0


def examined(engine, model="vision_reasoner", router=ROUTER, segmenter=None):
    reasoner = Reasoner(engine, dialect=DIALECTS[model])
    return examine(VisionReasoner(reasoner, router, segmenter or Exact()))


def check(found, name):
    return next(check for check in found.checks if check.name == name)


@pytest.mark.parametrize(("model", "form"), [("vision_reasoner", answer), ("qwen", fence)])
def test_all_is_well(model, form):
    found = examined(Knows(form=form, logprobs=((5, -0.1),)), model)
    assert [check.state for check in found.checks] == ["ok"] * 5, found.checks
    assert found.verdict.state == "confirmed"
    assert (found.n_replies, found.n_tokens) == (len(SIZES), 50 * len(SIZES))


def test_a_model_that_knows_no_airplanes_is_asked_for_circles():
    class OnlyCircles(Knows):
        def generate(self, prompts, **options):
            written = super().generate(prompts, **options)
            nothing = Knows(lambda *_: []).generate(prompts)
            pairs = zip(prompts, written, nothing, strict=True)
            return [one if "red circles" in prompt.text else none for prompt, one, none in pairs]

    found = examined(OnlyCircles())
    assert found.verdict.state == "confirmed"
    assert {asked.scene.query for asked in found.asked} == {"red circles"}
    assert found.n_replies == 2 * len(SIZES)


def test_where_no_boxes_come_the_reply_is_shown():
    found = examined(Knows(lambda *_: []))
    assert check(found, "Frame").state == "undecided"
    assert "<answer>[]</answer>" in check(found, "Frame").advice
    assert check(found, "Replies").state == "ok", "an empty list is an answer"


@pytest.mark.parametrize(
    ("engine", "told", "advised"),
    [
        (Knows(form=fence), "0 of 5 in the form of --model vision_reasoner", "--model qwen or"),
        (Knows(form=lambda _: "There are some airplanes."), "There are some airplanes.", "--model"),
        (Knows(form=lambda boxes: answer(boxes)[:150]), "truncated", "--max_new_tokens"),
        (Knows(form=lambda _: "<think>Hm", finished=False), "no answer", "--max_new_tokens"),
    ],
)
def test_replies_that_are_not_as_they_should(engine, told, advised):
    found = check(examined(engine), "Replies")
    assert found.state == "failed"
    assert told in found.summary
    assert advised in found.advice


def test_the_frame_is_measured_whatever_the_form():
    found = examined(Knows(lambda boxes, *_: boxes * 1000, fence))
    assert "0 to 1000" in check(found, "Frame").summary


class Refuses(Knows):
    """An engine that takes no picture called `name`."""

    def __init__(self, *names, error=QueryError):
        super().__init__()
        self.sizes, self.error = {SIZES[name] for name in names}, error

    def generate(self, prompts, **options):
        if any(isinstance(p, Prompt) and p.image is not None and p.image.size in self.sizes for p in prompts):
            raise self.error("too large")
        return super().generate(prompts, **options)


def test_a_picture_that_is_refused_leaves_the_others():
    found = examined(Refuses("large"))
    assert check(found, "Frame").state == "ok"
    assert check(found, "Replies").state == "failed"
    assert "1 of 5 requests failed; the first, on large pictures: too large" in check(found, "Replies").summary


@pytest.mark.parametrize("error", [EngineError, CheckpointError])
def test_an_engine_that_answers_nothing_is_an_error(error):
    with pytest.raises(error, match="too large"):
        examined(Refuses(*SIZES, error=error))


@pytest.mark.parametrize(
    ("replies", "told", "advised"),
    [
        (["#### 1", "#### 1", "#### 4", "#### 4", "#### 3"], "4 of 5.*'How many airplanes", "--task"),
        (["1", "1", "2", "4", "#### 3"], 'category after "####"', "task_router_model_path"),
    ],
)
def test_a_router_that_is_wrong(replies, told, advised):
    found = check_router(VisionReasoner(router=Routes(*replies)))
    assert found.state == "failed"
    assert all(part in found.summary for part in told.split(".*")), found.summary
    assert advised in found.advice
    assert len(replies) == len(ROUTES)


def test_parts_that_are_not_there_are_checks_that_failed():
    model = VisionReasoner(Reasoner(Knows()))
    assert (check_router(model).state, check_segmenter(model).state) == ("failed", "failed")
    assert "needs a router" in check_router(model).summary


def test_a_segmenter_that_is_wrong():
    assert check_segmenter(VisionReasoner(segmenter=Exact())).state == "ok"
    found = check_segmenter(VisionReasoner(segmenter=Fills()))
    assert found.state == "failed"
    assert "IoU 0.78 and 0.79" in found.summary, "a disk in its box has pi / 4 of it"


def test_a_reasoner_of_ones_own_can_be_examined():
    class Own:
        dialect = DIALECTS["vision_reasoner"]

        def ask(self, images, queries, *, tasks, **_):
            return Reasoner(Knows(as_it_should)).ask(images, queries, tasks=tasks)

    assert examine(VisionReasoner(Own(), ROUTER, Exact())).verdict.state == "confirmed"
