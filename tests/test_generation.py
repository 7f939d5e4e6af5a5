"""Batching under short memory; decoding itself is tested with router and reasoner."""

import pytest
import torch

from vision_reasoner.errors import VisionReasonerError
from vision_reasoner.generation import in_batches


def double(chunk):
    return [2 * item for item in chunk]


@pytest.mark.parametrize("n", [0, 1, 4, 5])
def test_all_items_in_order(n):
    def run(chunk):
        assert len(chunk) <= 2
        return double(chunk)

    assert in_batches(range(n), 2, run) == double(range(n))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_is_never_an_empty_result(error):
    def run(_):
        raise error

    with pytest.raises(VisionReasonerError, match="out of memory with a single request"):
        in_batches(range(8), 4, run)


def test_other_errors_pass_through():
    def run(_):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        in_batches(range(8), 4, run)
