"""The reasoner: frames, prompts, and that true batches give what single runs give."""

import json
import logging
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import noise
from tests.support.tiny import FRAME_SIDE, SPECIAL_TOKENS, save_qwen2_vl, save_qwen3_vl, save_reasoner
from vision_reasoner.errors import CheckpointError, ImageError, QueryError, UsageError
from vision_reasoner.models import window_attention
from vision_reasoner.models.engine import Watch, frame_image
from vision_reasoner.models.local import TransformersEngine
from vision_reasoner.models.reasoner import Reasoner, Reply, ScriptedReasoner, prompt_for
from vision_reasoner.parsing import parse_reply
from vision_reasoner.prompts import QWEN2_5_VL, QWEN2_VL, QWEN3_VL, VISION_REASONER
from vision_reasoner.results import Task

OBJECTS = Task.SEGMENTATION
TOKENS = 16


@pytest.fixture(scope="module")
def reasoner(bundle: Path) -> Reasoner:
    return Reasoner.from_pretrained(bundle / "reasoner", device="cpu", dtype="float32")


def ask(reasoner, pictures, queries, tasks, **settings):
    return reasoner.ask(pictures, queries, tasks=tasks, **{"max_new_tokens": TOKENS, **settings})


def record_calls(monkeypatch, model):
    """Lists that fill with what `model.generate` is given and what it returns."""
    given, returned = [], []
    real = model.generate

    def generate(**arguments):
        given.append(arguments)
        returned.append(real(**arguments))
        return returned[-1]

    monkeypatch.setattr(model, "generate", generate)
    return given, returned


MIXED = [Task.DETECTION, Task.VQA, Task.COUNTING, Task.VQA, Task.SEGMENTATION]
QUERIES = ["the dogs", "What is this?", "how many very small red cups are on the table", "Is it?", "x"]


def test_mixed_batch_equals_single_runs_in_order(reasoner, pictures):
    together = ask(reasoner, pictures, QUERIES, MIXED, batch_size=5)
    apart = [ask(reasoner, [p], [q], [t])[0] for p, q, t in zip(pictures, QUERIES, MIXED, strict=True)]
    assert [r.text for r in together] == [r.text for r in apart]
    assert [r.model_size for r in together] == [r.model_size for r in apart]
    assert len({r.text for r in together}) == 5, "the fixture's replies should depend on picture and query"


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batch_size_changes_nothing(reasoner, pictures, batch_size):
    expected = ask(reasoner, pictures, QUERIES, MIXED, batch_size=5)
    given = ask(reasoner, pictures, QUERIES, MIXED, batch_size=batch_size)
    assert [r.text for r in given] == [r.text for r in expected]


def test_the_model_gets_left_padding_token_types_and_the_framed_picture(reasoner, pictures, monkeypatch):
    calls, _ = record_calls(monkeypatch, reasoner.engine.model)
    ask(reasoner, pictures[:2], ["a", "a much longer query"], [OBJECTS, OBJECTS])
    seen = calls[0]
    assert set(seen["mm_token_type_ids"].unique().tolist()) == {0, 1}
    assert seen["attention_mask"][0, 0] == 0, "the shorter row is padded on the left"
    assert seen["attention_mask"][:, -1].tolist() == [1, 1]
    patches = FRAME_SIDE // 14
    assert seen["image_grid_thw"].tolist() == [[1, patches, patches]] * 2


def test_replies_depend_on_the_picture(reasoner):
    replies = ask(reasoner, [noise(60, 60, seed) for seed in range(3)], ["it"] * 3, [OBJECTS] * 3)
    assert len({r.text for r in replies}) == 3


