"""The halves put together: the last stage's weights of each, and the mean of several runs."""

from pathlib import Path

import pytest
import torch

from vision_reasoner.errors import ExitCode, VisionReasonerError
from vision_reasoner.training.tiny import joint, loop
from vision_reasoner.training.tiny.joint import load_weights


def filled(value: float) -> torch.nn.Linear:
    module = torch.nn.Linear(2, 2)
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, value)
    return module


def write(folder: Path, stage: str, **values: float) -> Path:
    folder.mkdir(exist_ok=True)
    loop.save_checkpoint(
        folder / f"{stage}.pt", {name: filled(value) for name, value in values.items()}, [], loop.Progress(1)
    )
    return folder


def test_a_module_has_the_mean_of_the_runs_that_trained_it_each_at_its_last_stage(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "vision", tower=1.0)
    write(one, "language", language=3.0)
    two = write(tmp_path / "two", "vision", tower=99.0)
    write(two, "joint", tower=2.0)
    modules: dict[str, torch.nn.Module] = {name: filled(-1.0) for name in ("tower", "language", "heads")}
    load_weights(modules, [one, two])
    assert {name: float(m.state_dict()["bias"][0]) for name, m in modules.items()} == {
        "tower": 1.5,
        "language": 3.0,
        "heads": -1.0,
    }


def test_a_folder_without_weights_is_not_passed_over(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "vision", tower=1.0)
    with pytest.raises(VisionReasonerError, match=r"no weights in .*mistyped"):
        load_weights({"tower": filled(0.0)}, [one, tmp_path / "mistyped"])


def test_a_mean_is_not_trained_further(capsys: pytest.CaptureFixture[str]) -> None:
    assert joint.main(["--average", "somewhere"]) == ExitCode.USAGE
    assert "--average goes with --export_only" in capsys.readouterr().err
