"""Weights in fewer bits: what is quantized, what is refused, and that replies of the bundled reasoner stay readable."""

import importlib.util
from pathlib import Path

import pytest
import torch

from vision_reasoner import VisionReasoner, inference
from vision_reasoner.errors import UsageError
from vision_reasoner.models.local import TransformersEngine
from vision_reasoner.models.quantization import PACKAGES, quantization_config
from vision_reasoner.models.reasoner import Reasoner

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
TINY = Path(__file__).parents[2] / "pretrained_models/VisionReasoner-Tiny"


def test_what_cannot_be_is_refused():
    assert quantization_config("none", MPS, torch.float32) is None
    with pytest.raises(UsageError, match="8bit, 4bit"):
        quantization_config("2bit", CPU, torch.float32)
    with pytest.raises(UsageError, match="not mps"):
        quantization_config("8bit", MPS, torch.float32)


@pytest.mark.parametrize("quantize", PACKAGES)
def test_a_missing_package_is_one_line_with_the_command(monkeypatch, capsys, tmp_path, quantize):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in PACKAGES.values() else real(name))
    flags = ["--quantize", quantize, "--task", "counting", "--output_path", str(tmp_path / "x.png"), "--device", "cpu"]
    assert inference.main([*flags, "--model_path", str(TINY)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: quantize {quantize} needs the package {PACKAGES[quantize]}: pip install")


@pytest.mark.parametrize(("quantize", "kind"), [("8bit", "Int8Tensor"), ("4bit", "Params4bit")])
def test_the_bundled_reasoner_answers_with_fewer_bits(quantize, kind):
    pytest.importorskip(PACKAGES[quantize])
    engine = TransformersEngine.from_pretrained(TINY / "reasoner", "reasoner", device="cpu", quantize=quantize)
    kinds = {
        name: type(module.weight).__name__
        for name, module in engine.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert {kind for name, kind in kinds.items() if ".visual." in name or name == "lm_head"} == {"Parameter"}
    assert {kind for name, kind in kinds.items() if ".language_model." in name} == {kind}
    image = TINY.parents[1] / "assets/airplanes.png"
    result = VisionReasoner(Reasoner(engine)).predict(image, "How many airplanes are there?", "counting")
    assert (result.status, result.count) == ("ok", 10)
