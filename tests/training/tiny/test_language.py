"""The tokenizer, the examples and the batches: training sees what inference will see."""

import random
import re
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.drawings import sprites
from vision_reasoner.parsing import parse_reply
from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.results import Task
from vision_reasoner.scenes.requests import RequestContext, ask_side, random_requests
from vision_reasoner.scenes.scene import Scene, random_scene
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.architecture import (
    CANDIDATE_RADIUS,
    CELL,
    CELLS,
    SIDE,
    CellTruth,
    ConceptCodebook,
    encode_images,
    make_reasoner,
    pixel_values,
)
from vision_reasoner.training.tiny.examples import IGNORE, MAX_TOKENS, Batch, ExampleEncoder
from vision_reasoner.training.tiny.objective import AuxiliaryHeads, LanguageObjective
from vision_reasoner.training.tiny.tokenizer import build_processor


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor()


@pytest.fixture(scope="module")
def encoder(processor: Any) -> ExampleEncoder:
    return ExampleEncoder(processor.tokenizer)


@pytest.fixture(scope="module")
def model(processor: Any) -> Any:
    torch.manual_seed(0)
    return make_reasoner(processor.tokenizer, ConceptCodebook()).eval()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return random_scene(sprites(), random.Random(5), (SIDE, SIDE), min_objects=6)


def prompt_of(processor: Any, text: str) -> str:
    """The whole prompt as the reasoner renders it."""
    turn = [{"type": "image"}, {"type": "text", "text": text}]
    rendered: str = processor.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True)
    return rendered


def test_an_example_reads_as_the_prompt_and_a_reply_that_parses_to_the_truth(
    processor: Any, encoder: ExampleEncoder, scene: Scene
) -> None:
    for request in random_requests(scene, random.Random(0), 20):
        example = encoder.example(scene, request)
        text = request.query if request.task is Task.VQA else VISION_REASONER.text_for(request.query)
        said = processor.tokenizer.decode([*encoder.head, encoder.image_id, *example.prompt])
        assert said == prompt_of(processor, text)
        reply = processor.tokenizer.decode(example.reply, skip_special_tokens=True)
        if request.task is Task.VQA:
            assert request.answer is not None
            assert reply == request.answer.text
            continue
        parsed = parse_reply(reply, model_size=(SIDE, SIDE), image_size=(SIDE, SIDE))
        assert parsed.thinking == "".join(span.text for span in request.thinking)
        assert [tuple(i.box) for i in parsed.instances] == [scene.objects[i].box.inclusive for i in request.targets]
        assert [i.point for i in parsed.instances] == [scene.objects[i].point for i in request.targets]


def test_the_tokenizer_gives_any_text_back(processor: Any) -> None:
    for text in ("Find the zucchini, please!", "naïve 図 🙂\n\t", "12345 0, 7]}", "hot dogs and a hotdog", ""):
        assert processor.tokenizer.decode(processor.tokenizer.encode(text)) == text


def test_think_and_answer_are_no_special_tokens(processor: Any) -> None:
    text = '<think>There is 1 dog.</think><answer>[{"bbox_2d": [1,2,30,40], "point_2d": [9,9]}]</answer>'
    ids = processor.tokenizer.encode(text)
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(ids) == 15


def test_pixels_are_those_of_the_processor(processor: Any, scene: Scene) -> None:
    made = processor.image_processor(images=[Image.fromarray(scene.image)], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 20, 20]]
    assert torch.allclose(made["pixel_values"], pixel_values([scene.image]), atol=1e-5)


def test_a_packed_request_gets_the_logits_that_it_gets_alone(
    processor: Any, encoder: ExampleEncoder, model: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "mixed_precision", nullcontext)
    requests = random_requests(scene, random.Random(3), 4)
    examples = [encoder.example(scene, r) for r in requests]
    batch = Batch(encoder, [examples])
    with torch.no_grad():
        tokens = encode_images(model.model.visual, [scene.image])
        embedded = model.get_input_embeddings()(batch.ids)
        embedded[0, batch.start : batch.start + CELLS] = tokens
        packed = model.model.language_model(
            inputs_embeds=embedded,
            position_ids=batch.positions,
            attention_mask={"full_attention": batch.mask},
            use_cache=False,
        ).last_hidden_state[0]
        at = batch.start + CELLS
        for example, request in zip(examples, requests, strict=True):
            text = request.query if request.task is Task.VQA else VISION_REASONER.text_for(request.query)
            inputs = processor(
                text=[prompt_of(processor, text) + processor.tokenizer.decode(example.reply[:-1])],
                images=[Image.fromarray(scene.image)],
                return_tensors="pt",
            )
            alone = model.model(**inputs, use_cache=False).last_hidden_state[0]
            n = len(example.prompt) + len(example.reply) - 1
            assert inputs["input_ids"].shape[1] == batch.start + CELLS + n
            assert torch.allclose(packed[at : at + n], alone[-n:], atol=1e-4)
            at += n


