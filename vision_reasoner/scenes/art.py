"""The drawings that scenes are made of: fetched from the npm registry, rasterized to RGBA images, split for training.

    python -m vision_reasoner.scenes.art          # fetch and rasterize into .art/ (some 40 MB, needs npm)

Three styles are for the supervised stages, and two more of them for the vision tower alone; two others are for
reinforcement learning, which may also rehearse the first three, and one is never trained on. Of the styles that are
trained on, one drawing in ten is held out.
"""

import argparse
import hashlib
import io
import json
import logging
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import ExitCode, VisionReasonerError
from vision_reasoner.scenes.classes import CLASSES

logger = logging.getLogger(__name__)

ART_FOLDER = Path(".art")
SPRITE_SIDE = 256  # pixels of the longer side
VISIBLE_ALPHA = 40  # drawings are cropped to the pixels above it: fainter ones are shadows and glows
HELD_OUT_BYTES = 26  # of 256 values of a hash: one drawing in ten
PACKAGES = {
    "fluent": "@lobehub/fluent-emoji-3d@1.1.0",
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
    "emojione": "@iconify-json/emojione@1.2.3",
    "fluent-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "streamline": "@iconify-json/streamline-emojis@1.2.4",
}
SPLITS = {  # the styles of each
    "train": ("fluent", "noto", "twemoji"),
    "tower": (
        "fluent",
        "noto",
        "twemoji",
        "fluent-flat",
        "streamline",
    ),  # for the vision tower, which recognizes classes
    "rewarded": ("noto-v1", "fxemoji"),  # for reinforcement learning
    "held_out": ("fluent", "noto", "twemoji"),  # drawings never trained on
    "unseen_style": ("emojione",),
}
TRAINED = ("train", "tower", "rewarded")  # splits that have every class


@dataclass(frozen=True, eq=False)
class Sprite:
    """One drawing of one class.

    Attributes:
        label: index into CLASSES.
        style: key of PACKAGES.
        code: the emoji's code points.
        rgba: (height, width, 4) uint8, cropped to what is visible.
    """

    label: int
    style: str
    code: str
    rgba: np.ndarray


def fetch(folder: Path = ART_FOLDER, styles: Iterable[str] = tuple(PACKAGES)) -> None:
    """Download the art packages and write the drawings of CLASSES to `folder/<style>/<code>.png`.

    Raises:
        VisionReasonerError: npm is missing or fails.
    """
    for style in styles:
        target = folder / style
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            command = ["npm", "pack", "--silent", "--pack-destination", scratch, PACKAGES[style]]
            try:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            except FileNotFoundError as error:
                raise VisionReasonerError(
                    "the drawings come from the npm registry: install Node.js (npm) first"
                ) from error
            except subprocess.CalledProcessError as error:
                raise VisionReasonerError(f"npm could not fetch {PACKAGES[style]}: see its message above") from error
            with tarfile.open(next(Path(scratch).glob("*.tgz"))) as package:
                package.extractall(scratch, filter="data")
            read = _read_webp if style == "fluent" else _read_svg
            read(Path(scratch) / "package", target)
        logger.info("%s: %d drawings in %s", style, len(list(target.glob("*.png"))), target)


def _codes() -> list[str]:
    return [code for c in CLASSES for code in c.drawings]


def fitted(image: Image.Image) -> Image.Image:
    """An RGBA drawing cropped to what is visible, its longer side SPRITE_SIDE pixels."""
    visible = image.getchannel("A").point(lambda v: 255 if v > VISIBLE_ALPHA else 0).getbbox()
    image = image.crop(visible)
    scale = SPRITE_SIDE / max(image.size)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


def _read_webp(package: Path, target: Path) -> None:
    for code in _codes():
        source = package / "assets" / f"{code}.webp"
        if source.exists():
            fitted(Image.open(source, formats=["WEBP"]).convert("RGBA")).save(target / f"{code}.png")


def _read_svg(package: Path, target: Path) -> None:
    import resvg_py

    icons: dict[str, Any] = json.loads((package / "icons.json").read_text())
    # Some packages have an empty table of characters: the names of the first one serve for all. Names agree between
    # packages, except that fxemoji leaves out hyphens.
    names: dict[str, str] = json.loads((package / "chars.json").read_text()) or json.loads(
        (target.parent / "names.json").read_text()
    )
    (target.parent / "names.json").write_text(json.dumps(names))
    for code in _codes():
        name = names.get(code) or names.get(code.replace("-fe0f", ""))
        name = icons.get("aliases", {}).get(name, {}).get("parent", name)
        icon = icons["icons"].get(name) or icons["icons"].get(name.replace("-", "")) if name else None
        if icon is None:
            continue
        width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIDE, height=SPRITE_SIDE))
        fitted(Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")).save(target / f"{code}.png")


def is_held_out(style: str, code: str) -> bool:
    """Whether this drawing is never trained on; its class is trained on through other drawings.

    A drawing that is held out of a style is held out of the style's variants, too, because they can look alike.
    """
    family = style.partition("-")[0]
    return hashlib.sha256(f"{family}/{code}".encode()).digest()[0] < HELD_OUT_BYTES and family != "fluent"


def load_sprites(split: str = "train", folder: Path = ART_FOLDER) -> list[list[Sprite]]:
    """Drawings by class, in the order of CLASSES.

    Args:
        split: one of SPLITS. "rewarded" falls back to the drawings of "train" for classes that its styles lack.
        folder: where `fetch` wrote them.

    Raises:
        VisionReasonerError: the drawings have not been fetched.
    """
    sprites = [_read(label, split, folder) for label in range(len(CLASSES))]
    has_styles = {sprite.style for found in sprites for sprite in found} == set(SPLITS[split])
    if split == "rewarded" and has_styles:
        sprites = [found or _read(label, "train", folder) for label, found in enumerate(sprites)]
    complete = [bool(found) for found, c in zip(sprites, CLASSES, strict=True) if c.drawings]
    if not (has_styles and all(complete) if split in TRAINED else any(complete)):
        raise VisionReasonerError(f"no drawings in {folder}: run `python -m vision_reasoner.scenes.art` first")
    return sprites


def _read(label: int, split: str, folder: Path) -> list[Sprite]:
    """The drawings of one class that are in the folder."""
    return [
        Sprite(label, style, code, np.asarray(Image.open(path, formats=["PNG"])))
        for style in SPLITS[split]
        for code in CLASSES[label].drawings
        if (path := folder / style / f"{code}.png").exists()
        and (split == "unseen_style" or is_held_out(style, code) == (split == "held_out"))
    ]


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.scenes.art", __doc__)
    parser.add_argument("--output", type=Path, default=ART_FOLDER, help="folder to write to (default: %(default)s)")

    def run(args: argparse.Namespace) -> int:
        fetch(args.output)
        return ExitCode.OK

    return run_command(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
