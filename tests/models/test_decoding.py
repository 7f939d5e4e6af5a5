"""Decoding over the cache of fixed size gives what transformers' own loop gives, token for token in float32."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from tests.conftest import noise
from tests.support.tiny import save_qwen2_vl
from vision_reasoner.errors import UsageError
from vision_reasoner.models import decoding, generation
from vision_reasoner.models.decoding import SPAN, is_plain, is_supported, padded_rows, padded_span
from vision_reasoner.models.local import TransformersEngine
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.models.router import Router
from vision_reasoner.prompts import QWEN2_VL
from vision_reasoner.results import Task

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "pretrained_models/VisionReasoner-Tiny"
QUERIES = ["the dogs", "What is this?", "how many very small red cups are on the table", "Is it?", "x"]
TASKS = [Task.DETECTION, Task.VQA, Task.COUNTING, Task.VQA, Task.SEGMENTATION]


def pair(folder, kind=Reasoner, **settings):
    """The same checkpoint with transformers' own loop, and with ours."""
    return [
        kind.from_pretrained(folder, device="cpu", dtype="float32", compile=compile, **settings)
        for compile in ("off", "on")
    ]


@pytest.fixture(autouse=True)
def decoded(monkeypatch):
    """How many batches went through the cache of fixed size."""
    real, batches = decoding.StaticDecoder.decode, []

    def decode(*given):
        batches.append(1)
        return real(*given)

    monkeypatch.setattr(decoding.StaticDecoder, "decode", decode)
    return batches


def told(replies):
    return [(r.text, r.finished, r.n_tokens) for r in replies]


def assert_same_logprobs(given, expected):
    for one, other in zip(given, expected, strict=True):
        assert [end for end, _ in one.logprobs] == [end for end, _ in other.logprobs]
        assert [p for _, p in one.logprobs] == pytest.approx([p for _, p in other.logprobs], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_random_weights_with_a_penalty_and_padding(bundle, pictures, batch_size, decoded):
    plain, ours = pair(bundle / "reasoner", logprobs=True)
    assert plain.engine.model.generation_config.repetition_penalty == 1.05
    settings = {"tasks": TASKS, "max_new_tokens": 40, "batch_size": batch_size}
    expected = plain.ask(pictures, QUERIES, **settings)
    given = ours.ask(pictures, QUERIES, **settings)
    assert told(given) == told(expected)
    assert len({r.text for r in given}) == 5
    assert len(decoded) == -(-5 // batch_size)
    assert_same_logprobs(given, expected)


def test_rows_that_end_at_different_times(bundle, pictures):
    plain, ours = pair(bundle / "reasoner", logprobs=True)
    settings = {"tasks": TASKS, "max_new_tokens": 30, "batch_size": 5}
    tokenizer = plain.engine.processor.tokenizer
    texts = [r.text for r in plain.ask(pictures, QUERIES, **settings)]
    ends = [tokenizer(text[at])["input_ids"][0] for text, at in zip(texts[:3], (0, 4, 11), strict=True)]
    for reasoner in (plain, ours):
        reasoner.engine.model.generation_config.eos_token_id = ends
    expected, given = plain.ask(pictures, QUERIES, **settings), ours.ask(pictures, QUERIES, **settings)
    assert told(given) == told(expected)
    assert_same_logprobs(given, expected)
    assert len({r.n_tokens for r in given}) > 2
    assert min(r.n_tokens for r in given) == 1


def test_it_stops_when_all_rows_have_ended(bundle, pictures, monkeypatch):
    _, ours = pair(bundle / "reasoner")
    monkeypatch.setattr(decoding, "next_logits", lambda *_: pytest.fail("one step too many"))
    ours.engine.model.generation_config.eos_token_id = list(range(len(ours.engine.processor.tokenizer)))
    assert [r.n_tokens for r in ours.ask(pictures, QUERIES, tasks=TASKS, batch_size=5)] == [1] * 5


def test_a_later_batch_does_not_see_an_earlier_one(bundle, pictures):
    plain, ours = pair(bundle / "reasoner")
    settings = {"tasks": TASKS, "max_new_tokens": 12, "batch_size": 5}
    first = ours.ask(pictures, QUERIES, **settings)
    with torch.inference_mode():
        ours.engine._decoder._state.cache.fill_(float("inf"))
    single = ours.ask(pictures[:1], QUERIES[:1], **{**settings, "tasks": TASKS[:1]})
    assert told(single) == told(first[:1]) == told(plain.ask(pictures, QUERIES, **settings)[:1])


def test_the_cache_grows_with_the_request(bundle, pictures, monkeypatch):
    monkeypatch.setattr(decoding, "SPAN", 16)
    plain, ours = pair(bundle / "reasoner")
    for n, tokens in ((1, 4), (5, 40), (2, 90), (5, 3)):
        settings = {"tasks": TASKS[:n], "max_new_tokens": tokens, "batch_size": n}
        given, expected = (r.ask(pictures[:n], QUERIES[:n], **settings) for r in (ours, plain))
        assert told(given) == told(expected)
    assert ours.engine._decoder._state.cache.shape[2] == 8


def test_qwen2_vl(tmp_path, pictures):
    save_qwen2_vl(tmp_path)
    plain, ours = pair(tmp_path, dialect=QWEN2_VL)
    settings = {"tasks": TASKS, "max_new_tokens": 20, "batch_size": 5}
    assert told(ours.ask(pictures, QUERIES, **settings)) == told(plain.ask(pictures, QUERIES, **settings))


def test_router_of_random_weights(bundle):
    plain, ours = pair(bundle / "router", Router)
    for router in (plain, ours):
        router.engine.model.generation_config.repetition_penalty = 1.1
    assert [r.reply for r in ours.route_batch(QUERIES)] == [r.reply for r in plain.route_batch(QUERIES)]


def test_bundled_router(decoded):
    plain, ours = pair(BUNDLED / "router", Router)
    queries = ["segment the dogs", "How many cats are there?", "What is written on the sign over the door?"]
    assert ours.route_batch(queries) == plain.route_batch(queries)
    assert len(decoded) == 1


def test_bundled_reasoner(decoded):
    plain, ours = pair(BUNDLED / "reasoner", logprobs=True)
    asked = [("donuts.png", "the donuts"), ("airplanes.png", "airplanes"), ("company_name.png", "What is the name?")]
    pictures = [Image.open(ROOT / "assets" / name).convert("RGB") for name, _ in asked]
    settings = {"tasks": [Task.DETECTION, Task.COUNTING, Task.VQA], "batch_size": 3}
    queries = [query for _, query in asked]
    expected, given = plain.ask(pictures, queries, **settings), ours.ask(pictures, queries, **settings)
    assert told(given) == told(expected)
    assert_same_logprobs(given, expected)
    assert all(r.finished for r in given)
    assert len({r.n_tokens for r in given}) == 3
    assert len(decoded) == 1


def test_what_it_cannot_do_goes_the_plain_way(bundle, monkeypatch):
    plain, ours = pair(bundle / "reasoner")
    picture = [noise(60, 60)]
    monkeypatch.setattr(generation, "_decode_static", lambda *_, **__: pytest.fail("not the plain way"))
    for reasoner in (plain, ours):
        reasoner.engine.model.generation_config.no_repeat_ngram_size = 2
    settings = {"tasks": [Task.DETECTION], "max_new_tokens": 9}
    assert told(ours.ask(picture, ["dog"], **settings)) == told(plain.ask(picture, ["dog"], **settings))


def test_short_memory_gives_back_what_is_held_and_tries_again(bundle, pictures, monkeypatch):
    plain, ours = pair(bundle / "reasoner")
    settings = {"tasks": TASKS, "max_new_tokens": 6}
    expected = told(plain.ask(pictures, QUERIES, **settings, batch_size=5))
    real, held = decoding.StaticDecoder.decode, []

    def decode(self, *given):
        held.append(self.holds_memory)
        if len(held) in (2, 3, 4):  # held, then not even alone, then a half of it
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *given)

    monkeypatch.setattr(decoding.StaticDecoder, "decode", decode)
    assert told(ours.ask(pictures, QUERIES, **settings, batch_size=5)) == expected
    assert told(ours.ask(pictures, QUERIES, **settings, batch_size=5)) == expected
    assert held == [False, True, False, False, False, *[True] * 4]


def test_a_large_cache_that_does_not_fit_makes_room_for_the_one_that_is_needed(bundle, pictures, monkeypatch):
    plain, ours = pair(bundle / "reasoner")
    real = decoding._State.allocate

    def allocate(model, rows, capacity):
        if rows * capacity > 4 * SPAN:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, rows, capacity)

    monkeypatch.setattr(decoding._State, "allocate", allocate)
    for n, tokens in ((4, 4), (1, 700)):
        settings = {"tasks": TASKS[:n], "max_new_tokens": tokens, "batch_size": n}
        assert told(ours.ask(pictures[:n], QUERIES[:n], **settings)) == told(
            plain.ask(pictures[:n], QUERIES[:n], **settings)
        )
    assert ours.engine._decoder._state.cache.shape[2] == 1


