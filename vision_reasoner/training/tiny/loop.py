"""The loop that all stages share: a time budget, checkpoints to resume from, a log; it knows nothing of the models.

Started by `torchrun --nproc_per_node N`, N processes train together, each on samples of its own. On a CPU two processes
of one thread do nearly twice as much as one process of two.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

MUON_PACE = 3.0  # its steps, relative to AdamW's of the same size

Losses = tuple[Tensor, dict[str, float]]


def add_arguments(parser: argparse.ArgumentParser, minutes: float) -> None:
    """The flags of every stage."""
    parser.add_argument("--minutes", type=float, default=minutes, help="time budget of this run (default %(default)s)")
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("runs/tiny"),
        help="checkpoints and logs; an earlier run there is continued",
    )
    parser.add_argument("--seed", type=int, default=1, help="of weights and scenes")
    parser.add_argument("--threads", type=int, default=1, help="processor cores to use")
    parser.add_argument("--batch_size", type=int, default=16, help="images per step")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")


def optimisers(modules: Iterable[nn.Module], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, heads and vectors."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                inside = parameter.ndim == 2 and ("layers." in name or "blocks." in name)
                (matrices if inside else others).append(parameter)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ]
    if matrices:
        muon = torch.optim.Muon(matrices, lr=MUON_PACE * lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
        found.append(muon)
    return found


def train(
    name: str,
    modules: dict[str, nn.Module],
    step_losses: Callable[[int], Losses],
    args: argparse.Namespace,
    *,
    save_every: float = 240.0,
) -> None:
    """Train until the time is over; the second half of it lowers the learning rate. SIGTERM ends it early, and saves.

    Args:
        name: of the stage; `args.output_dir/<name>.pt` is its checkpoint, `<name>.jsonl` its log.
        modules: what is trained, by name.
        step_losses: from the number of a step to the loss and what to log. Seed whatever is random with it: with
            several processes each gets numbers of its own, `others` apart.
        args: see `add_arguments`.
        save_every: seconds between checkpoints.
    """
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / f"{name}.pt"
    optimizers = optimisers(modules.values(), args.lr)
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    first = resume(path, modules, optimizers)
    rank, ranks = processes()
    if ranks > 1:
        distributed.init_process_group("gloo")
    interrupted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: interrupted.append(number))
    start = saved = time.time()
    step, recent = first, []
    bar = tqdm(
        total=round(args.minutes, 1),
        unit="min",
        desc=name,
        bar_format="{l_bar}{bar}| {n:.1f}/{total} min {postfix}",
        mininterval=10,
        disable=rank > 0,
    )
    with denormals_flushed(), (args.output_dir / f"{name}.jsonl").open("a") as log:
        while True:
            loss, seen = step_losses(step * ranks + rank)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            done, stop = agree(parameters, (time.time() - start) / 60 / args.minutes, float(bool(interrupted)))
            pace = min(1.0, (step - first + 1) / 60) * min(1.0, max(0.02, (1 - done) / 0.5))
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                optimizer.param_groups[0]["lr"] = pace * peak
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            if not torch.isfinite(norm):
                print(f"{name}: step {step} skipped, its gradient is not finite", file=sys.stderr)
            else:
                for optimizer in optimizers:
                    optimizer.step()
            recent.append(seen)
            step += 1
            if rank == 0 and step % 25 == 0:
                means = {
                    k: sum(s[k] for s in recent if k in s) / max(1, sum(k in s for s in recent))
                    for k in dict.fromkeys(k for r in recent for k in r)
                }
                line = {
                    "step": step,
                    "seconds": round((time.time() - start) / (step - first), 3),
                    **{k: round(v, 4) for k, v in means.items()},
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                recent = []
                bar.n = round((time.time() - start) / 60, 1)
                bar.set_postfix_str(" ".join(f"{k} {v:.3g}" for k, v in line.items()))
            if rank == 0 and time.time() - saved > save_every:
                save(path, modules, optimizers, step)
                saved = time.time()
            if done >= 1 or stop > 0:
                break
    bar.close()
    signal.signal(signal.SIGTERM, before)
    if rank == 0:
        save(path, modules, optimizers, step)
    if ranks > 1:
        distributed.destroy_process_group()


def processes() -> tuple[int, int]:
    """Which process this is of how many, as torchrun says; the first writes what is written."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@torch.no_grad()
def agree(parameters: Sequence[nn.Parameter], *numbers: float) -> list[float]:
    """Give all processes the mean of their gradients; returns the mean of each of the numbers."""
    if not distributed.is_initialized():
        return list(numbers)
    for p in parameters:
        if p.grad is None:  # not needed for this process's samples, but perhaps for another's
            p.grad = torch.zeros_like(p)
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in grads), torch.tensor(numbers)])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    at = 0
    for g in grads:
        g.copy_(flat[at : at + g.numel()].view_as(g))
        at += g.numel()
    return [float(v) for v in flat[at:]]


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Take denormal numbers for 0: attention's gradients are full of them, and on a CPU they take half of the time."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; elsewhere it is the slower one."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def mixed_precision() -> torch.autocast:
    """bfloat16 for matrix products, where that is faster."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())


def save(path: Path, modules: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer], step: int) -> None:
    """Write a checkpoint; an interruption leaves the one before."""
    state: dict[str, Any] = {k: m.state_dict() for k, m in modules.items()}
    scratch = path.with_suffix(".tmp")
    torch.save({"step": step, "modules": state, "optimizers": [o.state_dict() for o in optimizers]}, scratch)
    scratch.replace(path)


def read(path: Path) -> dict[str, Any]:
    """What `save` wrote."""
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def resume(path: Path, modules: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer] | None = None) -> int:
    """Load a checkpoint if there is one; returns the number of steps done."""
    if not path.exists():
        return 0
    state = read(path)
    for name, module in modules.items():
        if name in state["modules"]:
            module.load_state_dict(state["modules"][name])
    for optimizer, saved in zip(optimizers or [], state["optimizers"], strict=False):
        optimizer.load_state_dict(saved)
    return int(state["step"])
