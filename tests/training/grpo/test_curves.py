"""Curves of GRPO: every run is in every panel, means are means, and what is no run is said."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="curves need the extra .[train]")

from PIL import Image

from vision_reasoner.errors import DataError
from vision_reasoner.training.grpo.curves import PANELS, curve, draw, main, moving_mean, read_log


def a_run(folder: Path, rise: float) -> Path:
    """A log as GRPO writes it: a figure of every step, one of every tenth, and a torn last line."""
    folder.mkdir()
    lines: list[dict[str, float | None]] = []
    for step in range(1, 31):
        lines.append({"step": step, "reward": 4 + rise * step, "kl": None if step == 3 else 0.01 * step})
        if step % 10 == 0:
            lines.append({"step": step, "eval_reward": 5 + rise * step})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text + '{"step": 31, "rew')
    return folder


def test_a_figure_is_read_where_it_was_logged(tmp_path: Path) -> None:
    records = read_log(a_run(tmp_path / "one", 0.1))
    steps, values = curve(records, "eval_reward")
    assert steps.tolist() == [10, 20, 30]
    np.testing.assert_allclose(values, [6, 7, 8])
    assert 3 not in curve(records, "kl")[0]
    assert len(curve(records, "entropy")[0]) == 0


def test_a_moving_mean_is_of_what_came_before() -> None:
    values = np.random.default_rng(0).normal(size=25)
    naive = [values[max(0, i - 9) : i + 1].mean() for i in range(25)]
    np.testing.assert_allclose(moving_mean(values, 10), naive)


def test_every_run_is_in_every_panel(tmp_path: Path) -> None:
    figure = draw([a_run(tmp_path / "one", 0.1), a_run(tmp_path / "two", 0.2)])
    shown = [PANELS[name] for name in ("reward", "eval_reward", "kl")]
    assert [axes.get_title() for axes in figure.axes] == shown, "what was not logged has no panel"
    for axes in figure.axes:
        assert {line.get_label() for line in axes.lines} >= {"one", "two"}
    (first,) = [line for line in figure.axes[1].lines if line.get_label() == "two"]
    np.testing.assert_allclose(np.asarray(first.get_ydata(), float), [7, 9, 11])


def test_a_run_without_a_figure_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(DataError, match="nothing is logged yet"):
        draw([tmp_path])


def test_the_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "new" / "curves.png"
    assert main([str(a_run(tmp_path / "one", 0.1)), "--output", str(image)]) == 0
    assert capsys.readouterr().out == f"{image}\n"
    assert Image.open(image).size[0] > 1000


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["nothing", "--output", "a.png"], 3, "nothing: holds no run of GRPO (no log.jsonl)"),
        (["one", "--output", "a.xyz"], 2, "a.xyz: cannot be drawn as .xyz; use .png or .svg"),
        (["one", "--output", "a"], 2, "cannot be drawn as a file without an ending"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    flags: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path / "one", 0.1)
    assert main([str(tmp_path / flags[0]), *flags[1:2], str(tmp_path / flags[2])]) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
