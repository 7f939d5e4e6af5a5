"""The router's training: what it reads, that a step learns, that what it saves loads; and the bundled router itself."""

import json
import random
import re
from pathlib import Path

import pytest

from vision_reasoner.models.router import COUNTING, EDITING, OBJECTS, QUESTION, Router, read_category
from vision_reasoner.prompts import ROUTER_PROMPT, router_messages
from vision_reasoner.scenes import instructions
from vision_reasoner.training.tiny import router as training
from vision_reasoner.training.tiny import router_requests

BUNDLED = Path("pretrained_models/VisionReasoner-Tiny/router")


@pytest.fixture(scope="module")
def tokenizer():
    return training.build_tokenizer(seed=3, n_requests=500)


@pytest.fixture(scope="module")
def bundled() -> Router:
    return Router.from_pretrained(BUNDLED, device="cpu")


def test_every_answer_is_read_as_its_category():
    assert {category: read_category(f"#### {answer}") for category, answer in training.ANSWERS.items()} == {
        category: category for category in (OBJECTS, COUNTING, EDITING, QUESTION)
    }


def test_every_slot_of_the_grammar_has_a_rule_or_a_list():
    for category in instructions.CATEGORIES:
        rules = instructions.PHRASES | instructions.REQUESTS[category]
        known = {*rules, *instructions.LISTS, *instructions.COMPUTED_SLOTS}
        for lines in rules.values():
            for line in lines:
                assert set(re.findall(r"\{(\w+)\}", line)) <= known, line
                assert line.count("(") == line.count(")"), line
                assert line.count("[") == line.count("]"), line


@pytest.mark.parametrize("category", instructions.CATEGORIES)
def test_instructions_are_plain_text_with_nothing_left_to_fill_in(category):
    rng = random.Random(5)
    texts = [instructions.random_instruction(category, rng) for _ in range(500)]
    assert len(set(texts)) > 450
    assert not [text for text in texts if not text.strip() or re.search(r"[{}|\[\]]", text)]


def test_held_out_wordings_are_told_from_those_trained_on():
    rng = random.Random(6)
    for _ in range(200):
        assert all(router_requests.is_held_out(r.query) for r in router_requests.scene_requests(rng, held_out=True))
        assert not any(
            router_requests.is_held_out(r.query) for r in router_requests.scene_requests(rng, held_out=False)
        )
    assert router_requests.is_held_out("Hey, can you count the brown puppies?")
    assert router_requests.is_held_out("Find the dog at the far left!")
    assert not router_requests.is_held_out("Make the dog at the far left brown")


def test_no_held_out_wording_is_trained_on():
    rng = random.Random(7)
    seen = [router_requests.random_request(rng) for _ in range(2000)]
    assert not [query for query, _ in seen if router_requests.is_held_out(query)]
    assert {category for _, category in seen} == set(instructions.CATEGORIES)


def test_the_constant_turns_are_one_token_each_and_any_request_survives(tokenizer):
    for query in ("find the dog", "  Été: 1) Counting\n#### <b>", "####", ROUTER_PROMPT):
        text = tokenizer.apply_chat_template(router_messages(query), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(training.ExampleEncoder(tokenizer).prompt("dog")) <= 11 + len(tokenizer(" dog")["input_ids"])
    assert all(len(ids) == 3 for ids in training.ExampleEncoder(tokenizer).replies.values())


def test_the_template_is_that_of_the_released_router(tokenizer):
    text = tokenizer.apply_chat_template(router_messages("find it"), tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{ROUTER_PROMPT}find it<|im_end|>\n<|im_start|>assistant\n"
    )
    bare = tokenizer.apply_chat_template([{"role": "user", "content": "find it"}], tokenize=False)
    assert bare.startswith("<|im_start|>system\nYou are Qwen,"), "without a system turn Qwen's own is added"


@pytest.mark.slow
def test_a_few_steps_learn_and_what_is_saved_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CORPUS", 500)
    arguments = ["--minutes", "0.3", "--batch_size", "16", "--output_dir", str(tmp_path)]
    assert training.main(arguments) == 0
    log = (tmp_path / "router.jsonl").read_text().splitlines()
    assert len(log) >= 2
    first, last = (json.loads(line)["loss"] for line in (log[0], log[-1]))
    assert last < first / 2
    routes = Router.from_pretrained(tmp_path / "router", device="cpu").route_batch(["find the dog", "how many dogs"])
    assert all(read_category(route.reply) for route in routes)
    assert training.main(arguments) == 0, "a second run continues the first"


def test_the_bundled_router_knows_held_out_wordings(bundled):
    held_out = router_requests.held_out_requests(200, seed=11)
    routes = bundled.route_batch([request.query for request in held_out])
    wrong = [
        (request.query, route.task)
        for request, route in zip(held_out, routes, strict=True)
        if route.task is not request.task
    ]
    assert len(wrong) <= 4, wrong


def test_the_bundled_router_names_one_category_and_ends(bundled):
    for query in (
        "find the dog",
        "how many dogs are there",
        "make the dog blue",
        "what is the dog doing?",
        "zxqv",
        "é" * 300,
    ):
        reply = bundled.route(query).reply
        assert reply in {training.MARK + answer for answer in training.ANSWERS.values()}


def test_the_bundled_router_is_small_and_half_precise():
    from safetensors import safe_open

    with safe_open(BUNDLED / "model.safetensors", "pt") as weights:
        assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {"torch.float16"}  # noqa: SIM118
    assert (BUNDLED / "model.safetensors").stat().st_size <= 5_000_000


def test_the_bundled_router_knows_the_task_of_requests_that_people_type():
    report = training.evaluate(BUNDLED, Path("tests/tables/router_requests.jsonl"), n=300, seed=77)
    assert report["written by hand"]["n"] == 200
    assert report["written by hand"]["right %"] >= 95, report
    assert report["held-out wordings"]["right %"] >= 99, report