def test_when_it_is_used(bundle):
    model = TransformersEngine.from_pretrained(bundle / "reasoner", "reasoner", device="cpu").model
    assert is_supported(model)
    assert generation.static_decoder(model) is None  # auto, on a CPU
    assert generation.static_decoder(model, "off") is None
    with pytest.raises(UsageError, match="no compile"):
        generation.static_decoder(model, "yes")
    other = SimpleNamespace(config=model.config, device=torch.device("cuda"), name_or_path="x")
    assert generation.static_decoder(other) is not None
    other.config = SimpleNamespace(
        model_type="qwen2", get_text_config=lambda: SimpleNamespace(layer_types=["sliding_attention"])
    )
    assert generation.static_decoder(other) is None
    with pytest.raises(UsageError, match="full attention"):
        generation.static_decoder(other, "on")


def test_which_generation_configs_are_plain():
    assert is_plain(GenerationConfig(repetition_penalty=1.1, temperature=0.3, eos_token_id=[1]))
    assert is_plain(GenerationConfig(output_attentions=False, no_repeat_ngram_size=0, num_beams=1))
    assert not is_plain(GenerationConfig(suppress_tokens=[3]))
    assert not is_plain(GenerationConfig(num_beams=2))
    assert not is_plain(GenerationConfig(min_new_tokens=1))


def test_shapes_are_few():
    assert [padded_rows(n) for n in (1, 2, 3, 5, 33, 64, 65, 200)] == [1, 2, 4, 8, 64, 64, 128, 256]
    assert [padded_span(n) for n in (1, SPAN, SPAN + 1)] == [SPAN, SPAN, 2 * SPAN]