def test_labels_are_the_replies_one_token_ahead(encoder: ExampleEncoder, scene: Scene) -> None:
    examples = [encoder.example(scene, r) for r in random_requests(scene, random.Random(1), 3)]
    batch = Batch(encoder, [examples])
    labels = batch.labels[0]
    assert labels[labels != IGNORE].tolist() == [i for x in examples for i in x.reply]
    looked = batch.target_cell[0]
    cells = {o.cell[0] * 10 + o.cell[1] for o in scene.objects}
    assert set(looked[looked >= 0].tolist()) <= cells


def test_prefix_noise_is_in_the_inputs_and_not_in_the_labels(encoder: ExampleEncoder, processor: Any) -> None:
    torch.manual_seed(0)
    scene = random_scene(sprites(), random.Random(3), (SIDE, SIDE), min_objects=6)
    noisy, at = ExampleEncoder(processor.tokenizer, prefix_noise=1.0), re.compile(r"\((\d+),(\d+)\)")
    listing = [r for r in random_requests(scene, random.Random(4), 12) if r.kind in ("name", "count") and r.targets]
    assert listing
    for request in listing:
        plain, example = encoder.example(scene, request), noisy.example(scene, request)
        assert replace(example, inputs=plain.inputs) == plain
        written, read = (at.findall(processor.tokenizer.decode(i)) for i in (example.reply, example.inputs))
        assert len(written) == len(read) == len(request.targets)
        for k, (right, wrong) in enumerate(zip(written, read, strict=True)):
            box = scene.objects[request.targets[k]].box
            assert right != wrong
            assert abs(int(wrong[0]) - (box.x1 + box.x2) / 2) <= CANDIDATE_RADIUS * CELL
            assert abs(int(wrong[1]) - (box.y1 + box.y2) / 2) <= CANDIDATE_RADIUS * CELL
        batch = Batch(noisy, [[example]])
        tokens = batch.ids[0, batch.start + CELLS :].tolist()
        assert tokens[len(example.prompt) :] == example.inputs[:-1]
        assert batch.labels[0][batch.labels[0] != IGNORE].tolist() == example.reply


def test_a_nonsense_word_leaves_the_request_and_its_names_whole(processor: Any) -> None:
    torch.manual_seed(0)
    nonsense_share = ExampleEncoder(processor.tokenizer, nonsense_share=1.0)
    at = set()
    for query in ["how many computer mice are there?", "find the light bulb", "dogs"] * 40:
        words, longer = query.split(" "), nonsense_share._with_nonsense_word(query)
        assert len(longer.split(" ")) == len(words) + 1
        k = next(
            k for k in range(len(words) + 1) if [*words[:k], longer.split(" ")[k], *words[k:]] == longer.split(" ")
        )
        assert "computer mice" not in query or "computer mice" in longer
        assert "light bulb" not in query or "light bulb" in longer
        at.add(k)
    assert at == {0, 1, 2, 4}
    assert ExampleEncoder(processor.tokenizer).nonsense_share == 0


def test_what_is_read_and_the_anchor_are_supervised(encoder: ExampleEncoder, model: Any) -> None:
    codebook, rng, request = ConceptCodebook(), random.Random(6), None
    while request is None:
        scene = random_scene(sprites(), rng, (SIDE, SIDE))
        truth = CellTruth([scene.objects])
        assigned_scenes = truth.assigned_scenes([scene])
        request = ask_side(RequestContext(assigned_scenes[0], rng))
    assert request.answer is not None
    assert request.answer.anchor is not None
    row, column = assigned_scenes[0].objects[request.answer.anchor].cell
    assert encoder.example(assigned_scenes[0], request).anchor[0] == row * 10 + column
    language = LanguageObjective(model, AuxiliaryHeads(), encoder, codebook)
    loss, seen = language.losses(assigned_scenes, [[request]], codebook.tokens(truth), truth)
    assert {"attend anchor", "attend target 3", "attend target 4", "read class"} <= seen.keys()
    loss.backward()
    assert all(p.grad is not None for p in language.heads.read.parameters())
    model.zero_grad()


def test_a_image_gets_as_many_requests_as_there_is_room_for(encoder: ExampleEncoder, scene: Scene) -> None:
    requests = random_requests(scene, random.Random(4), 30)
    kept = encoder.examples(scene, requests)
    lengths = [len(x.prompt) + len(x.reply) - 1 for x in kept]
    assert 1 < len(kept) < len(requests)
    assert MAX_TOKENS - 60 < sum(lengths) <= MAX_TOKENS
    every = [encoder.example(scene, r) for r in requests]
    assert kept[0] == every[0]
    assert all(x in every for x in kept)
    longest = max(requests, key=lambda r: len(encoder.example(scene, r).reply))
    assert len(encoder.examples(scene, [longest] * 9)) < 9


