"""The benchmark of a shape: random weights of the right sizes, also as a checkpoint."""

import json

import pytest
import torch

from evaluation import benchmark, shapes
from evaluation.shapes import SHAPES, build_model
from vision_reasoner.errors import CheckpointError, ExitCode


@pytest.mark.parametrize(("name", "parameters"), [("7b", 8.292e9), ("qwen3-2b", 2.128e9)])
def test_the_released_shapes(name, parameters):
    shape = SHAPES[name]
    with torch.device("meta"):
        model = shape.model_class(shape.config(tie_word_embeddings=shape.tied))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_from_the_command_line(capsys):
    arguments = ["--shape", "tiny", "--at_once", "2", "--rounds", "1", "--max_new_tokens", "3", "--device", "cpu"]
    assert benchmark.main([*arguments, "--json"]) == 0
    assert [row["at_once"] for row in json.loads(capsys.readouterr().out)] == [2, 2, 2]


def test_a_shape_becomes_a_checkpoint_once(tmp_path, capsys):
    arguments = ["--shape", "tiny", "--device", "cpu", "--save", str(tmp_path / "tiny")]
    assert benchmark.main(arguments) == 0
    compared = ["--model_path", str(tmp_path / "tiny"), "--engines", "transformers", "--at_once", "1", "--rounds", "1"]
    assert benchmark.main([*compared, "--max_new_tokens", "3", "--device", "cpu", "--json"]) == 0
    assert [row["same"] for row in json.loads(capsys.readouterr().out)] == [1, 1, 1]
    assert benchmark.main(arguments) == ExitCode.USAGE, "nothing is overwritten"


@pytest.mark.parametrize("arguments", [["--save", "x"], ["--shape", "tiny", "--engines", "transformers"]])
def test_options_that_do_not_go_together(arguments):
    assert benchmark.main(arguments) == ExitCode.USAGE


def test_without_the_bundled_processor(monkeypatch):
    monkeypatch.setattr(shapes, "in_pretrained", lambda _: None)
    with pytest.raises(CheckpointError, match="processor"):
        build_model("tiny", device="cpu")
