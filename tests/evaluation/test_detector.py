"""The detector that fine-tuned reasoners are compared with: rows in, replies that `evaluation.score` reads out."""

import json

import datasets
import pytest
import torch

from evaluation import detector, score
from tests.conftest import noise
from tests.support.runs import make_data
from vision_reasoner.data.rows import columns_of, make_row
from vision_reasoner.data.solutions import Target
from vision_reasoner.data.tables import write_table
from vision_reasoner.geometry import Box, Point

SIDE = 56
TARGET = Target(Box.from_inclusive(10, 20, 39, 49), Point(20, 30))


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = []
    for i in range(12):
        image = noise(60, 90, seed=i)
        made.append(make_row(f"{i}a", "Disc", image, [TARGET] * (1 + i % 2), SIDE))
        made.append(make_row(f"{i}b", "cup", image, [], SIDE))
    write_table(tmp_path / "rows", "train", columns_of("hub"), made)
    return str(tmp_path / "rows")


def test_rows_are_put_together_by_their_picture(rows):
    pictures, names = detector.read_pictures(rows)
    assert names == ["disc", "cup"]
    assert [picture.labels for picture in pictures] == [[1], [1, 1]] * 6
    assert pictures[0].boxes == [[10, 20, 40, 50]]
    assert pictures[0].image.size == (SIDE, SIDE)


def test_a_mirrored_view_keeps_boxes_on_their_objects(rows):
    pictures, _ = detector.read_pictures(rows)
    trained = detector.Detector(2, SIDE, lr=1e-3, seed=1)
    views = [trained.view(pictures[0]) for _ in range(20)]
    boxes = {tuple(target["boxes"][0].tolist()) for _, target in views}
    assert boxes == {(10, 20, 40, 50), (16, 20, 46, 50), (10, 6, 40, 36), (16, 6, 46, 36)}


def test_what_it_answers_is_scored(rows, tmp_path, capsys):
    data = make_data(tmp_path / "set", "detection", 4)
    output = tmp_path / "out/replies.jsonl"
    command = [str(data), "--data", rows, "--minutes", "0.001", "--output", str(output), "--threads", "1"]
    assert detector.main(command) == 0
    assert torch.tensor(1e-30) * 1e-10 > 0, "denormal numbers are still flushed"
    replies = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(replies) == 4
    arguments = ["--suite", "detection", str(data), "--replies", str(output), "--output_path", str(tmp_path / "run")]
    assert score.main(arguments) == 0
    assert "MAE of the number of boxes" in capsys.readouterr().out


def test_a_sample_that_cannot_be_used_is_said_and_the_others_are_answered(rows, tmp_path):
    data = make_data(tmp_path / "set", "detection", 4)
    (data.parent / "2.png").unlink()
    output = tmp_path / "replies.jsonl"
    assert detector.main([str(data), "--data", rows, "--minutes", "0.001", "--output", str(output)]) == 0
    replies = [json.loads(line) for line in output.read_text().splitlines()]
    assert ["error" in reply for reply in replies] == [False, False, True, False]


@pytest.mark.usefixtures("rows")  # their cache
def test_rows_in_several_frames_are_refused(tmp_path, capsys):
    made = [make_row(str(i), "cup", noise(60, 90, seed=i), [], side) for i, side in enumerate([SIDE] * 11 + [84])]
    write_table(tmp_path / "mixed", "train", columns_of("hub"), made)
    data = make_data(tmp_path / "set", "detection", 4)
    command = [str(data), "--data", str(tmp_path / "mixed"), "--output", str(tmp_path / "x.jsonl")]
    assert detector.main(command) != 0
    assert "row '11' is in another frame" in capsys.readouterr().err


@pytest.mark.usefixtures("rows")
def test_rows_for_several_classes_at_once_are_refused(tmp_path, capsys):
    asked = ["cup", "disc", "cup and disc"]
    made = [make_row(str(i), asked[i % 3], noise(60, 90, seed=i), [], SIDE) for i in range(12)]
    write_table(tmp_path / "joined", "train", columns_of("hub"), made)
    data = make_data(tmp_path / "set", "detection", 4)
    assert detector.main([str(data), "--data", str(tmp_path / "joined"), "--output", str(tmp_path / "x.jsonl")]) != 0
    assert "row '2' asks for several classes at once" in capsys.readouterr().err


def test_a_class_that_the_pictures_aside_lack_keeps_its_score(rows, monkeypatch):
    pictures, _ = detector.read_pictures(rows)
    trained = detector.Detector(2, SIDE, lr=1e-3, seed=1)
    found = {1: [(0.3, [10, 20, 40, 50])], 2: [(0.1, [0, 0, 9, 9])]}
    monkeypatch.setattr(trained, "find", lambda _image: found)
    trained.choose_thresholds(pictures[:1])
    assert trained.thresholds[1] < 0.3
    assert trained.thresholds[2] == 0.5


def test_few_pictures_and_no_time_are_refused(rows, tmp_path, capsys):
    data = make_data(tmp_path / "set", "detection", 4)
    few = datasets.Dataset.from_parquet(f"{rows}/*.parquet").select(range(4))
    few.to_parquet(tmp_path / "few/train-0.parquet")
    for more, message in (([rows, "--minutes", "0"], "more than 0"), ([str(tmp_path / "few")], "too few")):
        assert detector.main([str(data), "--output", str(tmp_path / "x.jsonl"), "--data", *more]) != 0
        assert message in capsys.readouterr().err
