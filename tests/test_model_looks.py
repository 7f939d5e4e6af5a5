"""Several looks through the whole: what is asked, in what order results come, what the settings do."""

import json
import math

import pytest

from tests.conftest import noise
from tests.test_model import NONE, ONE, Fills
from vision_reasoner import Prediction, ScriptedReasoner, Status, UsageError, VisionReasoner
from vision_reasoner.confidence import Calibration
from vision_reasoner.looks import views
from vision_reasoner.models.engine import Watch

MIRRORED = '<think>mirror</think><answer>[{"bbox_2d": [420, 84, 756, 420]}]</answer>'  # what ONE is in a mirror
VOTES = Calibration(0.0, {"votes": 0.0}, {"votes": 1.0})


def test_one_look_asks_once_and_says_nothing_of_votes():
    scripted = ScriptedReasoner([ONE])
    result = VisionReasoner(scripted).predict(noise(100, 50), "dog", "detection")
    assert len(scripted.asked) == 1
    [instance] = result.to_json()["instances"]
    assert not {"votes", "confidence", "presence"} & instance.keys()


def test_two_looks_ask_about_the_image_and_its_mirror():
    scripted = ScriptedReasoner([ONE, MIRRORED])
    result = VisionReasoner(scripted, looks=2).predict(noise(100, 50), "dog", "detection")
    assert scripted.asked == [((100, 50), "dog", "detection")] * 2
    [instance] = result.instances
    assert (tuple(instance.box), instance.votes, result.thinking) == ((10, 5, 50, 25), (2, 2), "one")
    assert "no confidence, only votes" in result.warnings[0]


def test_predict_takes_its_own_number_of_looks():
    scripted = ScriptedReasoner([ONE, MIRRORED])
    result = VisionReasoner(scripted).predict(noise(100, 50), "dog", "counting", looks=2)
    assert (result.count, len(scripted.asked)) == (1, 2)
    with pytest.raises(UsageError, match="looks"):
        VisionReasoner(ScriptedReasoner([])).predict(noise(9, 9), "dog", "counting", looks=0)


def test_questions_are_asked_once_however_many_looks():
    scripted = ScriptedReasoner(["a dog"])
    result = VisionReasoner(scripted, looks=3, verify=True).predict(noise(100, 50), "What is it?", "vqa")
    assert (result.answer, result.warnings, len(scripted.asked)) == ("a dog", (), 1)


def test_requests_with_several_looks_come_back_in_order_with_their_own_masks():
    scripted = ScriptedReasoner([ONE, MIRRORED, NONE, NONE])
    images = [noise(100, 50), noise(60, 60)]
    both = VisionReasoner(scripted, segmenter=Fills(), looks=2).predict_batch(
        [(image, "dog") for image in images], "segmentation"
    )
    assert [(result.count, result.image_size) for result in both] == [(1, (100, 50)), (0, (60, 60))]
    assert both[0].instances[0].mask_shape == (50, 100)


def test_confidence_is_the_calibrations_word():
    model = VisionReasoner(ScriptedReasoner([ONE, NONE]), calibration=VOTES, looks=2)
    [instance] = model.predict(noise(100, 50), "dog", "detection").instances
    assert instance.votes == (1, 2)
    assert instance.confidence == pytest.approx(1 / (1 + math.exp(-math.log(1.5 / 1.5))))


def test_what_is_less_sure_than_wanted_is_left_out():
    model = VisionReasoner(ScriptedReasoner([ONE, NONE]), calibration=VOTES, looks=2, min_confidence=0.6)
    result = model.predict(noise(100, 50), "dog", "detection")
    assert (result.count, result.status) == (0, Status.NONE)
    assert "1 of 1 objects are left out" in result.warnings[-1]


@pytest.mark.parametrize(("options", "query"), [({"tiles": "auto"}, "dog"), ({"tiles": "2x2"}, "the largest dog")])
def test_a_picture_that_needs_no_tiles_has_a_confidence_like_the_others_of_its_run(options, query):
    sure = Calibration(0.5, {}, {})
    for least, count in ((0.6, 1), (0.7, 0)):
        model = VisionReasoner(ScriptedReasoner([ONE]), calibration=sure, min_confidence=least, **options)
        result = model.predict(noise(100, 50), query, "detection")
        assert result.count == count
    kept = VisionReasoner(ScriptedReasoner([ONE]), calibration=sure, **options).predict(
        noise(100, 50), query, "detection"
    )
    assert kept.to_json()["instances"][0]["confidence"] == pytest.approx(0.622, abs=1e-3)
    bare = VisionReasoner(ScriptedReasoner([ONE]), **options).predict(noise(100, 50), query, "detection")
    assert not bare.warnings


def test_a_least_confidence_without_calibration_is_refused_before_anything_is_asked():
    scripted = ScriptedReasoner([ONE, ONE])
    with pytest.raises(UsageError, match="calibrated checkpoint"):
        VisionReasoner(scripted, looks=2, min_confidence=0.5).predict(noise(100, 50), "dog", "detection")
    assert not scripted.asked


@pytest.mark.parametrize(
    "options",
    [{"looks": 0}, {"looks": 6}, {"tiles": "1x1"}, {"merge": "most"}, {"min_confidence": 0.5}]
    + [{"looks": 2, "min_confidence": value} for value in (-0.1, 1.1, math.nan)],
)
def test_looks_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError):
        VisionReasoner(**options)


def test_a_watch_follows_the_first_look_of_each_request():
    told: list[tuple[int, str]] = []
    model = VisionReasoner(ScriptedReasoner([ONE, MIRRORED, NONE, NONE]), looks=2)
    watch = Watch(on_text=lambda number, text: told.append((number, text)))
    model.predict_batch([(noise(100, 50), "dog"), (noise(50, 50), "cat")], "detection", watch=watch)
    assert told == [(0, ONE), (1, NONE)]


def test_tiles_are_asked_about_in_their_own_size():
    size = (1000, 800)
    scripted = ScriptedReasoner([NONE] * 5)
    VisionReasoner(scripted, tiles="2x2").predict(noise(*size), "dogs", "detection")
    assert [asked[0] for asked in scripted.asked] == [view.size for view in views(size, "dogs", 1, (2, 2))]


@pytest.mark.parametrize(("size", "asked"), [((1000, 800), 1), ((3000, 1000), 3)])
def test_auto_tiles_are_for_images_several_times_the_frame(size, asked):
    scripted = ScriptedReasoner([NONE] * asked)
    VisionReasoner(scripted, tiles="auto").predict(noise(*size), "dogs", "detection")
    assert len(scripted.asked) == asked


def test_asking_back_is_a_question_in_the_same_batch():
    scripted = ScriptedReasoner([ONE, "no"])
    result = VisionReasoner(scripted, verify=True).predict(noise(100, 50), "detect the dogs", "detection")
    assert scripted.asked[1] == ((100, 50), "Is there any dogs?", "vqa")
    assert result.instances[0].presence == 0.0
    assert "the model says no" in result.warnings[0]


def test_votes_and_confidence_survive_json():
    model = VisionReasoner(ScriptedReasoner([ONE, MIRRORED, "yes"]), calibration=VOTES, looks=2, verify=True)
    result = model.predict(noise(100, 50), "dog", "detection")
    read = Prediction.from_json(json.loads(json.dumps(result.to_json())))
    assert read == result
    assert read.instances[0].agreement == 1.0
