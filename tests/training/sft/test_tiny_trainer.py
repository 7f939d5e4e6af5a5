"""The small reasoner's own fine-tuning: new names become words, runs go on, and what is left can be asked for them."""

import argparse
import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="fine-tuning needs the extra .[train]")

import datasets
import numpy as np
import torch

from tests.conftest import noise
from tests.support import drawings
from vision_reasoner.data.rows import columns_of, make_row
from vision_reasoner.data.solutions import Target
from vision_reasoner.data.tables import write_table
from vision_reasoner.errors import CheckpointError, DataError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.models.checkpoints import BUNDLED, CALIBRATION, choose, in_pretrained
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.results import Task
from vision_reasoner.scenes.scene import Scene
from vision_reasoner.training.sft import __main__ as sft
from vision_reasoner.training.sft import tiny_trainer
from vision_reasoner.training.sft.tiny_trainer import (
    Optimizers,
    TinyTrainer,
    Views,
    load_adapted,
    scale_of,
    train,
    training_arguments,
)
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.architecture import SIDE
from vision_reasoner.training.tiny.photographs import View

TARGET = Target(Box.from_inclusive(60, 80, 119, 139), Point(90, 100))


def write_rows(folder: Path, name: str) -> None:
    """Five pictures, asked for a class of this name and for dogs; each has one of the two."""
    rows = []
    for i in range(5):
        image = noise(120, 90, seed=i)
        rows.append(make_row(f"{i}a", name, image, [TARGET] * (i % 2), SIDE))
        rows.append(make_row(f"{i}b", "dog", image, [TARGET] * (1 - i % 2), SIDE))
    write_table(folder, "train", columns_of("hub"), rows)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Of three steps with two photographs each, the last with requests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tiny_trainer, "load_sprites", drawings.sprites)
    write_rows(tmp_path / "rows", "White Blood Cell")
    flags = {"data": tmp_path / "rows", "output_dir": tmp_path / "run", "max_steps": 3, "batch_size": 2}
    flags |= {"micro_batch": 2, "eval_every": 3, "eval_n": 1, "save_every": 1, "max_new_tokens": 4, "threads": 1}
    flags |= {"rehearsed_share": 0.34}
    texts = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return sft.complete(sft.build_parser().parse_args(["--preset", "tiny", *texts]))


def test_a_run_leaves_a_bundle_that_knows_the_new_names(settings: argparse.Namespace, tmp_path: Path) -> None:
    folder = train(settings)
    assert choose(str(folder)).reasoner == str(folder / "reasoner")
    assert not (folder / "reasoner" / CALIBRATION).exists()  # the one that it began with has it
    reasoner = Reasoner.from_pretrained(folder / "reasoner", device="cpu")
    engine: Any = reasoner.engine
    assert len(engine.tokenizer.encode(" white blood cells")) == 1
    reply = reasoner.ask([noise(64, 64)], ["white blood cell"], tasks=[Task.DETECTION], max_new_tokens=4)[0]
    assert reply.text
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    first, _, last = (line for line in lines if "loss" in line)
    assert "attend target 3" not in first
    assert "attend target 3" in last
    before = (tmp_path / "run" / "log.jsonl").read_text()
    train(settings)  # there is nothing left to do
    assert (tmp_path / "run" / "log.jsonl").read_text() == before
    settings.model_path = str(folder)
    policy, photographs = load_adapted(settings)
    assert [c.name for c in photographs.added] == ["white blood cell"]
    assert len(policy.processing.tokenizer) == len(engine.tokenizer)


def test_the_first_embedding_of_a_name_is_its_classs_vector(settings: argparse.Namespace) -> None:
    policy, photographs = load_adapted(settings)
    assert [c.name for c in photographs.added] == ["white blood cell"]
    tokenizer, words = policy.processing.tokenizer, policy.model.get_input_embeddings().weight
    vector = tiny_trainer.ConceptCodebook(photographs.added).names["white blood cell"]
    ids = [tokenizer.encode(text) for text in ("white blood cell", " white blood cells")]
    assert all(len(found) == 1 and words[found[0]] @ vector > 0.8 for found in ids)
    assert policy.model.lm_head.weight.shape == words.shape
    bundled = in_pretrained(BUNDLED)
    assert bundled is not None
    assert (
        len(tokenizer)
        == json.loads((bundled / "reasoner" / "config.json").read_text())["text_config"]["vocab_size"] + 4
    )


def test_a_frozen_tower_sees_and_does_not_learn(settings: argparse.Namespace) -> None:
    settings.freeze, settings.output_dir = "vision", str(Path(settings.output_dir).parent / "frozen")
    policy, photographs = load_adapted(settings)
    trainer = TinyTrainer(policy, photographs, settings, training_arguments(settings, first=True))
    trainer.compute_loss(policy.model, {"views": [trainer.train_dataset[i] for i in range(2)]}).backward()
    moved = {name for name, weights in policy.model.named_parameters() if weights.grad is not None}
    assert any("language_model" in name for name in moved)
    assert not any("visual" in name for name in moved)


