"""The training loop: it ends in time, saves, and continues where it was."""

import argparse
import json
import os
import signal
from pathlib import Path

import torch

from vision_reasoner.training import loop


def arguments(folder: Path, minutes: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    loop.add_arguments(parser, minutes=1)
    return parser.parse_args(["--minutes", str(minutes), "--output_dir", str(folder)])


def test_a_run_continues_where_it_was_and_says_what_it_saw(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, steps = torch.nn.Linear(4, 1), []

    def losses(step: int) -> loop.Losses:
        steps.append(step)
        loss = ((module(torch.ones(2, 4)) - 3) ** 2).mean()
        return loss, {"loss": loss.item()}

    loop.train("toy", {"module": module}, losses, arguments(tmp_path, 0.01))
    first, weight = list(steps), module.weight.detach().clone()
    assert first == list(range(len(first)))
    with torch.no_grad():
        module.weight.zero_()
    assert loop.resume(tmp_path / "toy.pt", {"module": module}) == len(first)
    assert torch.equal(module.weight, weight)
    loop.train("toy", {"module": module}, losses, arguments(tmp_path, 0.01))
    assert steps[len(first)] == len(first)
    log = [json.loads(line) for line in (tmp_path / "toy.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]


def test_sigterm_ends_a_run_early_and_saves_it(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 1)

    def losses(step: int) -> loop.Losses:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = module(torch.ones(1, 2)).sum()
        return loss, {"loss": loss.item()}

    before = signal.getsignal(signal.SIGTERM)
    loop.train("toy", {"module": module}, losses, arguments(tmp_path, 5))
    assert loop.resume(tmp_path / "toy.pt", {"module": module}) == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_denormal_numbers_are_flushed_while_training_only() -> None:
    tiny = torch.tensor(1e-30)
    with loop.denormals_flushed():
        assert tiny * 1e-10 == 0
    assert tiny * 1e-10 > 0
