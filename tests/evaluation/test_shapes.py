"""The benchmark of a shape: random weights of the right sizes, and three ways of asking that write the same."""

import json

import pytest
import torch

from evaluation import benchmark, shapes
from evaluation.shapes import SHAPES, Reference, build_model, measure_shape, table
from vision_reasoner.errors import CheckpointError
from vision_reasoner.models import window_attention
from vision_reasoner.models.local import TransformersEngine


@pytest.fixture(scope="module")
def tiny():
    return build_model("tiny", device="cpu")


@pytest.mark.parametrize(("name", "parameters"), [("7b", 8.292e9), ("qwen3-2b", 2.128e9)])
def test_the_released_shapes(name, parameters):
    shape = SHAPES[name]
    with torch.device("meta"):
        model = shape.model_class(shape.config(tie_word_embeddings=shape.tied))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_no_reply_ends_and_all_ways_write_the_same(tiny):
    requests = shapes._requests(3)
    replies = []
    for way in (Reference(*tiny), TransformersEngine(*tiny), TransformersEngine(*tiny, compile="on")):
        seconds, told = shapes._ask(way, requests, 3, 9)
        assert seconds > 0
        assert [(r.n_tokens, r.finished) for r in told] == [(9, False)] * 3
        replies.append([r.text for r in told])
    assert replies[0] == replies[1] == replies[2]
    assert len(set(replies[0])) == 3


def test_the_reference_has_its_own_vision_attention(tiny, monkeypatch):
    model, processor = tiny
    used = []
    monkeypatch.setattr(
        TransformersEngine,
        "generate",
        lambda self, *_, **__: used.append(self.model.model.visual.config._attn_implementation),
    )
    for engine in (Reference(model, processor), TransformersEngine(model, processor)):
        engine.generate([], max_new_tokens=1, batch_size=1)
    assert used == ["sdpa", window_attention.NAME]


def test_every_way_has_its_row(tiny):
    rows = measure_shape(*tiny, sizes=(1, 2), n_tokens=4, rounds=2)
    assert [(row.at_once, row.name) for row in rows] == [
        (n, name) for n in (1, 2) for name in ("reference", "plain", "compiled")
    ]
    for row in rows:
        assert len(row.ratios) == len(row.tokens_per_second) == 2
        assert min(row.tokens_per_second + row.first_token_seconds + row.ratios) > 0
        assert row.memory_gb is None  # on a CPU
    assert rows[0].ratios == [1, 1]
    assert table(rows).count("\n") == len(rows)


def test_from_the_command_line(capsys):
    arguments = ["--shape", "tiny", "--at_once", "2", "--rounds", "1", "--max_new_tokens", "3", "--device", "cpu"]
    assert benchmark.main([*arguments, "--json"]) == 0
    assert [row["at_once"] for row in json.loads(capsys.readouterr().out)] == [2, 2, 2]


def test_without_the_bundled_processor(monkeypatch):
    monkeypatch.setattr(shapes, "in_pretrained", lambda _: None)
    with pytest.raises(CheckpointError, match="processor"):
        build_model("tiny", device="cpu")
