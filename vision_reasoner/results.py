"""What comes out: `Prediction` and its `Instance`s, checked when they are made, in pixels of the original image.

This module knows nothing of models. Masks are kept as run lengths and given as bool arrays.
"""

import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vision_reasoner import __version__
from vision_reasoner.errors import UsageError, printable
from vision_reasoner.files import atomic_write
from vision_reasoner.geometry import Box, Point, Size
from vision_reasoner.images import ImageSource
from vision_reasoner.masks import Mask, RunLengths, check_run_lengths, decode_mask, encode_mask

if TYPE_CHECKING:
    from supervision import Detections

SOFTWARE = "VisionReasoner"  # the key "Software" of the PNGs that are written


class Task(StrEnum):
    """What is asked of a picture."""

    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    COUNTING = "counting"
    VQA = "vqa"


class Status(StrEnum):
    """How well a reply could be used."""

    OK = "ok"
    """A complete, well-formed answer with at least one object (for VQA: an answer; for counting: or a number)."""
    NONE = "none"
    """A complete answer that is an empty list: the model says that nothing matches."""
    PARTIAL = "partial"
    """Some objects could not be used and were dropped (the warnings say which and why); the others are kept."""
    TRUNCATED = "truncated"
    """The reply ended inside the answer; every object that was complete before is kept."""
    NO_ANSWER = "no_answer"
    """There is no answer in the reply."""


class _Mask:
    """A dataclass field that takes (H, W) bool masks or their run lengths, keeps run lengths, and gives bool masks.

    300 masks of a 12-megapixel image take a few megabytes in this way instead of 3.6 GB.
    """

    def __get__(self, instance: "Instance | None", owner: type | None = None) -> Mask | None:
        encoded = None if instance is None else instance.run_lengths
        if encoded is None:
            return None
        mask = decode_mask(encoded)
        mask.flags.writeable = False
        return mask

    def __set__(self, instance: "Instance", mask: Mask | RunLengths | None) -> None:
        if isinstance(mask, np.ndarray):
            if mask.ndim != 2 or mask.dtype != np.bool_:
                raise ValueError(f"mask must be (H, W) bool, got {mask.shape} {mask.dtype}")
            instance.__dict__["run_lengths"] = encode_mask(mask)
        else:
            instance.__dict__["run_lengths"] = None if mask is None else check_run_lengths(mask)


@dataclass(frozen=True, eq=False, repr=False)
class Instance:
    """One object that was found.

    Attributes:
        box: pixels of the original image, xyxy, x1 < x2 and y1 < y2.
        point: a point that the model put inside the object, or None.
        mask: (H, W) bool, read-only, in pixels of the original image, or None where no mask was made. It is kept as run
            lengths (`run_lengths`): each access gives a new array, so take it once where it is used often.
        score: the segmenter's own estimate of the mask's IoU, or None.
        likelihood: the mean log-probability of the tokens that the reasoner wrote it with, where it was asked for.
        label: what the reasoner calls it, or None; the models whose replies are JSON in a fence say so.
        votes: how many looks found it and how many could see it, where there was more than one.
        presence: how probably there is such a thing at all, by the model's own answer when it was asked back.
        confidence: how probably it is right, in [0, 1], by the checkpoint's calibration; None without one.

    Raises:
        ValueError: the box is empty or the mask is not a two-dimensional bool array.
        DataError: the mask is given as run lengths that are damaged.
    """

    box: Box
    point: Point | None = None
    mask: _Mask = _Mask()
    score: float | None = None
    likelihood: float | None = None
    label: str | None = None
    votes: tuple[int, int] | None = None
    presence: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        if len(self.box) != 4 or not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError(f"box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got {tuple(self.box)}")
        if self.votes is not None and not 1 <= self.votes[0] <= self.votes[1]:
            raise ValueError(f"votes must be (found, could see it) with 1 <= found <= could see it, got {self.votes}")

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "Instance":
        """Rebuild one of the objects of `Prediction.to_json`, which says what is raised."""
        votes = item.get("votes")
        for name in ("score", "likelihood", "presence", "confidence"):
            if not isinstance(item.get(name), int | float | None):
                raise ValueError(f"{name} must be a number, got {str(item[name])[:40]!r}")
        if not isinstance(item.get("label"), str | None):
            raise ValueError(f"label must be text, got {str(item['label'])[:40]!r}")
        return cls(
            box=Box(*item["box"]),
            point=None if item["point"] is None else Point(*item["point"]),
            mask=item["mask"],
            score=item["score"],
            likelihood=item.get("likelihood"),
            label=item.get("label"),
            votes=None if votes is None else (votes[0], votes[1]),
            presence=item.get("presence"),
            confidence=item.get("confidence"),
        )

    @property
    def agreement(self) -> float | None:
        """The share of the looks that found it among those that could see it, in (0, 1]; None with a single look."""
        return None if self.votes is None else self.votes[0] / self.votes[1]

    @property
    def run_lengths(self) -> RunLengths | None:
        """The mask's run lengths, None without a mask; costs nothing."""
        encoded: RunLengths | None = self.__dict__["run_lengths"]
        return encoded

    @property
    def mask_shape(self) -> tuple[int, int] | None:
        """(H, W) of the mask, None without one; costs nothing."""
        encoded = self.run_lengths
        return None if encoded is None else (encoded["size"][0], encoded["size"][1])

    def _values(self) -> tuple[object, ...]:
        counts = self.run_lengths and self.run_lengths["counts"]
        looks = (self.votes, self.presence, self.confidence)
        return (self.box, self.point, self.mask_shape, counts, self.score, self.likelihood, self.label, *looks)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Instance) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        mask = "" if self.mask_shape is None else f", {self.mask_shape[1]}x{self.mask_shape[0]} mask"
        label = "" if self.label is None else f", {self.label!r}"
        return f"Instance({tuple(self.box)}, point {self.point and tuple(self.point)}{mask}{label})"


