"""Means of checkpoints: of every weight, of bundles and of parts, and only of one model's."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vision_reasoner.models.checkpoints import CALIBRATION, RELEASED, is_bundle
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.training.grpo.soup import main

WEIGHTS = "model.safetensors"


@pytest.fixture
def runs(bundle: Path, tmp_path: Path) -> list[Path]:
    """Three bundles; the reasoners' weights are 0, 1 and 5 more than the first one's."""
    folders = []
    for name, added in (("a", 0), ("b", 1), ("c", 5)):
        shutil.copytree(bundle, tmp_path / name)
        file = tmp_path / name / "reasoner" / WEIGHTS
        save_file({k: v + added for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
        folders.append(tmp_path / name)
    return folders


def soup(folders: list[Path], output: Path) -> int:
    return main([*map(str, folders), "--output_dir", str(output)])


def test_every_weight_is_the_mean_and_what_is_alike_stays_as_it_is(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (runs[0] / "reasoner" / CALIBRATION).write_text("{}")  # of other weights than the mean
    assert soup(runs, out) == 0
    assert is_bundle(out)
    assert not (out / "reasoner" / CALIBRATION).exists()
    first, mean = (load_file(folder / "reasoner" / WEIGHTS) for folder in (runs[0], out))
    assert first.keys() == mean.keys()
    for name, value in first.items():
        assert mean[name].dtype == value.dtype
        torch.testing.assert_close(mean[name].float(), value.float() + 2, atol=2e-2, rtol=0)
    for part in RELEASED.keys() - {"reasoner"}:
        file = next((out / part).glob("*.safetensors"))
        found, given = load_file(file), load_file(runs[0] / part / file.name)
        assert all(torch.equal(found[name], value) for name, value in given.items())


def test_a_part_alone_is_a_checkpoint_again(runs: list[Path], tmp_path: Path) -> None:
    assert soup([run / "reasoner" for run in runs], tmp_path / "out") == 0
    Reasoner.from_pretrained(tmp_path / "out", device="cpu")


def test_what_cannot_be_averaged_is_one_line_and_leaves_nothing(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    reasoner, router = runs[0] / "reasoner", runs[0] / "router"
    for folders, code, message in (
        ([runs[0]], 2, "at least two"),
        ([tmp_path / "empty", runs[0]], 4, "neither a checkpoint nor a bundle"),
        ([reasoner, router], 4, "has other weights than"),
        ([reasoner, tmp_path / "empty"], 4, "cannot all be read"),
    ):
        assert soup(folders, out) == code
        assert message in capsys.readouterr().err
        assert not out.exists()
        assert not list(tmp_path.glob(".out*"))
    out.mkdir()
    assert soup(runs, out) == 2
    assert "exists already" in capsys.readouterr().err
