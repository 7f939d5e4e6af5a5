"""The training loop that all stages share: time budget, learning-rate schedule, checkpoints to resume from, log.

It does not know the models. Started by `torchrun --nproc_per_node N`, N processes train together, each on samples of
its own, with averaged gradients. On a CPU, two processes of one thread are nearly twice as fast as one of two threads;
one GPU serves many processes, which paint the scenes.

DistributedDataParallel is not used: stages run submodules and read projections through hooks instead of calling one
module's forward, and which parameters a step needs differs between processes. Averaging after the backward pass is
one function here, and it also makes all processes end together.
"""

import argparse
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grad_norm_, vector_to_parameters
from tqdm import tqdm

from vision_reasoner.cli import is_quiet
from vision_reasoner.errors import CheckpointError
from vision_reasoner.models.devices import choose_device, denormals_flushed

logger = logging.getLogger(__name__)

MUON_LR_SCALE = 3.0  # Muon's learning rate over AdamW's; below, their updates are scaled to the same size
ADAMW: dict[str, Any] = {"betas": (0.9, 0.98), "weight_decay": 0.01}  # a short memory: runs of a few thousand steps
MUON: dict[str, Any] = {"weight_decay": 0.02, "adjust_lr_fn": "match_rms_adamw"}
RMS_OF_ADAMW = 0.2  # what updates are scaled to by "match_rms_adamw"
WARMUP_STEPS = 60  # of every run: the optimizers' moments are rough at its start
DECAY_SHARE = 0.5  # of the time budget: the learning rate falls linearly in this last part of it
MIN_LR_SCALE = 0.02  # not 0: a step that is slower than expected still learns
MAX_GRAD_NORM = 1.0
LOG_EVERY = 25  # steps, over which metrics are averaged

Losses = tuple[Tensor, dict[str, float]]


class Progress(NamedTuple):
    """How far a stage is, over all of its runs."""

    step: int = 0
    minutes: float = 0.0


def set_up(args: argparse.Namespace) -> None:
    """Seed torch, set the number of threads, and let what is made from now on be made on the device to train on.

    Raises:
        UsageError: there is no such device here.
    """
    torch.set_num_threads(args.threads)
    if args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available()):
        choose_device("cuda")
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        torch.set_default_device(torch.device("cuda", local_rank % torch.cuda.device_count()))  # processes share GPUs
    torch.manual_seed(args.seed)


def make_optimizers(modules: Iterable[nn.Module], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, heads, norms and biases."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                inside = parameter.ndim == 2 and ("layers." in name or "blocks." in name)
                (matrices if inside else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=lr, fused=True, **ADAMW)]
    if matrices:
        on_bfloat16 = matrices[0].device.type != "cpu" or has_bfloat16()
        kind = torch.optim.Muon if on_bfloat16 else Float32Muon
        optimizers.append(kind(matrices, lr=MUON_LR_SCALE * lr, **MUON))
    return optimizers


class Float32Muon(torch.optim.Muon):
    """torch's Muon as MUON has it, with Nesterov momentum, for processors without instructions for bfloat16.

    There torch's own, which makes updates orthogonal in bfloat16, takes longer than the forward and backward pass.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update the parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            momentum, (a, b, c) = group["momentum"], group["ns_coefficients"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                average.lerp_(p.grad, 1 - momentum)
                update = p.grad.lerp(average, momentum)
                tall = len(p) > p.shape[1]
                wide = update.T if tall else update
                wide /= wide.norm().clamp(min=group["eps"])
                for _ in range(group["ns_steps"]):  # Newton-Schulz iterations towards the nearest orthogonal matrix
                    gram = wide @ wide.T
                    wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(wide.T if tall else wide, alpha=-group["lr"] * RMS_OF_ADAMW * max(p.shape) ** 0.5)


def train(
    name: str,
    modules: dict[str, nn.Module],
    step_losses: Callable[[int], Losses],
    args: argparse.Namespace,
    *,
    save_every: float = 240.0,
) -> None:
    """Train until the time budget is used up. SIGTERM ends training early, with a checkpoint.

    Args:
        name: of the stage; `args.output_dir/<name>.pt` is its checkpoint, `<name>.jsonl` its log.
        modules: what is trained, by name.
        step_losses: from the number of a step to the loss and the metrics to log. Whatever is random in it should be
            seeded with this number, which differs between processes and steps.
        args: see `options.add_training_options`.
        save_every: seconds between checkpoints.

    Raises:
        CheckpointError: the checkpoint is of another version of the stage.
    """
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / f"{name}.pt"
    optimizers = make_optimizers(modules.values(), args.lr)
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    peak_lrs = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    begin = resume(path, modules, optimizers)
    rank, world_size = rank_and_world_size()
    if world_size > 1:
        distributed.init_process_group("gloo")
    step = begin.step
    start = saved = time.time()

    def progress() -> Progress:
        return Progress(step, begin.minutes + (time.time() - start) / 60)

    with denormals_flushed(), sigterm_noted() as received, MetricLog(args.output_dir, name, args.minutes, rank) as log:
        while True:
            loss, metrics = step_losses(step * world_size + rank)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            spent = (time.time() - start) / 60 / args.minutes
            spent, terminated = all_reduce_gradients(parameters, spent, float(bool(received)))
            for optimizer, peak in zip(optimizers, peak_lrs, strict=True):
                optimizer.param_groups[0]["lr"] = lr_scale(step - begin.step, spent) * peak
            if not clip_and_step(parameters, optimizers):
                logger.warning("%s: step %d skipped, its gradient is not finite", name, step)
            step += 1
            log.add(metrics, progress(), (time.time() - start) / (step - begin.step))
            if rank == 0 and time.time() - saved > save_every:
                save_checkpoint(path, modules, optimizers, progress())
                saved = time.time()
            if spent >= 1 or terminated > 0:
                break
    if rank == 0:
        save_checkpoint(path, modules, optimizers, progress())
    if world_size > 1:
        distributed.destroy_process_group()


def clip_and_step(parameters: Sequence[nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]) -> bool:
    """Clip the gradient's norm and update the parameters; without an update, False where the norm is not finite."""
    if not torch.isfinite(clip_grad_norm_(parameters, MAX_GRAD_NORM)):
        return False
    for optimizer in optimizers:
        optimizer.step()
    return True


