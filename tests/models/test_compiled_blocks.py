"""Compiled vision blocks: the same replies, only when it pays, and never instead of an answer."""

import logging

import pytest
import torch
from PIL import Image

from tests.support.bundled_replies import BUNDLED
from vision_reasoner.models.compiled_blocks import CompiledBlocks
from vision_reasoner.models.local import TransformersEngine
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.results import Task


@pytest.fixture(scope="module")
def tower(bundle):
    return TransformersEngine.from_pretrained(bundle / "reasoner", "reasoner", device="cpu").model.model.visual


@pytest.fixture
def compiled(monkeypatch):
    """Calls of compiled forwards, which stand for compiling: they are the plain ones."""
    calls = []

    def compile(forward, **_):
        def counted(block, hidden, **kwargs):
            calls.append(len(hidden))
            return forward(block, hidden, **kwargs)

        return counted

    monkeypatch.setattr(torch, "compile", compile)
    return calls


def see(tower, n=1):
    pixels = torch.rand(n * 16, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(n))
    with torch.inference_mode():
        return tower(pixels, grid_thw=torch.tensor([[1, 4, 4]] * n)).pooler_output


def test_blocks_are_compiled_after_so_many_images_and_only_while_reading(tower, compiled):
    blocks, plain = CompiledBlocks(tower, after=3), see(tower)
    for n in (2, 1):
        with blocks.reading(n):
            see(tower, n)
    assert not compiled
    with blocks.reading(1):
        assert torch.equal(see(tower), plain)
    assert compiled == [16] * len(tower.blocks)
    see(tower)
    assert len(compiled) == len(tower.blocks)


def test_where_nothing_can_be_compiled_it_is_said_once_and_the_result_is_the_same(tower, monkeypatch, caplog):
    def no_compiler(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nSet CC.")

    monkeypatch.setattr(torch, "compile", no_compiler)
    blocks, plain = CompiledBlocks(tower), see(tower)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with blocks.reading(1):
                assert torch.equal(see(tower), plain)
    assert caplog.messages == [
        "the vision tower cannot be compiled here and runs as it is (RuntimeError: Failed to find C compiler.)"
    ]


def test_out_of_memory_is_not_taken_for_a_missing_compiler(tower, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: full)
    blocks = CompiledBlocks(tower)
    with pytest.raises(torch.OutOfMemoryError), blocks.reading(1):
        see(tower)
    assert not any("forward" in vars(block) for block in tower.blocks)


@pytest.mark.slow
def test_compiled_for_real_the_bundled_reasoner_replies_the_same(monkeypatch, caplog):
    engine = TransformersEngine.from_pretrained(BUNDLED / "reasoner", "reasoner", device="cpu", dtype="float32")
    reasoner, images = Reasoner(engine), [Image.open(f"assets/{n}.png").convert("RGB") for n in ("donuts", "airplanes")]
    blocks, compiled, real = CompiledBlocks(engine.model.model.visual), [], torch.compile

    def compile(*args, **kwargs):
        compiled.append(real(*args, **kwargs))
        return compiled[-1]

    monkeypatch.setattr(torch, "compile", compile)

    def ask(batch_size):
        replies = reasoner.ask(images, ["donuts", "airplanes"], tasks=[Task.DETECTION] * 2, batch_size=batch_size)
        return [reply.text for reply in replies]

    plain = ask(2)
    with blocks.reading(2):
        assert ask(2) == ask(1) == plain
    assert len(compiled) == 1
    assert not [record for record in caplog.records if record.name.startswith("vision_reasoner")]
