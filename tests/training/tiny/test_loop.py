"""The training loop: it ends in time, saves, and continues where it was."""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.options import add_training_options


def arguments(folder: Path, minutes: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_training_options(parser, minutes=1)
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
    assert loop.resume(tmp_path / "toy.pt", {"module": module}).step == len(first)
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
    assert loop.resume(tmp_path / "toy.pt", {"module": module}).step == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_counts_the_minutes_of_all_runs(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 1)
    loop.save_checkpoint(tmp_path / "toy.pt", {"module": module}, [], loop.Progress(10, 7.5))
    loop.train("toy", {"module": module}, lambda _: (module(torch.ones(1, 2)).sum(), {}), arguments(tmp_path, 0.001))
    progress = loop.resume(tmp_path / "toy.pt", {"module": module})
    assert progress.step > 10
    assert 7.5 < progress.minutes < 8


def test_a_checkpoint_of_another_version_is_one_line(tmp_path: Path) -> None:
    loop.save_checkpoint(tmp_path / "toy.pt", {"module": torch.nn.Linear(2, 1)}, [], loop.Progress(1))
    with pytest.raises(CheckpointError, match=r"toy\.pt was written by another version") as raised:
        loop.resume(tmp_path / "toy.pt", {"module": torch.nn.Linear(3, 1)})
    assert "\n" not in str(raised.value)


def test_the_learning_rate_warms_up_and_falls_in_the_last_part_of_the_time() -> None:
    assert loop.lr_scale(0, 0.0) == pytest.approx(1 / loop.WARMUP_STEPS)
    assert loop.lr_scale(500, 1 - loop.DECAY_SHARE) == 1.0
    assert loop.lr_scale(500, 1 - loop.DECAY_SHARE / 4) == pytest.approx(0.25)
    assert loop.lr_scale(500, 1.2) == loop.MIN_LR_SCALE


def test_denormal_numbers_are_flushed_while_training_only() -> None:
    tiny = torch.tensor(1e-30)
    with loop.denormals_flushed():
        assert tiny * 1e-10 == 0
    assert tiny * 1e-10 > 0


TOGETHER = """
import argparse, json, os, signal, sys
from pathlib import Path
import torch
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.options import add_training_options

torch.manual_seed(0)
module, rank, steps = torch.nn.Linear(3, 1), int(os.environ["RANK"]), []
other = torch.nn.Linear(1, 1)  # whose weight only one of them needs, and whose bias none
bias = other.bias.item()

def losses(step):
    steps.append(step)
    assert loop.all_reduce_gradients([other.bias]) == [] and other.bias.grad is None
    if step == 8:  # one of the two is told to end: both end
        os.kill(os.getpid(), signal.SIGTERM)
    loss = module(torch.full((1, 3), float(step))).sum() + (other.weight.sum() if rank else 0)
    return loss, {"loss": loss.item()}

parser = argparse.ArgumentParser()
add_training_options(parser, minutes=5)
loop.train("toy", {"module": module, "other": other}, losses, parser.parse_args(["--output_dir", sys.argv[1]]))
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps({
    "steps": steps, "weight": module.weight.tolist(), "bias": [bias, other.bias.item()]
}))
"""


def test_two_processes_train_one_module_on_samples_of_their_own_and_end_together(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(loop.__file__).parents[3])}
    subprocess.run([*launch, str(tmp_path)], check=True, env=environment, timeout=240)
    a, b = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (a["steps"], b["steps"]) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert a["weight"] == b["weight"], "their gradients were not the same"
    assert a["bias"][0] == a["bias"][1], "it decayed"
    module = torch.nn.Linear(3, 1)
    assert loop.resume(tmp_path / "toy.pt", {"module": module}).step == 5
    assert module.weight.tolist() == a["weight"]


@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_muon_in_float32_takes_the_steps_of_torchs_own(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizers = loop.Float32Muon([ours], lr=0.01, **loop.MUON), torch.optim.Muon([theirs], lr=0.01, **loop.MUON)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = theirs.detach() - 1
    assert (ours - theirs).norm() < 0.03 * moved.norm()  # bfloat16 has three digits
    theirs_state = optimizers[1].state_dict()
    optimizers[0].load_state_dict(theirs_state)  # a run goes on on another machine
    assert optimizers[0].state_dict()["state"][0].keys() == theirs_state["state"][0].keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_and_the_cpu_is_taken_where_none_is_asked_for(tmp_path: Path) -> None:
    args = arguments(tmp_path, 1)
    args.device = "cuda"
    with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
        loop.set_up(args)
    args.device = "auto"
    loop.set_up(args)
    assert torch.zeros(1).device.type == "cpu"