@pytest.mark.parametrize("name", ["donut hole", "wheel"])
def test_a_name_with_a_known_word_inside_or_as_its_plural_is_whole(
    settings: argparse.Namespace, tmp_path: Path, name: str
) -> None:
    settings.data = str(tmp_path / name)
    write_rows(tmp_path / name, name)
    policy, photographs = load_adapted(settings)
    tokenizer, words = policy.processing.tokenizer, policy.model.get_input_embeddings().weight
    vector = tiny_trainer.ConceptCodebook(photographs.added).names[name]
    for text in (name, f" {name}", f" {name}s"):
        (token,) = tokenizer.encode(text)
        assert words[token] @ vector > 0.8
    assert len(tokenizer.encode(" donuts")) == 1


@pytest.mark.parametrize("name", ["nut", "pan", "arm"])
def test_a_name_inside_a_known_word_is_refused(settings: argparse.Namespace, tmp_path: Path, name: str) -> None:
    settings.data = str(tmp_path / name)
    write_rows(tmp_path / name, name)
    with pytest.raises(DataError, match=rf'the name "{name}" is a part of ".*{name}.*--rename'):
        load_adapted(settings)


def test_scenes_are_divided_among_the_batches_of_a_step(
    settings: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.batch_size, settings.micro_batch, settings.max_steps = 4, 1, 30
    policy, photographs = load_adapted(settings)
    trainer = TinyTrainer(policy, photographs, settings, training_arguments(settings, first=True))
    drawn: list[bytes] = []

    def losses(_views: list[View], scenes: list[Scene]) -> loop.Losses:
        drawn.extend(scene.image.tobytes() for scene in scenes)
        return torch.zeros(()), {}

    monkeypatch.setattr(trainer, "_vision_loss", losses)
    for step in range(3):
        trainer.state.global_step = step
        for i in range(4):
            trainer.compute_loss(policy.model, {"views": [trainer.train_dataset[i]]})
    assert len(drawn) == round(3 * 4 * 0.34 / 0.66)
    assert len(set(drawn)) == len(drawn)


def test_a_picture_of_nothing_that_is_asked_for_nothing_is_learned_from(settings: argparse.Namespace) -> None:
    settings.rehearsed_share = 0
    policy, photographs = load_adapted(settings)
    trainer = TinyTrainer(policy, photographs, settings, training_arguments(settings, first=True))
    nothing = View(Scene(np.zeros((SIDE, SIDE, 3), np.uint8), []), frozenset())
    for trainer.state.global_step in (0, settings.max_steps - 1):
        loss = trainer.compute_loss(policy.model, {"views": [nothing]})
        loss.backward()
        assert torch.isfinite(loss)


def test_another_model_is_refused(settings: argparse.Namespace, bundle: Path) -> None:
    settings.model_path = str(bundle)
    with pytest.raises(CheckpointError, match="is not VisionReasoner-Tiny"):
        load_adapted(settings)


def test_a_view_is_the_same_again_and_every_photograph_comes_in_turn(
    settings: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, photographs = load_adapted(settings)
    views = Views(photographs, 3, ("horizontal",))
    assert (views[7].scene.image == views[7].scene.image).all()
    assert (views[7].scene.image != views[8].scene.image).any()
    assert not (views[7].scene.image == Views(photographs, 4, ())[7].scene.image).all()
    monkeypatch.setattr(tiny_trainer, "random_view", lambda _photographs, number, *_: number)
    trainer = TinyTrainer(policy, photographs, settings, training_arguments(settings, first=True))
    n = len(photographs.scenes)
    batches = itertools.islice(trainer.get_train_dataloader(), n)  # of two
    order = [number for batch in batches for number in batch["views"]]
    assert sorted(order[:n]) == sorted(order[n:]) == list(range(n))
    assert order[:n] != order[n:]


def test_each_half_of_the_model_has_its_learning_rate_while_it_learns(settings: argparse.Namespace) -> None:
    settings.max_steps = 300
    policy, photographs = load_adapted(settings)
    trainer = TinyTrainer(policy, photographs, settings, training_arguments(settings, first=True))
    scheduler = trainer.create_scheduler(300)
    assert [scale(150) for scale in scheduler.lr_lambdas] == [0.25, 0.25, 0, 0]
    assert [scale(250) for scale in scheduler.lr_lambdas] == [0, 0, 0.5, 0.5]
    assert scheduler.get_last_lr() == pytest.approx([settings.lr / 20, loop.MUON_LR_SCALE * settings.lr / 20, 0, 0])
    assert scale_of(0, 100, 0) == scale_of(100, 200, 100) == 0.05
    assert scale_of(100, 200, 200) == 0


def test_several_optimizers_go_on_as_one() -> None:
    def build() -> tuple[torch.nn.Module, Optimizers]:
        torch.manual_seed(0)
        module = torch.nn.ModuleDict({"blocks": torch.nn.ModuleDict({"0": torch.nn.Linear(4, 4)})})
        return module, Optimizers(loop.make_optimizers([module], 0.1))

    def step(module: torch.nn.Module, optimizer: Optimizers) -> None:
        optimizer.zero_grad()
        module["blocks"]["0"](torch.ones(2, 4)).square().sum().backward()
        optimizer.step()

    module, optimizer = build()
    assert len(optimizer.param_groups) == 2
    step(module, optimizer)
    for group in optimizer.param_groups:
        group["lr"] /= 2
    saved, weights = copy.deepcopy(optimizer.state_dict()), {k: v.clone() for k, v in module.state_dict().items()}
    step(module, optimizer)
    again, other = build()
    again.load_state_dict(weights)
    other.load_state_dict(saved)
    step(again, other)
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert all(torch.allclose(v, again.state_dict()[k]) for k, v in module.state_dict().items())
