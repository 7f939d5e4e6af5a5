"""Qwen2.5-VL's windowed vision attention in few calls: windows of one length go through one attention call together.

transformers calls scaled_dot_product_attention once per window (64 of them in most layers of a picture of 840 x 840).
An attention whose name contains "flash" is given the windows' bounds instead; ours groups windows by length. The
result is the same to the last bit on a CPU, as the tests show. It needs no flash-attention package.
"""

from typing import Any

NAME = "windows_without_flash"  # transformers hands the bounds only to names that contain "flash"


def install(tower: Any) -> None:
    """Let a loaded Qwen2.5-VL vision tower use it.

    Set on the loaded tower: asked for while loading, a name with "flash" makes transformers look for the package.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, window_attention)
    tower.config._attn_implementation = NAME


def window_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    *,
    scaling: float,
    cu_seq_lens_q: Any,
    **_: Any,
) -> tuple[Any, None]:
    """Attention inside each window.

    Args:
        query, key, value: (1, heads, patches, head size).
        cu_seq_lens_q: (windows + 1,) first patch of each window, and the end.

    Returns:
        (1, patches, heads, head size), and no weights.
    """
    import torch

    del module, attention_mask  # windows are whole: nothing in them is masked
    bounds = cu_seq_lens_q.tolist()
    lengths = [b - a for a, b in zip(bounds, bounds[1:], strict=False)]
    pieces, order = [], []
    for length in sorted(set(lengths)):
        starts = [a for a, n in zip(bounds, lengths, strict=False) if n == length]
        if len(starts) == len(lengths):  # all alike: a view, no copy
            q, k, v = (x[0].unflatten(1, (-1, length)).transpose(0, 1) for x in (query, key, value))
            done = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
            return done.transpose(1, 2).flatten(0, 1)[None], None
        where = torch.tensor(starts, device=query.device)[:, None] + torch.arange(length, device=query.device)
        q, k, v = (x[0][:, where].transpose(0, 1) for x in (query, key, value))
        done = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        pieces.append(done.transpose(1, 2).flatten(0, 1))
        order.append(where.flatten())
    return torch.cat(pieces)[torch.cat(order).argsort()][None], None