def test_the_batched_window_attention_is_used_and_changes_nothing(bundle, reasoner, pictures):
    engine = TransformersEngine.from_pretrained(bundle / "reasoner", "reasoner", device="cpu")
    plain = Reasoner(engine)
    engine.model.model.visual.config._attn_implementation = "sdpa"
    assert reasoner.engine.model.model.visual.config._attn_implementation == window_attention.NAME
    big = noise(200, 224, seed=7)  # several windows, not all of one size
    asked = ([*pictures, big], [*QUERIES, "what?"], [*MIXED, Task.VQA])
    assert [r.text for r in ask(plain, *asked)] == [r.text for r in ask(reasoner, *asked)]


def test_frame_and_prompt_of_each_task(reasoner):
    assert reasoner.engine.frame_side == FRAME_SIDE
    assert reasoner.frame_for(Task.COUNTING) == (FRAME_SIDE, FRAME_SIDE)
    assert reasoner.frame_for(Task.VQA) is None
    assert prompt_for("The Dog?", Task.DETECTION, VISION_REASONER).startswith('Please find "the dog" with bboxs')
    assert prompt_for("The Dog?", Task.VQA, VISION_REASONER) == "The Dog?"
    assert prompt_for("The Dog?", Task.VQA, VISION_REASONER, "upstream") == "the dog"


def test_vqa_keeps_the_picture_at_its_own_size_on_the_grid(reasoner):
    reply = ask(reasoner, [noise(150, 90)], ["what is it?"], [Task.VQA])[0]
    assert reply.model_size == (140, 84)  # nearest multiples of 28


def test_upstream_resizes_the_image_for_vqa(reasoner):
    upstream = Reasoner(reasoner.engine, compat="upstream")
    assert ask(upstream, [noise(150, 90)], ["What is it?"], [Task.VQA])[0].model_size == (FRAME_SIDE, FRAME_SIDE)


def test_vqa_frame_of_the_checkpoint_is_used(bundle, tmp_path):
    shutil.copytree(bundle / "reasoner", tmp_path / "r")
    config = json.loads((tmp_path / "r/config.json").read_text())
    (tmp_path / "r/config.json").write_text(json.dumps({**config, "frame_side": 56, "vqa_frame_side": 84}))
    reasoner = Reasoner.from_pretrained(tmp_path / "r", device="cpu")
    replies = ask(reasoner, [noise(150, 90)] * 2, ["what?", "dog"], [Task.VQA, OBJECTS], max_new_tokens=2)
    assert [r.model_size for r in replies] == [(84, 84), (56, 56)]


@pytest.mark.parametrize("side", [100, 0, "840"])
def test_a_frame_off_the_grid_is_refused(bundle, tmp_path, side):
    shutil.copytree(bundle / "reasoner", tmp_path / "r")
    config = json.loads((tmp_path / "r/config.json").read_text())
    (tmp_path / "r/config.json").write_text(json.dumps({**config, "frame_side": side}))
    with pytest.raises(CheckpointError, match="frame side"):
        Reasoner.from_pretrained(tmp_path / "r", device="cpu")


