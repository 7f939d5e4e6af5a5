"""Devices, number formats and attention: what is chosen when nothing is said, and what is refused."""

import os
import signal
import threading

import pytest
import torch

from vision_reasoner.errors import UsageError
from vision_reasoner.models.devices import (
    SMALL_CHECKPOINT,
    available_cores,
    choose_attention,
    choose_device,
    choose_dtype,
    named_dtype,
    use_free_cores,
)

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def test_device_is_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == MPS
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == CUDA


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "", "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(UsageError, match="cannot be used here"):
        choose_device(device)


def test_dtype_suits_the_device():
    assert choose_dtype("auto", CUDA, 10) is torch.bfloat16
    assert choose_dtype("auto", MPS, 10) is torch.bfloat16
    assert choose_dtype("auto", CPU, 10) is torch.float32
    assert choose_dtype("auto", CPU, SMALL_CHECKPOINT) is torch.bfloat16
    assert choose_dtype("float16", CPU, 10) is torch.float16


def test_auto_is_on_a_gpu_what_a_model_was_published_in():
    assert named_dtype("auto", CUDA, "float16") == "float16"
    assert named_dtype("auto", CPU, "float16") == "auto"
    assert named_dtype("bfloat16", CUDA, "float16") == "bfloat16"
    assert named_dtype("auto", CUDA, None) == "auto"


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="bfloat16"):
        choose_dtype("int8", CPU, 10)
    with pytest.raises(UsageError, match="sdpa"):
        choose_attention("magic", CPU, torch.float32)


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "attention"),
    [
        (CUDA, torch.bfloat16, True, "flash_attention_2"),
        (CUDA, torch.bfloat16, False, "sdpa"),
        (CUDA, torch.float32, True, "sdpa"),
        (CPU, torch.bfloat16, True, "sdpa"),
    ],
)
def test_flash_attention_only_where_it_can_run(monkeypatch, device, dtype, installed, attention):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: installed)
    assert choose_attention("auto", device, dtype) == attention
    assert choose_attention("eager", device, dtype) == "eager"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "garbage"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_counts_as_its_cores(tmp_path, files, cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path) == (cores or 8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_child_computes_although_its_parent_has_with_two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        use_free_cores()
        torch.ones(400, 400) @ torch.ones(400, 400)
        child = os.fork()
        if not child:
            torch.ones(400, 400) @ torch.ones(400, 400)
            os._exit(7)
        limit = threading.Timer(60, os.kill, (child, signal.SIGKILL))
        limit.start()
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its number is not given to another yet
        limit.cancel()
        os.waitpid(child, 0)
        assert ended is not None
        assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 7)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
