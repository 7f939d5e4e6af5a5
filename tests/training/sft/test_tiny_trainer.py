"""The small reasoner's own fine-tuning: new names become words, runs go on, and what is left can be asked for them."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="fine-tuning needs the extra .[train]")

import datasets
import torch
from PIL import Image

from tests.conftest import noise
from tests.support import drawings
from vision_reasoner.data.rows import columns_of, make_row
from vision_reasoner.data.solutions import Target
from vision_reasoner.data.tables import write_table
from vision_reasoner.errors import CheckpointError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.models.checkpoints import BUNDLED, CALIBRATION, choose, in_pretrained
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.results import Task
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

TARGET = Target(Box.from_inclusive(60, 80, 119, 139), Point(90, 100))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Of three steps with two photographs each, the last with requests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tiny_trainer, "load_sprites", drawings.sprites)
    rows = []
    for i in range(5):
        image = noise(120, 90, seed=i)
        rows.append(make_row(f"{i}a", "White Blood Cell", image, [TARGET] * (i % 2), SIDE))
        rows.append(make_row(f"{i}b", "dog", image, [TARGET] * (1 - i % 2), SIDE))
    write_table(tmp_path / "rows", "train", columns_of("hub"), rows)
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


def test_another_model_is_refused(settings: argparse.Namespace, bundle: Path) -> None:
    settings.model_path = str(bundle)
    with pytest.raises(CheckpointError, match="is not VisionReasoner-Tiny"):
        load_adapted(settings)


def test_a_view_is_the_same_again_and_every_photograph_comes_in_turn(settings: argparse.Namespace) -> None:
    _, photographs = load_adapted(settings)
    views = Views(photographs, 3, ("horizontal",))
    assert (views[7].scene.image == views[7].scene.image).all()
    assert (views[7].scene.image != views[8].scene.image).any()
    assert not (views[7].scene.image == Views(photographs, 4, ())[7].scene.image).all()
    marked = [Image.fromarray(scene.image).resize((1, 1)).getpixel((0, 0)) for scene in photographs.scenes]
    assert len(set(marked)) == len(photographs.scenes)


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