def test_frame_defaults_to_the_released_840(tmp_path):
    save_reasoner(tmp_path, frame_side=None)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["frame_side"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Reasoner.from_pretrained(tmp_path, device="cpu").engine.frame_side == 840


def test_processed_frame_is_the_picture_as_the_processor_resized_it(reasoner):
    qwen = Reasoner(reasoner.engine, dialect=QWEN2_5_VL)
    reply = ask(qwen, [noise(500, 300)], ["dog"], [Task.DETECTION])[0]
    width, height = reply.model_size
    assert width % 28 == height % 28 == 0
    assert width * height <= 28 * 28 * 64, "the checkpoint's own limit"


def test_thousand_frame_whatever_the_picture(reasoner):
    qwen2 = Reasoner(reasoner.engine, dialect=QWEN2_VL)
    replies = ask(qwen2, [noise(500, 300)] * 2, ["dog", "What?"], [Task.DETECTION, Task.VQA])
    assert replies[0].model_size == (1000, 1000)


def test_a_qwen2_vl_checkpoint_works_as_the_other_baseline(tmp_path, pictures):
    save_qwen2_vl(tmp_path)
    engine = TransformersEngine.from_pretrained(tmp_path, "reasoner", device="cpu")
    qwen2 = Reasoner(engine, dialect=QWEN2_VL)
    assert type(engine.model).__name__ == "Qwen2VLForConditionalGeneration"
    together = ask(qwen2, pictures, QUERIES, MIXED)
    apart = [ask(qwen2, [p], [q], [t])[0] for p, q, t in zip(pictures, QUERIES, MIXED, strict=True)]
    assert [r.text for r in together] == [r.text for r in apart]
    assert together[0].model_size == (1000, 1000)


def test_a_qwen3_vl_checkpoint_is_asked_at_its_own_grid(tmp_path, pictures):
    save_qwen3_vl(tmp_path)
    engine = TransformersEngine.from_pretrained(tmp_path, "reasoner", device="cpu")
    assert type(engine.model).__name__ == "Qwen3VLForConditionalGeneration"
    qwen3 = Reasoner(engine, dialect=QWEN3_VL)
    together = ask(qwen3, pictures, QUERIES, MIXED)
    apart = [ask(qwen3, [p], [q], [t])[0] for p, q, t in zip(pictures, QUERIES, MIXED, strict=True)]
    assert [r.text for r in together] == [r.text for r in apart]
    assert len({r.text for r in together}) == 5, "the fixture's replies should depend on picture and query"
    assert together[0].model_size == (1000, 1000)
    assert ask(qwen3, [noise(150, 90)], ["what?"], [Task.VQA])[0].model_size == (160, 96)  # nearest multiples of 32


def test_thinking_that_the_chat_template_opens_is_part_of_the_reply(tmp_path, pictures):
    save_qwen3_vl(tmp_path, thinking=True)
    engine = TransformersEngine.from_pretrained(tmp_path, "reasoner", device="cpu", logprobs=True)
    engine.model.generation_config.suppress_tokens = engine.model.generation_config.eos_token_id
    told: list[str] = []
    watch = Watch(lambda _, text: told.append(text))
    (reply,) = ask(Reasoner(engine, dialect=QWEN3_VL), pictures[:1], ["dog"], [OBJECTS], watch=watch)
    assert reply.text.startswith("<think>")
    assert told[-1] == reply.text
    assert all(text.startswith("<think>") for text in told)
    assert reply.logprobs[-1][0] == len(reply.text)
    assert parse_reply(reply.text, model_size=(1000, 1000), image_size=(96, 64), grammar="fence").thinking


def test_a_frame_of_its_own_makes_a_qwen3_vl_a_reasoner(tmp_path, pictures):
    save_qwen3_vl(tmp_path)
    with pytest.raises(UsageError, match=r"'qwen3_vl' checkpoint.*wrong place; give --model qwen3"):
        Reasoner.from_pretrained(tmp_path, device="cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "frame_side": 96}))
    trained = Reasoner.from_pretrained(tmp_path, device="cpu")
    assert ask(trained, pictures[:1], ["dog"], [OBJECTS])[0].model_size == (96, 96)


@pytest.mark.parametrize("dialect", [QWEN2_VL, QWEN3_VL])
def test_a_checkpoint_that_answers_in_another_frame_is_refused(bundle, dialect):
    with pytest.raises(UsageError, match="wrong place"):
        Reasoner.from_pretrained(bundle / "reasoner", device="cpu", dialect=dialect)


def test_resizing_is_bilinear_and_ignores_the_aspect_ratio():
    picture = noise(150, 50)
    resized = frame_image(picture, (84, 84))
    assert resized.tobytes() == picture.resize((84, 84), Image.Resampling.BILINEAR).tobytes()
    assert frame_image(picture, None) is picture


def test_a_reply_at_the_token_limit_is_unfinished(reasoner, pictures):
    reply = ask(reasoner, pictures[:1], ["it"], [OBJECTS], max_new_tokens=5)[0]
    assert not reply.finished
    assert reply.n_tokens == 5
    assert reply.prefill_seconds > 0
    assert reply.decode_seconds > 0


def test_a_reply_ends_at_its_end_token_while_others_go_on(reasoner, pictures, monkeypatch):
    queries, tasks = ["it", "something else"], [OBJECTS, OBJECTS]
    free = ask(reasoner, pictures[:2], queries, tasks)
    _, outputs = record_calls(monkeypatch, reasoner.engine.model)
    assert ask(reasoner, pictures[:1], queries[:1], tasks[:1])[0].text == free[0].text
    tokens = outputs[0][0, -TOKENS:].tolist()
    end = next(i for i in range(2, TOKENS) if tokens[i] not in tokens[:i])
    monkeypatch.setattr(reasoner.engine.model.generation_config, "eos_token_id", [tokens[end]])
    replies = ask(reasoner, pictures[:2], queries, tasks)
    assert replies[0].finished
    assert replies[0].n_tokens == end + 1
    assert replies[0].text == reasoner.engine.processor.tokenizer.decode(tokens[:end], skip_special_tokens=True)
    assert replies[1].n_tokens >= 1


def test_decoding_is_greedy_and_keeps_the_repetition_penalty(bundle, pictures, monkeypatch, caplog):
    with caplog.at_level(logging.DEBUG):
        engine = TransformersEngine.from_pretrained(bundle / "reasoner", "reasoner", device="cpu")
    assert "repetition_penalty 1.05 is kept" in caplog.text
    reasoner = Reasoner(engine)
    calls, _ = record_calls(monkeypatch, engine.model)
    first = ask(reasoner, pictures[:1], ["it"], [OBJECTS])[0].text
    assert ask(reasoner, pictures[:1], ["it"], [OBJECTS])[0].text == first
    assert calls[0]["generation_config"].do_sample is False
    assert calls[0]["generation_config"].repetition_penalty == 1.05


@pytest.mark.parametrize("task", [OBJECTS, Task.VQA])
@pytest.mark.parametrize("query", ["", " ", "two <|image_pad|> pads", "<|im_start|>system"])
def test_queries_that_would_break_the_conversation_are_refused(reasoner, pictures, query, task):
    with pytest.raises(QueryError, match="query"):
        ask(reasoner, pictures[:1], [query], [task])


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_what_becomes_a_special_token_in_the_prompt_is_refused(reasoner, pictures, token):
    with pytest.raises(QueryError, match=re.escape(f"control token {token!r}")):
        ask(reasoner, pictures[:1], [f"a {token.upper()}."], [OBJECTS])


@pytest.mark.parametrize("query", ["...", '"?"', "!"])
def test_a_query_of_which_the_prompt_keeps_nothing_is_refused(reasoner, pictures, query):
    with pytest.raises(QueryError, match="the query is empty"):
        ask(reasoner, pictures[:1], [query], [OBJECTS])


def test_capitals_that_stay_text_are_asked(reasoner, pictures):
    (reply,) = ask(reasoner, pictures[:1], ["What does <|IM_END|> mean?"], [Task.VQA])  # a question is not lower-cased
    assert reply.n_tokens


def test_a_query_longer_than_the_checkpoint_takes_is_refused(reasoner, pictures):
    with pytest.raises(QueryError, match="4096"):
        ask(reasoner, pictures[:1], ["x" * 5000], [OBJECTS])


def test_a_picture_too_elongated_is_refused(reasoner):
    with pytest.raises(ImageError, match="elongated"):
        ask(reasoner, [noise(2010, 10)], ["what?"], [Task.VQA])


def test_an_elongated_picture_is_answered_where_it_is_resized_to_the_frame(reasoner):
    assert len(ask(reasoner, [noise(2010, 10)], ["the dog"], [OBJECTS])) == 1


def test_tiny_pictures_work(reasoner):
    assert len(ask(reasoner, [noise(1, 1)] * 2, ["what?", "dog"], [Task.VQA, OBJECTS])) == 2


def small_memory(reasoner, monkeypatch):
    """More than two requests at once no longer fit into memory; gets the sizes of the batches that are tried."""
    real = reasoner.engine.model.generate
    sizes = []

    def generate(**given):
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(**given)

    monkeypatch.setattr(reasoner.engine.model, "generate", generate)
    return sizes


def test_out_of_memory_halves_the_batch_and_changes_nothing(reasoner, pictures, monkeypatch, caplog):
    expected = ask(reasoner, pictures, QUERIES, MIXED, batch_size=5)
    sizes = small_memory(reasoner, monkeypatch)
    given = ask(reasoner, pictures, QUERIES, MIXED, batch_size=5)
    assert [r.text for r in given] == [r.text for r in expected]
    assert sizes == [5, 2, 2, 1]
    assert "going on with 2" in caplog.text


def test_a_batch_that_was_too_large_is_not_tried_again_where_all_pictures_have_one_size(bundle, pictures, monkeypatch):
    reasoner = Reasoner.from_pretrained(bundle / "reasoner", device="cpu")
    sizes = small_memory(reasoner, monkeypatch)
    for _ in range(2):
        ask(reasoner, pictures[:4], QUERIES[:4], [OBJECTS] * 4, batch_size=4, max_new_tokens=2)
    assert sizes == [4, 2, 2, 2, 2]
    for _ in range(2):
        ask(reasoner, pictures[:4], QUERIES[:4], [Task.VQA] * 4, batch_size=4, max_new_tokens=2)
    assert sizes[5:] == [4, 2, 2] * 2


def test_the_scripted_reasoner_gives_its_replies_in_order_and_remembers_what_was_asked(pictures):
    scripted = ScriptedReasoner(["one", Reply("two", (56, 56), finished=False), "three"], model_size=(112, 112))
    first = ask(scripted, pictures[:2], ["a", "b"], [OBJECTS, Task.VQA])
    assert [(r.text, r.model_size, r.finished) for r in first] == [("one", (112, 112), True), ("two", (56, 56), False)]
    assert ask(scripted, pictures[2:3], ["c"], [OBJECTS])[0].text == "three"
    assert scripted.asked[1] == (pictures[1].size, "b", Task.VQA)
    with pytest.raises(UsageError, match="3 replies"):
        ask(scripted, pictures[:1], ["d"], [OBJECTS])


def test_token_logprobs_equal_a_teacher_forced_pass(reasoner, pictures, monkeypatch):
    calls, outputs = record_calls(monkeypatch, reasoner.engine.model)
    monkeypatch.setattr(reasoner.engine, "logprobs", True)
    pad = reasoner.engine.model.config.image_token_id  # in a reply it would want a picture in the pass below
    monkeypatch.setattr(reasoner.engine.model.generation_config, "suppress_tokens", [pad], raising=False)
    replies = ask(reasoner, pictures[:3], QUERIES[:3], [OBJECTS] * 3)
    (batch,), (sequences,) = calls, outputs
    inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    n_new = sequences.shape[1] - inputs["input_ids"].shape[1]
    ones = torch.ones((3, n_new), dtype=torch.long)
    inputs |= {
        "input_ids": sequences,
        "attention_mask": torch.cat([inputs["attention_mask"], ones], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], 0 * ones.int()], dim=1),
    }
    with torch.inference_mode():
        forced = reasoner.engine.model(**inputs).logits[:, -n_new - 1 : -1].log_softmax(dim=2)
    expected = forced.gather(2, sequences[:, -n_new:, None])[..., 0]
    order = sorted(range(3), key=lambda i: len(QUERIES[i]))  # of the rows in the batch
    for row, i in enumerate(order):
        given = torch.tensor([logprob for _, logprob in replies[i].logprobs])
        assert len(given) >= replies[i].n_tokens - 1
        torch.testing.assert_close(given, expected[row, : len(given)], rtol=0, atol=1e-4)


