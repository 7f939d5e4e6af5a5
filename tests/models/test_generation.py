"""Batching under short memory, and where tokens end; decoding itself is tested with router and reasoner."""

import pytest
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.support.tiny import build_tokenizer
from vision_reasoner.errors import VisionReasonerError
from vision_reasoner.models.generation import in_batches, token_ends, without_cudnn_attention


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


@pytest.mark.parametrize("text", ["plain", "caf\u00e9 – 狗 🐕!", "", "🐕🐕"])
def test_where_tokens_end_in_the_text(text):
    tokenizer = build_tokenizer()  # one token for each byte
    ends = token_ends(tokenizer, tokenizer(text)["input_ids"])
    assert ends == [len(text.encode()[: i + 1].decode(errors="ignore")) for i in range(len(text.encode()))]


def test_bytes_that_are_no_text_still_end_where_the_text_does():
    tokenizer = build_tokenizer()
    tokens = [tokenizer.convert_tokens_to_ids(bytes_to_unicode()[byte]) for byte in b"a\xff\xf0\x9f\xe9b\xff"]
    ends = token_ends(tokenizer, tokens)
    assert ends == sorted(ends)
    assert ends[-1] <= len(tokenizer.decode(tokens)) + 1


@pytest.mark.parametrize("allowed", [True, False])
def test_cudnn_attention_is_set_back_when_the_last_of_overlapping_threads_leaves(allowed):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(allowed)
    try:
        first, second = without_cudnn_attention(), without_cudnn_attention()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not torch.backends.cuda.cudnn_sdp_enabled(), "the second still needs it"
        second.__exit__(None, None, None)
        assert torch.backends.cuda.cudnn_sdp_enabled() == allowed
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
