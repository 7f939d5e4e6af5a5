"""The drawings' splits: what is measured on is never trained on, and reinforcement learning lacks no class."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from vision_reasoner.errors import VisionReasonerError
from vision_reasoner.scenes.art import (
    PACKAGES,
    SPLITS,
    Sprite,
    is_held_out,
    load_sprites,
)
from vision_reasoner.scenes.classes import CLASSES

DRAWN = [label for label, c in enumerate(CLASSES) if c.drawings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every drawing of every style, but for one class that the rewarded styles lack."""
    for style in PACKAGES:
        (tmp_path / style).mkdir()
        for label in DRAWN[1:] if style in SPLITS["rewarded"] else DRAWN:
            for code in CLASSES[label].drawings:
                Image.new("RGBA", (2, 2), (*style.encode()[:3], 255)).save(tmp_path / style / f"{code}.png")
    return tmp_path


def drawings(sprites: list[list[Sprite]]) -> set[tuple[str, str]]:
    return {(sprite.style, sprite.code) for found in sprites for sprite in found}


def test_no_drawing_is_in_two_splits_but_those_of_classes_that_the_rewarded_styles_lack(folder: Path) -> None:
    splits = {name: load_sprites(name, folder) for name in SPLITS}
    lacking = DRAWN[0]
    assert splits["rewarded"][lacking]
    assert drawings([splits["rewarded"][lacking]]) <= drawings(splits["train"])
    splits["rewarded"][lacking] = []
    assert drawings(splits.pop("train")) < drawings(splits["tower"])
    seen: set[tuple[str, str]] = set()
    for sprites in splits.values():
        assert not seen & drawings(sprites)
        seen |= drawings(sprites)
    styles = {name: {style for style, _ in drawings(sprites)} for name, sprites in splits.items()}
    assert styles["tower"] == set(SPLITS["tower"])
    assert styles["rewarded"] == set(SPLITS["rewarded"])
    assert styles["held_out"] < set(SPLITS["train"])
    assert styles["unseen_style"] == set(SPLITS["unseen_style"])


def test_what_is_held_out_of_a_style_is_held_out_of_its_older_designs() -> None:
    codes = [code for c in CLASSES for code in c.drawings]
    held = {code for code in codes if is_held_out("noto", code)}
    assert held
    assert held == {code for code in codes if is_held_out("noto-v1", code)}


@pytest.mark.parametrize(("split", "later"), [("rewarded", SPLITS["rewarded"]), ("tower", ("streamline",))])
def test_drawings_fetched_before_there_was_a_style_are_fetched_again(
    split: str, later: tuple[str, ...], folder: Path
) -> None:
    for style in later:
        shutil.rmtree(folder / style)
    load_sprites("train", folder)
    with pytest.raises(VisionReasonerError, match="no drawings"):
        load_sprites(split, folder)


@pytest.mark.parametrize("split", SPLITS)
def test_drawings_that_are_not_there_are_one_line(split: str, tmp_path: Path) -> None:
    with pytest.raises(VisionReasonerError, match=r"run `python -m vision_reasoner\.scenes\.art` first"):
        load_sprites(split, tmp_path)
