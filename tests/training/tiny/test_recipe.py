"""The recipe: one command from drawings to a bundle that loads, and the same command does nothing twice."""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.support.drawings import sprites
from vision_reasoner.scenes.art import PACKAGES
from vision_reasoner.scenes.classes import CLASSES

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "vision_reasoner/training/tiny/recipe.sh"


def run(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = ["bash", str(RECIPE), *flags]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "flags", [["--hours", "0"], ["--hours"], ["--processes", "none"], ["--n", "x"], ["--minutes", "3"]]
)
def test_a_flag_that_makes_no_sense_is_one_line(flags: list[str], tmp_path: Path) -> None:
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_drawings_to_a_bundle_in_one_command_that_can_be_repeated(tmp_path: Path) -> None:
    for style in PACKAGES:
        (tmp_path / ".art" / style).mkdir(parents=True)
    for found, c in zip(sprites(), CLASSES, strict=True):
        for code in c.drawings:
            for folder in (tmp_path / ".art").iterdir():
                Image.fromarray(found[0].rgba).save(folder / f"{code}.png")
    flags = ["--hours", "0.002", "--processes", "1", "--n", "0", "--output_dir", "out"]
    first = run(*flags, cwd=tmp_path)
    assert first.returncode == 0, first.stdout[-2000:]
    out = tmp_path / "out"
    parts = {path.name for path in (out / "bundle").iterdir()}
    assert parts == {"reasoner", "router", "segmenter", "bundle.json", "recipe.log", "commits.txt"}
    again = run(*flags, cwd=tmp_path)
    assert again.returncode == 0, again.stdout[-2000:]
    assert again.stdout.count(": done") == 8
    assert len((out / "commits.txt").read_text().splitlines()) == 2
