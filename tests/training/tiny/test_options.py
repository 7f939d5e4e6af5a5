"""The stages' commands: help without torch, one line for bad values, dashes as good as underscores."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from vision_reasoner.training.tiny.options import add_training_options

STAGES = ("vision", "language", "joint", "segmenter", "router")
COMMANDS = [f"vision_reasoner.training.tiny.{stage}" for stage in STAGES]
HELP = """
import sys
from {module} import main
try:
    main(["--help"])
except SystemExit as exit:
    assert exit.code == 0
assert not {{"torch", "transformers", "scipy"}} & sys.modules.keys()
"""


@pytest.mark.parametrize("module", [*COMMANDS, "vision_reasoner.scenes.art", "vision_reasoner.scenes.assets"])
def test_help_needs_no_torch_and_shows_how_to_call_it(module: str) -> None:
    command = [sys.executable, "-c", HELP.format(module=module)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"    python -m {module}" in shown


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.parametrize(
    "flags", [["--minutes", "0"], ["--minutes", "inf"], ["--lr=-1"], ["--batch-size", "0"], ["--threads", "two"]]
)
def test_a_value_that_makes_no_sense_is_refused(module: str, flags: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(module).main(flags)
    assert exit_.value.code == 2
    assert "is not a" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("module", [command for command in COMMANDS if not command.endswith(("joint", "router"))])
def test_missing_drawings_are_one_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(module).main(["--output-dir", "out"]) == 1
    error = capsys.readouterr().err
    assert error == "error: no drawings in .art: run `python -m vision_reasoner.scenes.art` first\n"


def test_a_stage_has_its_own_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_training_options(parser, minutes=7, batch_size=3, lr=0.5)
    args = parser.parse_args([])
    assert (args.minutes, args.batch_size, args.lr) == (7, 3, 0.5)
