"""Confidence: what is known of an object, the model that is fitted to it, and how it is kept."""

import json
import math

import numpy as np
import pytest

from vision_reasoner.confidence import Calibration, evidence, find_calibration, keep_confident, read_calibration
from vision_reasoner.errors import CheckpointError
from vision_reasoner.geometry import Box
from vision_reasoner.models.checkpoints import CALIBRATION, digest
from vision_reasoner.results import Instance, Prediction, Status, Task

SIZE = (100, 80)
BOX = Box(10, 20, 30, 40)


def sample(n: int, seed: int = 0) -> tuple[list[dict[str, float]], list[bool]]:
    """Objects whose log-odds of being right are 2 x votes - 1; half of them have a score that tells nothing."""
    rng = np.random.default_rng(seed)
    votes = rng.normal(size=n)
    right = rng.random(n) < 1 / (1 + np.exp(1 - 2 * votes))
    known = [{"votes": float(vote)} | ({"score": float(rng.random())} if i % 2 else {}) for i, vote in enumerate(votes)]
    return known, right.tolist()


def test_what_is_not_known_of_an_object_is_missing():
    assert evidence(Instance(BOX), SIZE) == {"area": pytest.approx(math.log(0.05))}


def test_all_that_several_looks_and_a_mask_tell_is_evidence():
    mask = np.zeros((80, 100), dtype=bool)
    mask[20:40, 10:20] = True  # fills half of the box
    known = evidence(Instance(BOX, mask=mask, score=0.9, likelihood=-0.2, votes=(2, 3)), SIZE)
    assert known == pytest.approx(
        {"area": math.log(0.05), "votes": math.log(2.5 / 1.5), "likelihood": -0.2, "score": 0.9, "mask": 0.5}
    )


def test_more_votes_of_as_many_looks_are_stronger_evidence():
    votes = [evidence(Instance(BOX, votes=pair), SIZE)["votes"] for pair in [(1, 3), (1, 2), (2, 3), (2, 2), (3, 3)]]
    assert votes == sorted(votes)


def test_the_fit_finds_the_odds_that_the_data_have():
    calibration = Calibration.fit(*sample(20_000))
    assert calibration.weights["votes"] == pytest.approx(2, abs=0.1)
    assert calibration.weights["score"] == pytest.approx(0, abs=0.2)
    assert calibration.confidence({"votes": 0.5}) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("right", [[True] * 40, [False] * 40, [True] * 9 + [False] * 31])
def test_too_few_of_either_kind_are_not_fitted_on(right):
    with pytest.raises(ValueError, match="too few"):
        Calibration.fit([{"votes": 0.0}] * 40, right)


def test_objects_that_can_be_told_apart_leave_the_weights_finite():
    right = [True] * 20 + [False] * 20
    calibration = Calibration.fit([{"votes": 1.0 if hit else -1.0} for hit in right], right)
    assert 0.9 < calibration.confidence({"votes": 1.0}) < 1
    assert 0 < calibration.confidence({"votes": -1e9}) < 0.1


def test_what_is_saved_is_what_is_read(tmp_path):
    calibration = Calibration.fit(*sample(500), fitted_on="500 objects")
    calibration.save(tmp_path / CALIBRATION)
    read = find_calibration(tmp_path)
    assert read is not None
    assert read.fitted_on == "500 objects"
    assert read.confidence({"votes": 1.0}) == pytest.approx(calibration.confidence({"votes": 1.0}), abs=1e-5)


def test_a_checkpoint_without_calibration_has_none(tmp_path):
    assert find_calibration(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"bias": "1", "means": {}, "weights": {}}',
        '{"bias": NaN, "means": {}, "weights": {}}',
        '{"bias": 0, "means": {"votes": 0}, "weights": {}}',
        '{"bias": 0, "means": {"votes": 0}, "weights": {"votes": 1e999}}',
        '{"bias": true, "means": {}, "weights": {}}',
    ],
)
def test_a_damaged_calibration_is_one_error(tmp_path, text):
    (tmp_path / CALIBRATION).write_text(text)
    with pytest.raises(CheckpointError, match="is no calibration"):
        find_calibration(tmp_path)


def test_a_calibration_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="is no calibration"):
        read_calibration(tmp_path)


def test_a_checkpoints_digest_does_not_depend_on_its_calibration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    before = digest(tmp_path, "reasoner")
    Calibration(0.0, {}, {}).save(tmp_path / CALIBRATION)
    assert digest(tmp_path, "reasoner") == before


def test_a_stated_count_is_no_object_of_little_confidence():
    stated = Prediction((60, 40), "How many ants?", Task.COUNTING, answer="5")
    assert keep_confident(stated, 0.5) is stated


def test_objects_of_little_confidence_are_left_out_and_said():
    instances = [Instance(BOX, confidence=0.9), Instance(BOX, confidence=0.2)]
    kept = keep_confident(Prediction(SIZE, "dogs", Task.DETECTION, instances=instances), 0.5)
    assert (kept.count, kept.status) == (1, Status.OK)
    assert kept.warnings == ("1 of 2 objects are left out: their confidence is below 0.5",)
    none = keep_confident(kept, 0.95)
    assert (none.count, none.status) == (0, Status.NONE)
