"""The whole: tasks decide which parts run, parts load once and when needed, results come back in order."""

import asyncio
import json
import subprocess
import sys
import time

import numpy as np
import pytest

import vision_reasoner
from tests.conftest import noise
from vision_reasoner import (
    Box,
    ImageError,
    Instance,
    Point,
    Prediction,
    QueryError,
    ScriptedReasoner,
    Status,
    Task,
    UsageError,
    VisionReasoner,
)
from vision_reasoner.errors import CheckpointError, VisionReasonerError
from vision_reasoner.images import ImageSource
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.models.router import Route
from vision_reasoner.prompts import QWEN2_5_VL, VISION_REASONER

ONE = '<think>one</think><answer>[{"bbox_2d": [84, 84, 420, 420], "point_2d": [210, 168]}]</answer>'
TWO = '<think>two</think><answer>[{"bbox_2d": [0, 0, 420, 420]}, {"bbox_2d": [420, 420, 840, 840]}]</answer>'
NONE = "<think>none</think><answer>[]</answer>"


class Routes:
    """A router that was told what to say."""

    def __init__(self, *routes):
        self.routes, self.asked = list(routes), []

    def route_batch(self, queries):
        self.asked.append(list(queries))
        return [self.routes.pop(0) for _ in queries]


class Fills:
    """A segmenter that fills boxes."""

    def __init__(self):
        self.images, self.points = [], []

    def encode(self, image):
        self.images.append(image)
        return image.size

    def masks(self, features, boxes, points=None):
        width, height = features
        for (x1, y1, x2, y2), point in zip(boxes, points, strict=True):
            self.points.append(point)
            mask = np.zeros((height, width), dtype=bool)
            mask[y1:y2, x1:x2] = True
            yield mask, 0.5


def test_coordinates_are_pixels_of_the_original_image():
    result = VisionReasoner(ScriptedReasoner([ONE])).predict(noise(100, 50), "dog", "detection")
    assert result.image_size == (100, 50)
    assert result.instances == (Instance(Box(10, 5, 50, 25), Point(25, 10)),)
    assert (result.task, result.status, result.thinking, result.reply) == (Task.DETECTION, Status.OK, "one", ONE)
    assert result.mask is None
    assert result.answer is None


def test_segmentation_gives_each_object_its_mask_and_the_union():
    segmenter = Fills()
    result = VisionReasoner(ScriptedReasoner([TWO]), segmenter=segmenter).predict(noise(84, 84), "dogs", "segmentation")
    assert [int(i.mask.sum()) for i in result.instances if i.mask is not None] == [42 * 42] * 2
    assert result.mask is not None
    assert result.mask.sum() == 2 * 42 * 42
    assert segmenter.points == [None, None], "boxes without points are no error"
    assert set(result.timings) == {"prefill", "decode", "segment"}


@pytest.mark.parametrize("task", ["detection", "counting", "vqa"])
def test_other_tasks_need_no_segmenter_and_a_given_task_no_router(task):
    result = VisionReasoner(ScriptedReasoner([ONE])).predict(noise(84, 84), "dogs", task)
    assert result.task == task


def test_nothing_found_needs_no_segmenter():
    result = VisionReasoner(ScriptedReasoner([NONE])).predict(noise(84, 42), "dogs", Task.SEGMENTATION)
    assert (result.status, result.count) == (Status.NONE, 0)
    assert result.mask is not None
    assert result.mask.shape == (42, 84)


def test_mixed_tasks_in_one_batch_come_back_in_order():
    router = Routes(Route(Task.VQA, ""), Route(Task.SEGMENTATION, ""), Route(Task.COUNTING, ""))
    scripted = ScriptedReasoner(["a red one", ONE, TWO, NONE])
    model = VisionReasoner(scripted, router, Fills())
    results = model.predict_batch(
        [(noise(50, 50, i), query) for i, query in enumerate(["what?", "the dog", "how many?", "cats"])],
        task=[None, None, None, "detection"],
    )
    assert [r.task for r in results] == [Task.VQA, Task.SEGMENTATION, Task.COUNTING, Task.DETECTION]
    assert [r.count for r in results] == [0, 1, 2, 0]
    assert [r.answer for r in results] == ["a red one", None, None, None]
    assert [r.query for r in results] == ["what?", "the dog", "how many?", "cats"]
    assert router.asked == [["what?", "the dog", "how many?"]], "the router is asked once, without the known one"
    assert ["route" in r.timings for r in results] == [True, True, True, False]


