"""vLLM as engine: what it is for, what it says where it is not installed, and the same replies where it is.

The slow tests need an environment with vLLM, which `.ci/vllm FOLDER` makes; VLLM_PYTHON names its Python.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from evaluation import run
from tests.support.bundled_replies import BUNDLED, STOPPED_AFTER, model_of, replies, scenes, streamed_and_stopped
from tests.support.server import VLLM_ENVIRONMENT, vllm_serve
from vision_reasoner import inference
from vision_reasoner.errors import CheckpointError, ExitCode, UsageError
from vision_reasoner.models.vllm import check_generation_config
from vision_reasoner.settings import RunSettings

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4  # of log-probabilities; 5e-5 is what other kernels and another PyTorch make of float32


def test_without_the_package_one_line_says_the_command_that_installs_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    given = ["--engine", "vllm", "--model_path", str(BUNDLED), "--output_path", str(tmp_path / "out.png")]
    for main, arguments in ((inference.main, ["--task", "counting"]), (run.main, ["--suite", "counting"])):
        assert main([*arguments, *given]) == ExitCode.USAGE
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert 'pip install -e ".[vllm]"' in line


def test_it_takes_requests_one_by_one_and_is_no_server():
    settings = RunSettings(engine="vllm", batch_size=5)
    assert (settings.portion, settings.portions_at_once, settings.served) == (1, 5, ())


@pytest.mark.parametrize("changes", [{"router_engine": "vllm"}, {"engine": "vllm", "frame_side": 280}])
def test_it_runs_a_reasoner_from_a_checkpoint(changes):
    with pytest.raises(UsageError, match=r"no engine|frame_side"):
        RunSettings(**changes)


def test_decoding_that_it_cannot_do_is_refused(tmp_path):
    check_generation_config(SimpleNamespace(repetition_penalty=1.05), tmp_path)
    with pytest.raises(CheckpointError, match="suppress_tokens"):
        check_generation_config(SimpleNamespace(suppress_tokens=[3]), tmp_path)


# --- for real ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def python():
    """The Python of an environment with vLLM."""
    found = os.environ.get("VLLM_PYTHON")
    if not found:
        pytest.skip("no environment with vLLM: make one by .ci/vllm FOLDER and set VLLM_PYTHON to FOLDER/bin/python")
    return found


@pytest.fixture(scope="module")
def expected():
    """What the library's own engine says."""
    found = replies(model_of("transformers"), scenes())
    assert len(found) == 60
    assert len({reply["text"] for reply in found}) > 30
    return found


def check_replies(given, expected):
    """They are the same, and the tokens as likely."""
    without = [{name: value for name, value in reply.items() if name != "logprobs"} for reply in given]
    assert without == [{name: value for name, value in reply.items() if name != "logprobs"} for reply in expected]
    for one, other in zip(given, expected, strict=True):
        assert [end for end, _ in one["logprobs"]] == [end for end, _ in other["logprobs"]]
        logprobs = [logprob for _, logprob in one["logprobs"]]
        assert logprobs == pytest.approx([logprob for _, logprob in other["logprobs"]], abs=TOLERANCE)


def check_streams(streamed, stopped, expected):
    """The last text that was told is the reply; what was stopped is its beginning."""
    assert streamed == [reply["text"] for reply in expected]
    assert not stopped["finished"]
    assert STOPPED_AFTER <= len(stopped["text"]) < len(expected[0]["text"])
    assert expected[0]["text"].startswith(stopped["text"])


@pytest.mark.slow
def test_in_process_it_says_what_the_library_says(python, expected, tmp_path):
    command = [python, "-m", "tests.support.bundled_replies", "vllm", str(tmp_path / "out.json")]
    subprocess.run(
        command, cwd=ROOT, env=os.environ | VLLM_ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, check=True, timeout=600
    )
    given = json.loads((tmp_path / "out.json").read_text())
    check_replies(given["replies"], expected)
    check_replies(given["alone"], expected[::10])
    check_streams(given["streamed"], given["stopped"], expected)


@pytest.mark.slow
def test_as_a_server_it_says_what_the_library_says(python, expected, tmp_path):
    with vllm_serve(python, BUNDLED / "reasoner", tmp_path / "log.txt") as address:
        model = model_of(address)
        check_replies(replies(model, scenes()), expected)
        check_streams(*streamed_and_stopped(model, scenes()), expected)
