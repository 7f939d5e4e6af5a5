"""Qwen2.5-VL's vision MLPs at a width that GPU matrix units like: the released 3420 becomes 3456.

A width that is no multiple of 8 in half precision keeps cuBLAS from its fast kernels. The padding is zeros: the added
units are silu(0) * 0 = 0, and what the last layer multiplies them by is zero, so that the result is the same sum.
`python -m evaluation.benchmark --shape 7b` measures it beside transformers' own tower.
"""

import copy
from typing import Any

MULTIPLE = 64  # of the width; 8 is enough for half precision, tiles are 64 wide and wider


def align_mlps(tower: Any) -> None:
    """Replace the MLPs of a loaded vision tower; one of a good width stays as it is."""
    for block in tower.blocks:
        block.mlp = aligned(block.mlp)


def aligned(mlp: Any) -> Any:
    """A copy of an MLP of a Qwen2.5-VL vision block with zeros added to its width, or itself where none are needed."""
    import torch

    width, hidden = mlp.gate_proj.weight.shape
    added = -width % MULTIPLE
    if not added:
        return mlp
    wide = copy.copy(mlp)
    wide._modules = dict(mlp._modules)
    for name in ("gate_proj", "up_proj", "down_proj"):
        old = getattr(mlp, name)
        into = name == "down_proj"
        layer = torch.nn.Linear(
            *((width + added, hidden) if into else (hidden, width + added)),
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        layer.weight.data.zero_()
        layer.weight.data[: old.weight.shape[0], : old.weight.shape[1]] = old.weight.data
        if old.bias is not None:
            layer.bias.data.zero_()
            layer.bias.data[: len(old.bias)] = old.bias.data
        wide._modules[name] = layer.requires_grad_(False)
    return wide