def test_logprobs_are_off_unless_asked_for_and_change_no_reply(reasoner, pictures, monkeypatch):
    plain = ask(reasoner, pictures, QUERIES, MIXED)
    assert all(reply.logprobs == () for reply in plain)
    monkeypatch.setattr(reasoner.engine, "logprobs", True)
    assert [reply.text for reply in ask(reasoner, pictures, QUERIES, MIXED)] == [reply.text for reply in plain]
    assert not reasoner.engine.model.get_output_embeddings()._forward_hooks, "nothing stays behind"


def test_the_likelihood_of_a_part_is_the_mean_over_the_tokens_that_reach_into_it():
    reply = Reply('[{"a": 1}]', (1, 1), logprobs=((1, -9.0), (4, -1.0), (8, -2.0), (10, -3.0)))
    assert reply.likelihood(1, 9) == pytest.approx(-2.0)
    assert reply.likelihood(0, 1) == -9.0
    assert reply.likelihood(4, 8) == -2.0
    assert Reply("[]", (1, 1)).likelihood(0, 2) is None


# --- following and stopping -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["off", "on"])
def followed(request: pytest.FixtureRequest, bundle: Path) -> Reasoner:
    """By transformers' own loop, and by the cache of fixed size."""
    return Reasoner.from_pretrained(bundle / "reasoner", device="cpu", dtype="float32", compile=request.param)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_text_comes_as_it_is_written_and_watching_changes_nothing(followed, pictures, batch_size):
    seen: dict[int, list[str]] = {}
    watch = Watch(lambda i, text: seen.setdefault(i, []).append(text))
    given = ask(followed, pictures, QUERIES, MIXED, batch_size=batch_size, watch=watch)
    assert given_texts(given) == given_texts(ask(followed, pictures, QUERIES, MIXED, batch_size=batch_size))
    assert [seen[i][-1] for i in range(5)] == given_texts(given)
    for i, reply in enumerate(given):
        assert len(seen[i]) > 3
        assert all(reply.text.startswith(text) for text in seen[i])
        assert [len(text) for text in seen[i]] == sorted(len(text) for text in seen[i])


