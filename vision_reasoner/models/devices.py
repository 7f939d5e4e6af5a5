"""Which device, number format and attention a part runs with, when it is not said."""

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from vision_reasoner.errors import UsageError, one_line

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DTYPES = ("auto", "bfloat16", "float16", "float32")
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
COMPILES = ("auto", "on", "off")
QUANTIZATIONS = ("none", "8bit", "4bit")
SMALL_CHECKPOINT = 1 << 30  # bytes; beyond it decoding on a CPU waits for memory, and half the bytes is half the time


def choose_device(device: str = "auto") -> "torch.device":
    """The device called `device`; for "auto" CUDA, else MPS, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # "meta" holds no values
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise UsageError(
            f"device {device!r} cannot be used here ({one_line(error)}): leave it out or give cpu"
        ) from error
    return torch.device(device)


@cache
def use_free_cores() -> None:
    """Let torch use no more threads than this process has cores; its default counts all cores of the machine.

    Nothing is changed where OMP_NUM_THREADS says how many. Processes that are forked from this one use a single thread:
    OpenMP's others are not in them, and waiting for these would never end.
    """
    import torch

    cores = available_cores()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
        busy = os.getloadavg()[0]
        if torch.get_num_threads() > 1 and busy > cores:
            logger.info(
                "The machine is busy (a load of %.0f on %d cores): OMP_NUM_THREADS=1 may be faster than %d threads",
                busy,
                cores,
                torch.get_num_threads(),
            )


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use: by its affinity, and by the quota of its container where it has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # versions 2 and 1
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            if int(quota) > 0:
                return max(1, min(cores, math.ceil(int(quota) / int(period))))
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            continue
    return cores


def choose_dtype(dtype: str, device: "torch.device", weight_bytes: int) -> "torch.dtype":
    """The number format called `dtype`; for "auto" what suits the device.

    bfloat16, in which the released weights were trained and saved, on CUDA and MPS. On a CPU float32 for small weights:
    they decode faster so, even on cores with bfloat16 instructions, and exactly (`python -m evaluation.benchmark
    --dtype` compares). Large ones stay in bfloat16 there too, or they would need twice their size in memory.

    Args:
        dtype: one of `DTYPES`.
        device: where the weights go.
        weight_bytes: size of the checkpoint's weight files.

    Raises:
        UsageError: there is no such format.
    """
    import torch

    if dtype not in DTYPES:
        raise UsageError(f"no number format {dtype!r}: give one of {', '.join(DTYPES)}")
    if dtype != "auto":
        chosen = getattr(torch, dtype)
        assert isinstance(chosen, torch.dtype)
        return chosen
    return torch.float32 if device.type == "cpu" and weight_bytes < SMALL_CHECKPOINT else torch.bfloat16


def named_dtype(dtype: str, device: "torch.device", gpu_dtype: str | None) -> str:
    """The format to ask `choose_dtype` for: `gpu_dtype` where "auto" is asked for, there is one, and a GPU is used.

    float16 is what the paper's baselines ran in. On a CPU it would be no faster.
    """
    return gpu_dtype if gpu_dtype is not None and dtype == "auto" and device.type != "cpu" else dtype


def choose_attention(attention: str, device: "torch.device", dtype: "torch.dtype") -> str:
    """The attention called `attention`; for "auto" flash-attn where it is installed and can run, otherwise sdpa."""
    import torch

    if attention not in ATTENTIONS:
        raise UsageError(f"no attention {attention!r}: give one of {', '.join(ATTENTIONS)}")
    from transformers.utils import is_flash_attn_2_available

    possible = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if attention == "flash_attention_2":
        if not is_flash_attn_2_available():
            raise UsageError(
                "attn_implementation flash_attention_2 needs the package flash-attn; install it or give sdpa"
            )
        if not possible:
            raise UsageError(
                f"attn_implementation flash_attention_2 needs CUDA and half precision, not {device.type} and {dtype}; "
                "give sdpa"
            )
    if attention != "auto":
        return attention
    return "flash_attention_2" if possible and is_flash_attn_2_available() else "sdpa"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on whatever device."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treat denormal numbers as 0: gradients of attention are full of them, and on a CPU they take half of the time."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def peak_memory() -> dict[str, float]:
    """The most memory that was in use so far, in gigabytes of 10^9 bytes: of the process, and of its CUDA device."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if torch.cuda.is_available():
        peak["CUDA memory"] = torch.cuda.max_memory_allocated() / 1e9
    return peak