def test_one_picture_with_several_queries_is_looked_at_once():
    segmenter = Fills()
    picture = noise(50, 50)
    model = VisionReasoner(ScriptedReasoner([ONE, TWO]), segmenter=segmenter)
    model.predict_batch([(picture, "a"), (picture, "b")], task="segmentation")
    assert len(segmenter.images) == 1


def test_editing_is_refused_before_anything_is_asked():
    scripted = ScriptedReasoner([ONE])
    model = VisionReasoner(scripted, Routes(Route(None, "#### 3", "no image-generation model is configured")))
    with pytest.raises(QueryError, match="image-generation"):
        model.predict(noise(50, 50), "make it blue")
    assert not scripted.asked


def test_the_router_s_warning_reaches_the_result():
    model = VisionReasoner(ScriptedReasoner(["yes"]), Routes(Route(Task.VQA, "hm", "no category")))
    assert model.predict(noise(50, 50), "is it?").warnings == ("no category",)


@pytest.mark.parametrize(
    ("reply", "task", "status"),
    [
        (Reply(ONE[:-30], (840, 840), finished=False, n_tokens=9), "detection", Status.TRUNCATED),
        (Reply("<think>hm", (840, 840), finished=False, n_tokens=9), "detection", Status.NO_ANSWER),
        (Reply("a long answ", (840, 840), finished=False, n_tokens=9), "vqa", Status.TRUNCATED),
        (Reply("  ", (840, 840)), "vqa", Status.NO_ANSWER),
        (Reply("no tags", (840, 840)), "counting", Status.NO_ANSWER),
    ],
)
def test_a_reply_that_cannot_be_used_is_a_status_and_not_an_error(reply, task, status):
    result = VisionReasoner(ScriptedReasoner([reply])).predict(noise(50, 50), "dogs", task)
    assert result.status is status
    assert any("cut off after 9 tokens" in warning for warning in result.warnings) is not reply.finished


def test_a_picture_s_note_reaches_the_result(tmp_path):
    noise(50, 50).save(tmp_path / "a.gif", save_all=True, append_images=[noise(50, 50, 1)])
    result = VisionReasoner(ScriptedReasoner([NONE])).predict(tmp_path / "a.gif", "dog", "counting")
    assert len(result.warnings) == 1


def test_max_objects_is_kept_to():
    result = VisionReasoner(ScriptedReasoner([TWO]), max_objects=1).predict(noise(50, 50), "dogs", "counting")
    assert result.count == 1
    assert result.status is Status.PARTIAL


def test_the_grammar_is_the_reasoner_s():
    fence = '```json\n[{"bbox_2d": [0, 0, 10, 10], "label": "dog"}]\n```'
    scripted = ScriptedReasoner([fence], model_size=(20, 20), dialect=QWEN2_5_VL)
    assert VisionReasoner(scripted).predict(noise(40, 40), "dog", "detection").instances == (
        Instance(Box(0, 0, 20, 20), label="dog"),
    )


def test_parts_that_were_not_given_are_named():
    model = VisionReasoner(ScriptedReasoner([ONE]))
    with pytest.raises(UsageError, match="needs a router"):
        model.predict(noise(50, 50), "dog")
    with pytest.raises(UsageError, match="needs a segmenter"):
        model.predict(noise(50, 50), "dog", "segmentation")


def test_out_of_memory_in_the_segmenter_is_said_and_never_an_empty_result(monkeypatch):
    segmenter = Fills()

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(segmenter, "encode", fail)
    with pytest.raises(VisionReasonerError, match="out of memory while segmenting 1 objects of a 50x50 picture"):
        VisionReasoner(ScriptedReasoner([ONE]), segmenter=segmenter).predict(noise(50, 50), "dog", "segmentation")


