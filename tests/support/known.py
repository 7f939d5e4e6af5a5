"""A model that knows where the objects of the doctor's pictures are, and writes them down in the way it is told to."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.support.server import Says, image_of
from vision_reasoner.doctor.checks import KINDS
from vision_reasoner.doctor.scenes import DrawnScene, draw_scenes
from vision_reasoner.geometry import Size
from vision_reasoner.models.engine import Completion, Prompt

Writes = Callable[[Any, Size, Size], Any]
"""(N, 4) numbers from the true boxes, relative to the picture, its size, and the size in which the model has it."""


def as_it_should(boxes: Any, _: Size, seen: Size) -> Any:
    return boxes * np.tile(seen, 2)


def answer(numbers: Any) -> str:
    """A reply in the form of VisionReasoner."""
    boxes = ", ".join(f'{{"bbox_2d": {[round(float(v), 3) for v in row]}}}' for row in numbers)
    return f"<think>I look.</think><answer>[{boxes}]</answer>"


def fence(numbers: Any) -> str:
    """A reply in the form of Qwen."""
    boxes = ", ".join(f'{{"bbox_2d": {[round(float(v), 3) for v in row]}, "label": "it"}}' for row in numbers)
    return f"```json\n[{boxes}]\n```"


@cache
def _drawn() -> list[tuple[DrawnScene, Any]]:
    return [(scene, _small(scene.image)) for kind in KINDS for scene in draw_scenes(kind)]


def _small(image: Image.Image) -> Any:
    return np.asarray(image.resize((32, 32)), dtype=float)


def scene_of(image: Image.Image) -> DrawnScene:
    """The scene that an image shows, at whatever size."""
    seen = _small(image)
    return min(_drawn(), key=lambda drawn: np.abs(drawn[1] - seen).mean())[0]


def reply_about(image: Image.Image, seen: Size, writes: Writes, form: Callable[[Any], str]) -> str:
    """What the model says to an image that it has in the size `seen`."""
    scene = scene_of(image)
    size = scene.image.size
    return form(np.asarray(writes(np.array(scene.boxes) / np.tile(size, 2), size, seen)).reshape(-1, 4))


class Knows:
    """An engine in this process; images that come in no frame it has in the next multiples of 28."""

    frame_side = 840
    vqa_frame_side: int | None = None

    def __init__(self, writes: Writes = as_it_should, form: Callable[[Any], str] = answer, **options: Any) -> None:
        self.writes, self.form = writes, form
        self.options = options

    def control_token(self, text: str) -> str | None:
        return None if "<|" not in text else text

    def generate(self, prompts: Sequence[Prompt], **_: Any) -> list[Completion]:
        completions = []
        for prompt in prompts:
            assert prompt.image is not None
            width, height = prompt.image.size
            seen = prompt.frame or (28 * round(width / 28), 28 * round(height / 28))
            text = reply_about(prompt.image, seen, self.writes, self.form)
            completions.append(
                Completion(**{"text": text, "finished": True, "n_tokens": 50, "image_size": seen, **self.options})
            )
        return completions


def known(writes: Writes = as_it_should, form: Callable[[Any], str] = answer) -> Callable[[int, Any], Says]:
    """The answers of a server (see `server.serving`)."""

    def says(_: int, request: Any) -> Says:
        image = image_of(request)
        return Says(reply_about(image, image.size, writes, form))

    return says
