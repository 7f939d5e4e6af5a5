"""Supervised fine-tuning: learns replies and nothing else, sees what inference sees, goes on where it stopped."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="fine-tuning needs the extra .[train]")

import datasets
import torch
from safetensors.torch import load_file

from tests.conftest import noise
from tests.support import tiny
from vision_reasoner.data.rows import columns_of, make_row
from vision_reasoner.data.solutions import Target
from vision_reasoner.data.tables import write_table
from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.models.checkpoints import choose
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.parsing import parse_reply
from vision_reasoner.results import Task
from vision_reasoner.training import runs
from vision_reasoner.training.grpo.policies import load_reasoner
from vision_reasoner.training.sft import __main__ as sft
from vision_reasoner.training.sft.replies import reply_of
from vision_reasoner.training.sft.trainer import Trainer, sft_config, train

SIDE = tiny.FRAME_SIDE
SIZE = (SIDE, SIDE)
TARGET = Target(Box.from_inclusive(10, 10, 49, 49), Point(30, 30))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent anywhere, what `datasets` keeps is kept for the test alone, and equal is equal."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("telemetry was sent")

    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(runs, "has_bfloat16", lambda: False)


def settings_for(bundle: Path, tmp_path: Path, *flags: object) -> argparse.Namespace:
    """Of two steps with two rows each, short replies, and figures after every step."""
    rows = [make_row(str(i), "the dog", noise(90, 70, seed=i), [TARGET] * (i % 3), SIDE) for i in range(10)]
    data = tmp_path / "rows"
    if not data.is_dir():
        write_table(data, "train", columns_of("hub"), rows)
    small = {"model_path": bundle, "data": data, "output_dir": tmp_path / "run", "max_steps": 2, "batch_size": 2}
    small |= {"max_new_tokens": 6, "eval_every": 1, "eval_n": 2, "lr": 1e-3, "save_every": 1, "threads": 1}
    given = [str(flag) for flag in flags]
    texts = [part for name, value in small.items() for part in (f"--{name}", str(value)) if f"--{name}" not in given]
    return sft.complete(sft.build_parser().parse_args([*texts, *given]))


def trainer_of(settings: argparse.Namespace) -> Trainer:
    torch.manual_seed(0)
    Path(settings.output_dir).mkdir(exist_ok=True)
    return Trainer(load_reasoner(settings), settings, sft_config(settings, first=True))


def test_help_needs_neither_torch_nor_trl() -> None:
    code = (
        "import sys; from vision_reasoner.training.sft import __main__ as sft; sft.build_parser().format_help(); "
        "assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--data", "d"], "which checkpoint"),
        (["--data", "d", "--model_path", "m", "--flips", "both"], "go with --preset tiny"),
        (["--data", "d", "--preset", "tiny", "--thinking", "none"], "thinks in lists"),
        (["--data", "d", "--preset", "tiny", "--epochs", "2"], "--max_steps"),
        (["--data", "d", "--preset", "tiny", "--weight_decay", "0.1"], "do not go with --preset tiny"),
        (["--data", "d", "--model_path", "m", "--lora", "--freeze", "language"], "--lora"),
        (["--data", "d", "--model_path", "m", "--lr", "nan"], "--lr nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(flags: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        sft.complete(sft.build_parser().parse_args(flags))


@pytest.mark.parametrize("thinking", ["list", "none"])
def test_a_reply_is_in_the_prompts_grammar(thinking: Any) -> None:
    solution = '[{"bbox_2d": [1, 2, 9, 8], "point_2d": [5, 6]}, {"bbox_2d": [20, 30, 40, 50], "point_2d": [25, 35]}]'
    parsed = parse_reply(
        reply_of("cups", solution, model_size=SIZE, thinking=thinking), model_size=SIZE, image_size=SIZE
    )
    assert [tuple(found.box) for found in parsed.instances] == [(1, 2, 9, 8), (20, 30, 40, 50)]
    assert not parsed.warnings
    nothing = parse_reply(reply_of("cups", "[]", model_size=SIZE, thinking=thinking), model_size=SIZE, image_size=SIZE)
    assert nothing.status == "none"


def test_replies_alone_are_learned_after_the_prompt_that_inference_has(bundle: Path, tmp_path: Path) -> None:
    trainer = trainer_of(settings_for(bundle, tmp_path))
    row = trainer.policy.train.at(1)
    tokenizer = trainer.policy.processing.tokenizer
    batch = trainer.data_collator([trainer.train_dataset[1]])
    learned = batch["labels"][0] != -100
    reply = reply_of(row["problem"], row["solution"], model_size=SIZE)
    assert tokenizer.decode(batch["labels"][0][learned]).startswith(reply)
    assert tokenizer.eos_token_id in batch["labels"][0][learned]
    prompt = batch["input_ids"][0][: int(learned.nonzero()[0])]
    asked = trainer.policy.processing.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["prompt"][0]["content"]}]}],
        add_generation_prompt=True,
    )
    pixels = trainer.policy.processing(images=[row["image"]], text=[asked], return_tensors="pt")
    assert torch.equal(prompt, pixels["input_ids"][0])
    assert torch.equal(batch["pixel_values"], pixels["pixel_values"])


def test_a_run_that_was_stopped_ends_like_one_that_was_not(bundle: Path, tmp_path: Path) -> None:
    whole = settings_for(bundle, tmp_path, "--output_dir", tmp_path / "whole", "--max_steps", 4, "--average", 0.5)
    train(whole)
    first = settings_for(bundle, tmp_path, "--output_dir", tmp_path / "parts", "--max_steps", 4, "--average", 0.5)
    stopped = trainer_of(first)
    stopped.add_callback(StopAfter(2))
    runs.check_settings(first, tmp_path / "parts", stopped.policy.train.n, continued=False, scheduled=True)
    stopped.train()
    train(settings_for(bundle, tmp_path, "--output_dir", tmp_path / "parts", "--max_steps", 4, "--average", 0.5))
    ends = [load_file(tmp_path / name / "checkpoint-4" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0])
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 4


def test_a_run_keeps_to_its_number_of_steps(bundle: Path, tmp_path: Path) -> None:
    """The learning rate of each step depends on it."""
    train(settings_for(bundle, tmp_path, "--max_steps", 1))
    with pytest.raises(UsageError, match="holds a run with --max_steps 1, now it is 2"):
        train(settings_for(bundle, tmp_path, "--max_steps", 2))


class StopAfter(runs.TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        control.should_training_stop = state.global_step >= self.step


def test_the_loss_falls_and_the_result_is_a_bundle(bundle: Path, tmp_path: Path) -> None:
    flags = ["--max_steps", 12, "--eval_every", 12, "--save_every", 12, "--lr", 3e-3, "--batch_size", 4]
    folder = train(settings_for(bundle, tmp_path, *flags))
    losses = [
        line["loss"] for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "loss" in line
    ]
    assert losses[-1] < 0.7 * losses[0]
    assert choose(str(folder)).reasoner == str(folder / "reasoner")
    Reasoner.from_pretrained(folder / "reasoner", device="cpu").ask(
        [noise(64, 64)], ["the dog"], tasks=[Task.DETECTION], max_new_tokens=4
    )


def test_adapters_are_merged_into_what_is_written(bundle: Path, tmp_path: Path) -> None:
    folder = train(settings_for(bundle, tmp_path, "--lora", 4, "--lr", 1e-2, "--max_steps", 1, "--eval_n", 1))
    before, after = (load_file(path / "reasoner" / "model.safetensors") for path in (bundle, folder))
    assert before.keys() == after.keys()
