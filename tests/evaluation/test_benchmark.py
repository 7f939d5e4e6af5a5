"""The benchmark: both implementations agree, and what is printed has every stage."""

import json

import pytest

from evaluation.benchmark import STAGES, main, measure
from tests.conftest import noise
from tests.test_model import ONE, TWO, Routes
from vision_reasoner import ScriptedReasoner, Task, VisionReasoner
from vision_reasoner.models.router import Route
from vision_reasoner.models.segmenter import Segmenter


@pytest.fixture
def scripted(bundle):
    """A real segmenter behind a script for the first request, the warming up, and one round of both."""
    replies, tasks = [TWO, ONE, "a dog"], [Task.SEGMENTATION, Task.SEGMENTATION, Task.VQA]
    times = [1, 3, 3, 3]
    return VisionReasoner(
        ScriptedReasoner([reply for n in times for reply in replies[:n]]),
        Routes(*(Route(task, "") for n in times for task in tasks[:n])),
        Segmenter.from_pretrained(bundle / "segmenter", device="cpu"),
    )


def test_both_implementations_give_the_same(scripted):
    report = measure(scripted, [(noise(90, 60, i), f"query {i}") for i in range(3)], rounds=1)
    assert report.identical
    assert report.n_objects == 3
    assert report.warm["segment"] > 0
    assert report.plain["segment"] > 0
    assert len(report.ratios) == 1
    assert report.peak_memory_gb["memory"] > 0.1
    for word in (*STAGES, "cold", "warm", "plain", "identical", "peak memory"):
        assert word in report.table()


def test_from_the_command_line(bundle, tmp_path, capsys):
    noise(60, 60).save(tmp_path / "a.png")
    arguments = ["--image_path", str(tmp_path / "a.png"), "--query", "dog", "--model_path", str(bundle)]
    arguments += ["--requests", "2", "--rounds", "1", "--max_new_tokens", "4", "--device", "cpu"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cold"]["load"] > 0
    assert min(report["cold"]["total"], report["warm"]["total"]) > 0
    assert report["identical"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--rounds", "0"], 2), (["--query", "x"], 2), (["--query", "x", "--image_path", "missing.png"], 3)],
)
def test_wrong_calls_say_so(bundle, arguments, code, capsys):
    assert main(["--model_path", str(bundle), *arguments]) == code
    assert capsys.readouterr().err.startswith("error: ")
