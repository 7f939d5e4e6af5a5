"""Wider vision MLPs: the same result."""

import copy

import pytest
import torch
from transformers import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLMLP

from vision_reasoner.models.aligned_mlp import MULTIPLE, aligned


def make(width: int) -> Qwen2_5_VLMLP:
    torch.manual_seed(0)
    return Qwen2_5_VLMLP(Qwen2_5_VLVisionConfig(hidden_size=32, intermediate_size=width), bias=True).eval()


@pytest.mark.parametrize("width", [1, 52, 63, 65, 100])
def test_a_wider_mlp_gives_the_same_and_leaves_the_other_as_it_was(width):
    mlp, x = make(width), torch.randn(5, 32)
    before = copy.deepcopy(mlp.state_dict())
    wide = aligned(mlp)
    assert wide.gate_proj.out_features % MULTIPLE == wide.down_proj.in_features % MULTIPLE == 0
    torch.testing.assert_close(wide(x), mlp(x), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in mlp.state_dict().items())
    assert mlp.gate_proj.out_features == width


def test_a_good_width_stays():
    mlp = make(128)
    assert aligned(mlp) is mlp