def test_a_score_that_is_not_finite_is_none_and_ends_no_run():
    class Unsure(Fills):
        def masks(self, features, boxes, points=None):
            return [(mask, float("nan")) for mask, _ in super().masks(features, boxes, points)]

    result = VisionReasoner(ScriptedReasoner([ONE]), segmenter=Unsure()).predict(noise(50, 50), "dog", "segmentation")
    assert result.instances[0].score is None
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("task", ["editing", "", ["vqa", "vqa"]])
def test_wrong_tasks_are_refused(task):
    with pytest.raises(UsageError, match="task"):
        VisionReasoner(ScriptedReasoner([ONE])).predict(noise(50, 50), "dog", task)


@pytest.mark.parametrize("limit", ["max_new_tokens", "max_objects", "batch_size"])
def test_limits_below_one_are_refused(limit):
    with pytest.raises(UsageError, match=limit):
        VisionReasoner.from_pretrained("unused", **{limit: 0})  # type: ignore[arg-type]


def test_no_requests_load_nothing_and_give_nothing(bundle):
    model = VisionReasoner.from_pretrained(bundle)
    assert model.predict_batch([]) == []
    assert not model.load_seconds


# --- with weights ---------------------------------------------------------------------------------------------------
@pytest.fixture
def loads(monkeypatch):
    """How often each part was loaded."""
    counts = dict.fromkeys(["Reasoner", "Router", "Segmenter"], 0)
    for name in counts:
        cls = getattr(vision_reasoner.model, name)

        def load(*args, name=name, real=cls.from_pretrained, **kwargs):
            counts[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(cls, "from_pretrained", load)
    return counts


def test_parts_load_when_they_are_needed_and_once(bundle, loads):
    model = VisionReasoner.from_pretrained(bundle, device="cpu", max_new_tokens=3)
    assert sum(loads.values()) == 0
    for _ in range(2):
        model.predict(noise(50, 50), "dog", "counting")
        model.predict(noise(50, 50), "what?", "vqa")
        model.predict(noise(50, 50), "dog", "detection")
    assert loads == {"Reasoner": 1, "Router": 0, "Segmenter": 0}
    for _ in range(2):
        model.segment(noise(50, 50), [Box(0, 0, 9, 9)])
    assert loads == {"Reasoner": 1, "Router": 0, "Segmenter": 1}
    for _ in range(2):
        model.route(["dog"])
    assert loads == {"Reasoner": 1, "Router": 1, "Segmenter": 1}
    assert set(model.load_seconds) == {"reasoner", "router", "segmenter"}


def test_steps_are_usable_alone(bundle):
    model = VisionReasoner.from_pretrained(bundle, device="cpu", max_new_tokens=3)
    assert model.ask([noise(50, 50)], ["dog"], [Task.COUNTING])[0].model_size == (112, 112)
    found = model.segment(noise(60, 40), [Instance(Box(0, 0, 30, 30), Point(9, 9)), Box(5, 5, 50, 30)])
    assert [i.mask.shape for i in found if i.mask is not None] == [(40, 60)] * 2
    assert found[0].point == Point(9, 9)


IMAGE = noise(60, 40)


@pytest.fixture
def anything(tmp_path):
    """One image as a path, text, bytes, a Pillow image, a gray one, and arrays."""
    IMAGE.save(tmp_path / "image.png")
    file = tmp_path / "image.png"
    return [file, str(file), file.read_bytes(), IMAGE, IMAGE.convert("L"), np.asarray(IMAGE), np.asarray(IMAGE)[..., 0]]


def test_every_step_takes_any_image(anything):
    scripted = ScriptedReasoner([ONE] * len(anything))
    model = VisionReasoner(scripted, segmenter=Fills())
    assert len(model.ask(anything, ["dog"] * len(anything), "detection")) == len(anything)
    assert {size for size, _, _ in scripted.asked} == {(60, 40)}
    for image in anything:
        ((found),) = model.segment(image, [(5, 6, 20, 30)])
        assert found.mask is not None
        assert found.mask.sum() == 15 * 24


@pytest.mark.parametrize("task", [Task.VQA, "vqa", [Task.VQA], ["vqa"], (Task.VQA,)])
def test_ask_takes_a_task_or_its_name(task):
    scripted = ScriptedReasoner(["yes"])
    VisionReasoner(scripted).ask([IMAGE], ["is it?"], task)
    assert scripted.asked == [((60, 40), "is it?", Task.VQA)]


@pytest.mark.parametrize(
    ("images", "queries", "tasks", "message"),
    [
        ([IMAGE], ["a"], ["editing"], "no task 'editing'"),
        ([IMAGE], ["a"], ["vqa", "vqa"], "1 requests need as many tasks"),
        ([IMAGE], ["a"], [None], "needs the task"),
        ([IMAGE, IMAGE], ["a"], "vqa", "2 images need as many queries"),
        ([IMAGE], "a", "vqa", "a list of texts"),
        ([IMAGE], [7], "vqa", "a list of texts"),
    ],
)
def test_ask_says_what_is_wrong_with_its_arguments(images, queries, tasks, message):
    with pytest.raises(UsageError, match=message):
        VisionReasoner(ScriptedReasoner(["yes"])).ask(images, queries, tasks)


def test_route_refuses_a_single_text():
    with pytest.raises(UsageError, match="a list of texts"):
        VisionReasoner(router=Routes()).route("find the dog")


BOXES = [[5, 6, 20, 30], [0, 0, 60, 40]]
POINTS = [[9, 9], [30, 20]]


@pytest.mark.parametrize(
    ("boxes", "points"),
    [
        (BOXES, POINTS),
        ([tuple(box) for box in BOXES], [tuple(point) for point in POINTS]),
        (np.array(BOXES), np.array(POINTS)),
        (np.array(BOXES, np.float32) + 0.3, np.array(POINTS, np.float32) - 0.3),
        ([Box(*box) for box in BOXES], [Point(*point) for point in POINTS]),
        ([np.array(box) for box in BOXES], [np.array(point) for point in POINTS]),
        ([Instance(Box(*box), Point(*point)) for box, point in zip(BOXES, POINTS, strict=True)], None),
    ],
)
def test_segment_takes_boxes_and_points_as_arrays_tuples_lists_and_instances(boxes, points):
    if isinstance(boxes, np.ndarray) and boxes.dtype == np.float32:
        boxes[1] = BOXES[1]
    segmenter = Fills()
    found = VisionReasoner(segmenter=segmenter).segment(IMAGE, boxes, points)
    assert [list(instance.box) for instance in found] == BOXES
    assert [list(point) for point in segmenter.points] == POINTS
    assert VisionReasoner(segmenter=Fills()).segment(IMAGE, np.zeros((0, 4))) == []


@pytest.mark.parametrize(
    ("boxes", "points", "message"),
    [
        ([(20, 6, 5, 30)], None, r"box \(20, 6, 5, 30\): must be .* x1 < x2"),
        ([(5, 6, 5, 30)], None, "x1 < x2"),
        ([(5, 6, 61, 30)], None, "inside the image of 60x40"),
        ([(-5, 6, 20, 30)], None, "inside the image of 60x40"),
        ([Instance(Box(5, 6, 70, 30))], None, "inside the image of 60x40"),
        ([(5, 6, 20)], None, "4 finite numbers"),
        ([(5, 6, 20, float("nan"))], None, "4 finite numbers"),
        ([(5, 6, 20, float("inf"))], None, "4 finite numbers"),
        ([("a", 6, 20, 30)], None, "4 numbers"),
        (np.zeros((2, 2, 2)), None, "4 finite numbers"),
        ([(5, 6, 20, 30)], [(9, 41)], "outside the image"),
        ([(5, 6, 20, 30)], [(9,)], "2 finite numbers"),
        ([(5, 6, 20, 30)], [], "1 boxes need as many points"),
    ],
)
def test_segment_says_what_is_wrong_with_a_box_or_point(boxes, points, message):
    with pytest.raises(UsageError, match=message):
        VisionReasoner(segmenter=Fills()).segment(IMAGE, boxes, points)


def test_batch_equals_single_predictions(bundle):
    model = VisionReasoner.from_pretrained(bundle, device="cpu", max_new_tokens=8)
    requests = [(noise(50 + 9 * i, 60, i), query) for i, query in enumerate(["dog", "what?", "cats", "x"])]
    tasks = ["detection", "vqa", "counting", "vqa"]
    together = model.predict_batch(requests, task=tasks)
    apart = [model.predict(*request, task=task) for request, task in zip(requests, tasks, strict=True)]
    assert [p.reply for p in together] == [p.reply for p in apart]


@pytest.mark.parametrize(("option", "value"), [("model", "gpt"), ("compat", "downstream")])
def test_options_without_such_a_value_are_refused(bundle, option, value):
    with pytest.raises(UsageError, match=value):
        VisionReasoner.from_pretrained(bundle, **{option: value})


# --- the package ----------------------------------------------------------------------------------------------------
def test_exported_names():
    assert set(vision_reasoner.__all__) == {
        *("VisionReasoner", "Prediction", "Instance", "Box", "Point", "Task", "Status", "ScriptedReasoner"),
        *("parse_reply", "load_image", "VisionReasonerError", "UsageError", "ImageError", "CheckpointError"),
        *("QueryError", "EngineError", "ReplyError", "Watch", "__version__"),
    }
    for name in vision_reasoner.__all__:
        assert getattr(vision_reasoner, name) is not None
    assert set(vision_reasoner.__all__) <= set(dir(vision_reasoner))
    with pytest.raises(AttributeError, match="nonsense"):
        vision_reasoner.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, vision_reasoner; print([m for m in ('torch', 'transformers', 'numpy', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_importing_the_model_loads_no_torch():
    code = (
        "import sys, vision_reasoner.model; print([m for m in ('torch', 'transformers', 'sam2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


FAIL_WIDTH = 61


class Stumbles(ScriptedReasoner):
    """Fails with `error` wherever a picture of `FAIL_WIDTH` is among those it is asked about; else it says ONE."""

    def __init__(self, error):
        super().__init__([])
        self.error, self.batches = error, []

    def ask(self, images, queries, **options):  # noqa: ARG002
        self.batches.append([image.width for image in images])
        if FAIL_WIDTH in self.batches[-1]:
            raise self.error
        return [Reply(ONE, (840, 840)) for _ in images]


def each(model, widths):
    return model.predict_each([(noise(width, 40), "dogs") for width in widths], "counting")


@pytest.mark.parametrize("error", [VisionReasonerError("out of memory with a single request"), RuntimeError("odd")])
def test_a_request_that_fails_by_itself_costs_no_other(error):
    reasoner = Stumbles(error)
    outcomes = each(VisionReasoner(reasoner), [60, FAIL_WIDTH, 62])
    assert outcomes[1] is error
    assert [getattr(outcome, "count", None) for outcome in outcomes] == [1, None, 1]
    assert reasoner.batches == [[60, 61, 62], [60], [61], [62]]


def test_a_picture_that_does_not_load_is_set_aside_and_the_others_stay_one_batch(tmp_path):
    reasoner = Stumbles(RuntimeError())
    requests = [
        (noise(60, 40), "dogs"),
        (tmp_path / "missing.png", "dogs"),
        (b"no picture", "dogs"),
        (noise(62, 40), "x"),
    ]
    outcomes = VisionReasoner(reasoner).predict_each(requests, "counting")
    assert [isinstance(outcome, ImageError) for outcome in outcomes] == [False, True, True, False]
    assert "missing.png" in str(outcomes[1])
    assert reasoner.batches == [[60, 62]]


def test_what_every_request_meets_is_raised_and_no_result():
    with pytest.raises(RuntimeError, match="no kernel"):
        each(VisionReasoner(Stumbles(RuntimeError("no kernel"))), [FAIL_WIDTH] * 2)
    assert isinstance(each(VisionReasoner(Stumbles(RuntimeError("odd"))), [FAIL_WIDTH])[0], RuntimeError)
    for error in (UsageError("no such task"), CheckpointError("torn")):
        with pytest.raises(type(error)):
            each(VisionReasoner(Stumbles(error)), [60, FAIL_WIDTH])


def test_instances_carry_the_likelihood_of_their_own_tokens_where_the_reply_has_it():
    objects = ['{"bbox_2d": [0, 0, 420, 420]}', "{broken}", '{"bbox_2d": [420, 420, 840, 840]}']
    pieces = ["<think>t</think><answer>[", objects[0], ", ", objects[1], ", ", objects[2], "]</answer>"]
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    logprobs = tuple(zip(ends, [-9.0, -1.0, -9.0, -9.0, -9.0, -2.0, -9.0], strict=True))
    reply = Reply("".join(pieces), (840, 840), logprobs=logprobs)
    result = VisionReasoner(ScriptedReasoner([reply]), segmenter=Fills()).predict(noise(84, 84), "x", "segmentation")
    assert [instance.likelihood for instance in result.instances] == [-1.0, -2.0]
    assert all(instance.mask is not None for instance in result.instances)
    plain = VisionReasoner(ScriptedReasoner(["".join(pieces)])).predict(noise(84, 84), "x", "detection")
    assert [instance.likelihood for instance in plain.instances] == [None, None]


# --- as they are done, and asynchronously -----------------------------------------------------------------------------
class Writes:
    """A reasoner that goes on writing until it is stopped; says which queries it is at work on."""

    dialect = VISION_REASONER

    def __init__(self):
        self.writing = set()

    def ask(self, images, queries, *, tasks, max_new_tokens=9, batch_size=8, watch=None):  # noqa: ARG002
        text = ""
        assert watch is not None
        self.writing |= set(queries)
        while not text or not watch.stopped:
            text += "x"
            watch.on_text(0, text)
            time.sleep(0.001)
        self.writing -= set(queries)
        return [Reply(text, (84, 84), finished=False, n_tokens=len(text))]


def test_a_stream_has_the_text_and_then_the_result():
    async def pieces():
        model = VisionReasoner(ScriptedReasoner([ONE]))
        return [piece async for piece in model.astream(noise(100, 50), "dog", "detection")]

    text, result = asyncio.run(pieces())
    assert text == ONE
    assert isinstance(result, Prediction)
    assert result.instances == (Instance(Box(10, 5, 50, 25), Point(25, 10)),)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_the_model_stops_when_nobody_listens_any_more(how):
    reasoner = Writes()
    model = VisionReasoner(reasoner)

    async def listen(stream, heard):
        async for _ in stream:
            heard.set()

    async def leave():
        stream, heard = model.astream(noise(50, 50), "dog", "detection"), asyncio.Event()
        if how == "close":
            await anext(stream)
            await stream.aclose()
        else:
            listening = asyncio.create_task(listen(stream, heard))
            await heard.wait()
            listening.cancel()
            await asyncio.wait([listening])
        while reasoner.writing:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(leave(), 20))


def test_a_time_limit_ends_a_reply_with_what_is_there():
    result = asyncio.run(VisionReasoner(Writes()).apredict(noise(50, 50), "what?", "vqa", seconds=0.05))
    assert result.status is Status.TRUNCATED
    assert set(result.answer or "") == {"x"}
    assert any("was stopped after" in warning for warning in result.warnings)


def test_several_are_under_way_together_and_errors_are_raised_where_they_are_awaited():
    model = VisionReasoner(Writes())

    async def several():
        good = [model.apredict(noise(50, 50), f"query {i}", "vqa", seconds=0.05) for i in range(3)]
        return await asyncio.gather(*good, model.apredict(noise(50, 50), "x", "painting"), return_exceptions=True)

    *results, error = asyncio.run(several())
    assert [result.query for result in results] == [f"query {i}" for i in range(3)]
    assert isinstance(error, UsageError)


def test_results_as_they_are_done_have_their_numbers_and_errors_their_place():
    model = VisionReasoner(ScriptedReasoner([ONE, NONE, TWO]), batch_size=2)
    pictures: list[ImageSource] = [noise(50, 50), "missing.png", noise(50, 50), noise(50, 50)]
    outcomes = dict(model.predict_as_done(((picture, "dogs") for picture in pictures), "counting"))
    assert isinstance(outcomes.pop(1), ImageError)
    counts = {i: outcome.count for i, outcome in outcomes.items() if isinstance(outcome, Prediction)}
    assert counts == {0: 1, 2: 0, 3: 2}