def test_ideal_tokens_tell_everything_back() -> None:
    rng = random.Random(2)
    scenes = [random_scene(sprites(), rng, (SIDE, SIDE)).objects for _ in range(6)]
    truth, codebook = CellTruth(scenes), ConceptCodebook()
    tokens = codebook.tokens(truth)
    assert torch.equal((tokens @ codebook.classes.T).argmax(1), truth.label)
    there = truth.label < len(codebook.classes) - 1
    assert torch.allclose((tokens @ codebook.numbers.T)[there], truth.numbers[there], atol=1e-4)
    assert int(truth.responsible.sum()) == sum(map(len, scenes))


def test_noisy_tokens_leave_open_which_cell_is_responsible_until_earlier_cells_are_seen() -> None:
    torch.manual_seed(0)
    scenes = [random_scene(sprites(), random.Random(i), (SIDE, SIDE)).objects for i in range(40)]
    truth, codebook = CellTruth(scenes), ConceptCodebook()
    exact = truth.responsible.clone()
    tokens = codebook.noisy_tokens(truth)
    assert torch.equal((tokens @ codebook.classes.T).argmax(1), truth.label)
    objectness = tokens @ codebook.numbers[-1]
    assert not objectness[truth.label == len(codebook.classes) - 1].abs().gt(1e-4).any()
    sure = truth.candidate & ~truth.ambiguous
    assert ((objectness > 0.5) == truth.positive)[sure].float().mean() > 0.99
    assert 0.4 < (objectness > 0.5)[truth.ambiguous].float().mean() < 0.6
    truth.assign(objectness)
    assert int(truth.responsible.sum()) == sum(map(len, scenes))
    assert 0.5 < (truth.responsible & exact).sum() / exact.sum() < 0.9  # a cell's own place does not tell any more


def test_the_first_candidate_cell_that_claims_an_object_is_responsible() -> None:
    rng = random.Random(3)
    scenes = [random_scene(sprites(), rng, (SIDE, SIDE), min_objects=8) for _ in range(12)]
    truth = CellTruth([s.objects for s in scenes])
    assert torch.equal(truth.positive, truth.numbers[:, -1] > 0)
    objectness = torch.rand(len(truth.responsible), generator=torch.Generator().manual_seed(0))
    for case in ("as it is", "by chance"):
        if case == "by chance":
            truth.assign(objectness)
        cells = truth.responsible.nonzero()[:, 0]
        assert sorted(truth.owner[cells].tolist()) == list(range(sum(len(s.objects) for s in scenes)))
        for cell in cells.tolist():
            close = (truth.candidate & (truth.owner == truth.owner[cell])).nonzero()[:, 0]
            claiming = close[truth.positive[close]] if case == "as it is" else close[objectness[close] > 0.5]
            assert cell == (claiming[0] if len(claiming) else close[objectness[close].argmax()])
        for before, after in zip(scenes, truth.assigned_scenes(scenes), strict=True):
            at = [o.cell for o in after.objects]
            assert at == sorted(set(at)), "two objects in one cell, or out of order"
            assert {id(o.mask) for o in before.objects} == {id(o.mask) for o in after.objects}
            for o in after.objects:
                center = (o.box.y1 + o.box.y2) / 2 / CELL, (o.box.x1 + o.box.x2) / 2 / CELL
                assert all(abs(c - (h + 0.5)) <= CANDIDATE_RADIUS for c, h in zip(center, o.cell, strict=True))


def test_every_loss_has_a_gradient(encoder: ExampleEncoder, processor: Any) -> None:
    torch.manual_seed(0)
    model, heads, codebook = make_reasoner(processor.tokenizer, ConceptCodebook()), AuxiliaryHeads(), ConceptCodebook()
    rng = random.Random(0)
    scenes = [random_scene(sprites(), rng, (SIDE, SIDE)) for _ in range(2)]
    requests = [random_requests(s, rng, 4) for s in scenes]
    truth = CellTruth([s.objects for s in scenes])
    scenes = truth.assigned_scenes(scenes)
    loss, seen = LanguageObjective(model, heads, encoder, codebook).losses(
        scenes, requests, codebook.tokens(truth), truth
    )
    loss.backward()
    assert np.isfinite(loss.item())
    assert {"responsible", "attend target 3", "attend target 3 none", "attend previous"} <= set(seen)
    assert {"cell previous", "text previous", "px", "word", "next", "text class"} <= set(seen)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads.parameters())


def test_weights_say_whose_numbers_count(encoder: ExampleEncoder, model: Any, scene: Scene) -> None:
    codebook, truth = ConceptCodebook(), CellTruth([scene.objects])
    assigned = truth.assigned_scenes([scene])
    requests = [random_requests(assigned[0], random.Random(1), 8)]
    tokens = codebook.tokens(truth)
    language = LanguageObjective(model, None, encoder, codebook)

    def loss(weights: torch.Tensor | None) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return language.losses(assigned, requests, tokens, truth, weights)[1]["loss"]

    responsible = truth.responsible.nonzero()[:, 0].tolist()
    one_counts = [torch.full((CELLS,), 1e-6).index_fill_(0, torch.tensor(cell), 1.0) for cell in responsible]
    assert loss(torch.full((CELLS,), 3.0)) == pytest.approx(loss(None))
    assert len({round(loss(weights), 4) for weights in one_counts}) > 1
