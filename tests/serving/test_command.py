"""`vision-reasoner serve`: what it says before it serves, and that it ends with what went wrong."""

import builtins
import socket

import pytest

from vision_reasoner.errors import ExitCode
from vision_reasoner.inference import main
from vision_reasoner.serving.command import KEY


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield str(other.getsockname()[1])


def test_a_port_that_is_taken_is_said(taken, capsys):
    assert main(["serve", "--port", taken]) == ExitCode.USAGE
    assert f"cannot listen on 127.0.0.1:{taken}" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "warned"), [("", True), ("sesame", False)])
def test_an_open_address_without_a_key_is_warned_of(capsys, monkeypatch, key, warned):
    monkeypatch.setenv(KEY, key)  # the address is nobody's, so that it ends there
    assert main(["serve", "--host", "192.0.2.1"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert ("whoever reaches 192.0.2.1 can use this server" in said) is warned
    assert "sesame" not in said


@pytest.mark.parametrize("flag", ["--max_waiting", "--max_upload_mb", "--timeout"])
def test_limits_below_one_are_refused(flag, capsys):
    assert main(["serve", flag, "0"]) == ExitCode.USAGE
    assert f"{flag} must be at least 1" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_said_before_anything_is_served(tmp_path, capsys):
    assert main(["serve", "--model_path", str(tmp_path / "none"), "--port", "0"]) == ExitCode.CHECKPOINT
    assert "none" in capsys.readouterr().err


def test_what_has_to_be_installed_is_said(monkeypatch, capsys):
    real = builtins.__import__

    def without_uvicorn(name, *arguments, **options):
        if name == "uvicorn":
            raise ImportError("no uvicorn", name="uvicorn")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_uvicorn)
    assert main(["serve"]) == ExitCode.USAGE
    assert 'this needs uvicorn: pip install -e ".[serve]"' in capsys.readouterr().err