def lr_scale(steps: int, spent: float) -> float:
    """The learning rate over its peak: linear warmup by steps of this run, linear decay by its share of time spent."""
    warmup = min(1.0, (steps + 1) / WARMUP_STEPS)
    decay = min(1.0, max(MIN_LR_SCALE, (1 - spent) / DECAY_SHARE))
    return warmup * decay


class MetricLog:
    """Means of metrics over LOG_EVERY steps, in a file of JSON lines and on a progress bar; does nothing but on rank 0.

    A line has `step`, `seconds` (of a step of this run), `minutes` (of the stage so far, over all of its runs) and the
    metrics.
    """

    def __init__(self, folder: Path, name: str, minutes: float, rank: int) -> None:
        self.active = rank == 0
        self.recent: list[dict[str, float]] = []
        self.start = time.time()
        self.file = (folder / f"{name}.jsonl").open("a", encoding="utf-8")
        self.bar = tqdm(
            total=round(minutes, 1),
            unit="min",
            desc=name,
            bar_format="{l_bar}{bar}| {n:.1f}/{total} min {postfix}",
            mininterval=10,
            disable=not self.active or is_quiet(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        self.file.close()

    def add(self, metrics: dict[str, float], progress: Progress, seconds: float) -> None:
        """Add a step's metrics; write a line with every LOG_EVERY-th step."""
        if not self.active:
            return
        self.recent.append(metrics)
        if progress.step % LOG_EVERY:
            return
        names = dict.fromkeys(name for metrics in self.recent for name in metrics)
        values = {name: [metrics[name] for metrics in self.recent if name in metrics] for name in names}
        line = {"step": progress.step, "seconds": round(seconds, 3), "minutes": round(progress.minutes, 2)}
        line |= {name: round(sum(v) / len(v), 4) for name, v in values.items()}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.recent = []
        self.bar.n = round((time.time() - self.start) / 60, 1)
        self.bar.set_postfix_str(" ".join(f"{name} {value:.3g}" for name, value in line.items()))


def rank_and_world_size() -> tuple[int, int]:
    """The index of this process and the number of processes, as torchrun sets them; rank 0 writes all files."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@torch.no_grad()
def all_reduce_gradients(parameters: Sequence[nn.Parameter], *numbers: float) -> list[float]:
    """Replace gradients by their mean over all processes; return the mean of each of the numbers.

    A parameter without a gradient in any process keeps none, so that no optimizer touches it.
    """
    if not distributed.is_initialized():
        return list(numbers)
    device = parameters[0].device
    needed = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=device)
    distributed.all_reduce(needed)
    gradients = []
    for p, processes in zip(parameters, needed.tolist(), strict=True):
        if processes and p.grad is None:  # not needed for this process's samples, but for another's
            p.grad = torch.zeros_like(p)
        if p.grad is not None:
            gradients.append(p.grad)
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor(numbers, device=device)])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    vector_to_parameters(flat, gradients)
    return [float(value) for value in flat[len(flat) - len(numbers) :]]


@contextmanager
def sigterm_noted() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM has arrived, which does not end the process meanwhile."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; without them bfloat16 is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def mixed_precision() -> torch.autocast:
    """bfloat16 for matrix products, where that is faster, on the device that tensors are made on."""
    device = torch.get_default_device().type
    return torch.autocast(device, torch.bfloat16, enabled=device != "cpu" or has_bfloat16())


def save_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer], progress: Progress
) -> None:
    """Write a checkpoint atomically: an interruption leaves the previous one."""
    state = {
        "step": progress.step,
        "minutes": progress.minutes,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    scratch.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote: step, minutes, modules and optimizers."""
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def resume(path: Path, modules: dict[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer] = ()) -> Progress:
    """Load a checkpoint if there is one.

    Raises:
        CheckpointError: it does not fit the modules.
    """
    if not path.exists():
        return Progress()
    state = read_checkpoint(path)
    try:
        for name, module in modules.items():
            if name in state["modules"]:
                module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=False):
            optimizer.load_state_dict(saved)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} was written by another version of this stage: delete it or choose another --output_dir"
        ) from error
    return Progress(state["step"], state.get("minutes", 0.0))