def given_texts(replies):
    return [reply.text for reply in replies]


def test_text_after_a_row_has_ended_is_not_its_own(followed, pictures, monkeypatch):
    first = ask(followed, pictures[:2], QUERIES[:2], MIXED[:2])
    ends = followed.engine.tokenizer(first[0].text[4])["input_ids"][:1]
    monkeypatch.setattr(followed.engine.model.generation_config, "eos_token_id", ends)
    seen: dict[int, str] = {}
    replies = ask(followed, pictures[:2], QUERIES[:2], MIXED[:2], watch=Watch(seen.__setitem__))
    assert [seen.get(i) for i in range(2)] == given_texts(replies)
    assert len({reply.n_tokens for reply in replies}) == 2


def test_what_is_stopped_ends_where_it_is_and_nothing_further_is_asked(followed, pictures):
    stop = threading.Event()
    whole = ask(followed, pictures, QUERIES, MIXED, batch_size=2)
    seen: set[int] = set()

    def see(i, text):
        seen.add(i)
        if len(text) >= 4:
            stop.set()

    replies = ask(followed, pictures, QUERIES, MIXED, batch_size=2, watch=Watch(see, stop))
    assert not any(reply.finished for reply in replies)
    assert len(seen) == 2, "those of the first batch"
    for i, (reply, uncut) in enumerate(zip(replies, whole, strict=True)):
        assert uncut.text.startswith(reply.text)
        assert (3 <= reply.n_tokens <= 8) if i in seen else (reply.n_tokens == 0 and not reply.text)


def test_what_a_watch_raises_is_passed_on_and_the_reasoner_is_as_before(followed, pictures):
    before = given_texts(ask(followed, pictures[:1], QUERIES[:1], MIXED[:1]))

    def see(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ask(followed, pictures[:1], QUERIES[:1], MIXED[:1], watch=Watch(see))
    assert given_texts(ask(followed, pictures[:1], QUERIES[:1], MIXED[:1])) == before
