"""A vision tower's blocks by `torch.compile`: their norms, rotations and activations become few kernels.

Compiling takes some seconds and serves any number of images, so that it pays where hundreds of images follow.
`python -m evaluation.benchmark --shape 7b` shows what it gains: the first token of `compiled` beside that of `plain`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vision_reasoner.errors import one_line
from vision_reasoner.models import window_attention
from vision_reasoner.models.devices import is_out_of_memory

logger = logging.getLogger(__name__)

PAYS_AFTER = 512  # images: as many again are likely then, and win back the time


class CompiledBlocks:
    """The compiled blocks of a vision tower with `window_attention`, used only inside `reading`.

    Results differ in the last digit from those of the blocks as they are.
    """

    def __init__(self, tower: Any, *, after: int = 0) -> None:
        """Of a loaded tower.

        Args:
            tower: with `blocks`, all of one class; stays as it is outside `reading`.
            after: how many images are read with the blocks as they are, before they are compiled.
        """
        self._blocks, self._left = list(tower.blocks), after
        self._compiled: Any = None
        self._works = True

    @contextmanager
    def reading(self, n_images: int) -> Iterator[None]:
        """Let the tower run its compiled blocks, if their time has come, while it reads `n_images`."""
        use = self._works and self._left <= 0
        self._left -= n_images
        if use:
            for block in self._blocks:
                block.forward = partial(self._forward, block)
        try:
            yield
        finally:
            if use:
                for block in self._blocks:
                    del block.forward

    def _forward(self, block: Any, *args: Any, **kwargs: Any) -> Any:
        """A block's output; where compiling is impossible, as without a C compiler, this says so once and goes on."""
        plain = type(block).forward
        if self._works:
            try:
                if self._compiled is None:
                    self._compiled = _compile(plain)
                return self._compiled(block, *args, **kwargs)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._works = False
                logger.warning("the vision tower cannot be compiled here and runs as it is (%s)", one_line(error))
        return plain(block, *args, **kwargs)


def _compile(forward: Any) -> Any:
    """A block's forward, compiled for any number of patches; attention, which looks at bounds, is called as it is."""
    import torch
    from transformers import AttentionInterface

    attention = torch.compiler.disable(window_attention.window_attention)
    AttentionInterface.register(window_attention.NAME, attention)
    return torch.compile(forward, dynamic=True)