@dataclass(frozen=True, repr=False)
class Prediction:
    """The result for one image and one query.

    Sequences may be given as lists and are kept as tuples. Two predictions are equal whose values are, whatever time
    they took.

    Attributes:
        image_size: (width, height) of the original image.
        query: what was asked, as it was given.
        task: what kind of request it was taken for.
        thinking: the model's reasoning trace, without its tags; empty where there is none.
        reply: the model's raw text.
        status: how well the reply could be used.
        warnings: one line each, in the order in which they came up.
        instances: the objects, in the model's order.
        answer: the text answer (VQA). Where a counting reply states a number and lists no objects, that number, in
            digits. Otherwise None.
        timings: seconds by stage.

    Raises:
        ValueError: a box, point or mask does not belong to an image of `image_size`, or the answer to a counting
            request is no number.
    """

    image_size: Size
    query: str
    task: Task
    thinking: str = ""
    reply: str = ""
    status: Status = Status.OK
    warnings: Sequence[str] = ()
    instances: Sequence[Instance] = ()
    answer: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        width, height = self.image_size
        kept = {
            "image_size": (width, height),
            "task": Task(self.task),
            "status": Status(self.status),
            "warnings": tuple(self.warnings),
            "instances": tuple(self.instances),
            "timings": MappingProxyType(dict(self.timings)),
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)
        if width <= 0 or height <= 0:
            raise ValueError(f"image_size must be positive (width, height), got {self.image_size}")
        if self.task is Task.COUNTING and self.answer is not None and not re.fullmatch("[0-9]{1,9}", self.answer):
            raise ValueError(f"the answer to a counting request must be a number in digits, got {self.answer[:60]!r}")
        for number, instance in enumerate(self.instances, start=1):
            box, point, shape = instance.box, instance.point, instance.mask_shape
            if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
                raise ValueError(f"instance {number}: box {tuple(box)} leaves the image of {width}x{height}")
            if point is not None and not (0 <= point[0] <= width and 0 <= point[1] <= height):
                raise ValueError(f"instance {number}: point {tuple(point)} leaves the image of {width}x{height}")
            if shape is not None and shape != (height, width):
                raise ValueError(f"instance {number}: mask must have shape (H, W) = {(height, width)}, got {shape}")

    def __repr__(self) -> str:
        width, height = self.image_size
        found = repr(self.answer) if self.task is Task.VQA else f"{self.count} objects"
        return f"Prediction({self.task} of {self.query!r} in {width}x{height}: {self.status}, {found})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"timings": dict(self.timings)}  # a mapping proxy cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"timings": MappingProxyType(state["timings"])})

    @property
    def count(self) -> int:
        """How many objects were found, or how many the reply says there are without listing any."""
        stated = self.answer if self.task is Task.COUNTING and not self.instances else None
        return len(self.instances) if stated is None else int(stated)

    @property
    def is_count_alone(self) -> bool:
        """Whether the reply says how many there are and lists no objects: no truth for what lists them."""
        return bool(self.count) and not self.instances

    @property
    def has_masks(self) -> bool:
        """Whether masks were made: some object has one, or a segmentation found nothing that could have one."""
        if not self.instances:
            return self.task is Task.SEGMENTATION
        return any(instance.mask_shape is not None for instance in self.instances)

    @property
    def mask(self) -> Mask | None:
        """The union of all masks, (H, W) bool: all False where a segmentation found nothing, None without masks."""
        if not self.has_masks:
            return None
        width, height = self.image_size
        union = np.zeros((height, width), dtype=np.bool_)
        for instance in self.instances:
            mask = instance.mask
            if mask is not None:
                union |= mask
        return union

    @property
    def usable(self) -> bool:
        """Whether the reply gave something to go on: an object, an answer, or a clear "nothing matches"."""
        return self.status in (Status.OK, Status.NONE) or bool(self.instances) or bool(self.answer)

    def to_json(self) -> dict[str, Any]:
        """Plain Python values that `json.dumps` takes; `from_json` is the way back.

        A mask becomes COCO's compressed run lengths, see `masks.RunLengths`.
        """
        return {
            "image_size": [int(side) for side in self.image_size],
            "query": self.query,
            "task": self.task.value,
            "status": self.status.value,
            "count": self.count,
            "instances": [
                {
                    "box": [int(value) for value in instance.box],
                    "point": None if instance.point is None else [int(value) for value in instance.point],
                    "mask": instance.run_lengths,
                    "score": None if instance.score is None else float(instance.score),
                    "likelihood": None if instance.likelihood is None else float(instance.likelihood),
                    "label": instance.label,
                    **_of_looks(instance),
                }
                for instance in self.instances
            ],
            "answer": self.answer,
            "thinking": self.thinking,
            "reply": self.reply,
            "warnings": list(self.warnings),
            "timings": {stage: float(seconds) for stage, seconds in self.timings.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Prediction":
        """Rebuild what `to_json` gave; keys that are not ours are passed over.

        Raises:
            KeyError: a key is missing.
            ValueError: a value does not fit (see the class).
            DataError: a mask's run lengths are damaged.
        """
        instances = [Instance.from_json(item) for item in data["instances"]]
        width, height = data["image_size"]
        for name in ("query", "thinking", "reply"):
            if not isinstance(data[name], str):
                raise ValueError(f"{name} must be text, got {str(data[name])[:40]!r}")
        return cls(
            image_size=(width, height),
            query=data["query"],
            task=Task(data["task"]),
            thinking=data["thinking"],
            reply=data["reply"],
            status=Status(data["status"]),
            warnings=data["warnings"],
            instances=instances,
            answer=data["answer"],
            timings=data["timings"],
        )

    def to_supervision(self) -> "Detections":
        """The objects as `supervision.Detections`: xyxy, masks, confidence, class names.

        Raises:
            UsageError: supervision is not installed.
        """
        from vision_reasoner.formats.by_supervision import detections_of

        return detections_of(self)

    def plot(self, image: ImageSource) -> Image.Image:
        """The picture of the result in three panels: the image, boxes and points, masks.

        Args:
            image: the original image, as `load_image` takes it; upright, it has `image_size`.
        """
        from vision_reasoner.visualize import draw_prediction

        return draw_prediction(image, self)

    def save(self, path: str | Path, image: ImageSource | None = None) -> None:
        """Write the result to `path`: the numbers if it ends in .json, otherwise the picture that `plot` draws.

        Missing folders are made. The file appears whole or not at all.

        Raises:
            UsageError: a picture is wanted but `image` is not given, the ending is of no picture format, or the file
                cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            # A query may hold bytes that are no UTF-8 (lone surrogates); backslashreplace writes JSON's own escape.
            data = json.dumps(self.to_json(), ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
            atomic_write(path, lambda part: part.write_bytes(data))
            return
        image_format = check_ending(path)
        if image is None:
            raise UsageError(f"{path}: a picture of the result needs the original image; call save(path, image)")
        picture = self.plot(image)
        options: dict[str, Any] = {}
        if image_format == "PNG":
            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_text("Software", SOFTWARE)
        atomic_write(path, lambda part: picture.save(part, format=image_format, **options))


def is_picture_of_result(path: Path) -> bool:
    """Whether a file is a PNG that `Prediction.save` wrote."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            return bool(opened.info.get("Software") == SOFTWARE)
    except Exception:  # noqa: BLE001 - broken files raise nearly anything, and are none
        return False


def _of_looks(instance: Instance) -> dict[str, Any]:
    """What several looks say about an object; nothing where there was one."""
    known: dict[str, Any] = {}
    if instance.votes is not None:
        known["votes"] = list(instance.votes)
    if instance.presence is not None:
        known["presence"] = instance.presence
    return known | {"confidence": instance.confidence} if known or instance.confidence is not None else {}


def check_ending(path: Path) -> str:
    """The format of Pillow's that the ending of `path` stands for, "JSON" for .json.

    Raises:
        UsageError: it stands for none that can be written.
    """
    if path.suffix.lower() == ".json":
        return "JSON"
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format is None or image_format not in Image.SAVE:
        raise UsageError(f"{path}: cannot write a picture with the ending {path.suffix!r}; use .png, .jpg or .json")
    return image_format


def report(prediction: Prediction) -> str:
    """The lines for standard output, in the original's words."""
    lines = [f"Task type: {prediction.task}", f"User question: {prediction.query}"]
    if prediction.thinking:
        lines.append(f"Thinking process: {prediction.thinking}")
    totals = {
        "detection": f"Total number of detected objects: {prediction.count}",
        "segmentation": f"Total number of segmented objects: {prediction.count}",
        "counting": f"Total number of interested objects is: {prediction.count}",
        "vqa": f"The answer is: {prediction.answer}",
    }
    return printable("\n".join([*lines, totals[prediction.task]]))


def record_of(file: Path, prediction: Prediction) -> dict[str, Any]:
    """A prediction as one JSON object, with the picture it is of and the versions that made it."""
    return {"image": str(file), **prediction.to_json(), "versions": versions()}


def versions() -> dict[str, str]:
    """The versions of what results depend on."""
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "sam2", "pillow")}
    return {"vision_reasoner": __version__, **libraries}
