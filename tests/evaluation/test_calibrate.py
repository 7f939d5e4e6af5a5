"""Calibration: fitted and measured from folders of runs alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation.calibrate import main
from tests.support.runs import make_data, right, write_run
from vision_reasoner.confidence import read_calibration
from vision_reasoner.geometry import Box
from vision_reasoner.results import Instance


def votes_tell(sample):
    """The true box, found by two looks, and a wrong one, found by one of two; sometimes the other way round."""
    strange = sample.index % 8 == 7
    true = replace(right(sample).instances[0], votes=(1, 2) if strange else (2, 2))
    wrong = Instance(Box(88, 2, 95, 9), likelihood=-0.2, votes=(2, 2) if strange else (1, 2))
    return right(sample, instances=[true, wrong])


@pytest.fixture
def folder(tmp_path):
    data = make_data(tmp_path / "data", "detection", 40)
    return write_run(tmp_path / "run", "detection", data, votes_tell)


def test_a_fit_tells_right_objects_from_wrong_ones(folder, tmp_path, capsys):
    file = tmp_path / "calibration.json"
    assert main([str(folder), "--output", str(file)]) == 0
    assert capsys.readouterr().out.startswith("80 objects in 39 images, 50.0 % right\nAUROC  1.000")
    calibration = read_calibration(file)
    assert calibration.weights["votes"] > 0
    assert calibration.fitted_on == "80 objects of toys"


def test_a_fitted_calibration_can_be_measured(folder, tmp_path, capsys):
    file = tmp_path / "calibration.json"
    main([str(folder), "--output", str(file)])
    fitted = capsys.readouterr().out
    assert main([str(folder), "--measure", str(file)]) == 0
    assert capsys.readouterr().out == fitted


@pytest.mark.parametrize(
    ("suite", "answer", "message"),
    [
        ("detection", right, "was run with one look"),
        ("counting", right, "no sample has true boxes"),
        ("detection", lambda sample: right(sample, instances=[]), "0 right and 0 wrong objects are too few"),
    ],
)
def test_runs_that_say_nothing_of_it_are_refused(tmp_path, capsys, suite, answer, message):
    folder = write_run(tmp_path / "run", suite, make_data(tmp_path / "data", suite), answer)
    assert main([str(folder)]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nothing_is_written_while_measuring(folder, tmp_path, capsys):
    assert main([str(folder), "--measure", "x.json", "--output", str(tmp_path / "y.json")]) == 2
    assert main([str(folder), "--measure", str(tmp_path / "missing.json")]) == 4
    assert "is no calibration" in capsys.readouterr().err


def test_the_records_hold_votes_and_confidence(folder):
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {tuple(found["votes"]) for line in lines for found in line["instances"]} == {(1, 2), (2, 2)}
    assert np.all([found["confidence"] is None for line in lines for found in line["instances"]])


@pytest.mark.parametrize("votes", [[3, 2], [0, 1], [], "ab", [None, 1]])
def test_damaged_votes_are_one_line(folder, capsys, votes):
    file = folder / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["instances"][0]["votes"] = votes
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(folder)]) == 3
    assert f"sample {lines[0]['id']} is damaged" in capsys.readouterr().err
