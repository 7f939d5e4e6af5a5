"""Label Studio's tasks: rectangles, key points and brush masks as predictions, and the labeling configuration."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vision_reasoner import __version__
from vision_reasoner.formats.labeled import Labeled, Object, clean, confidence_of, names_in, save_pictures
from vision_reasoner.masks import Mask

CHANNELS = 4  # a brush mask is an RGBA picture
LENGTH_BITS = (3, 4, 8, 16)  # how a run's length may be written; the shortest that suffices is taken


def write_labelstudio(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write `tasks.json`, `config.xml` and `images/`.

    The tasks name pictures as Label Studio's local storage serves them where LOCAL_FILES_DOCUMENT_ROOT is `folder`.
    """
    files = save_pictures(pictures, folder / "images")
    tasks = [_task(picture, file) for picture, file in zip(pictures, files, strict=True)]
    (folder / "tasks.json").write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    ElementTree.ElementTree(_config(names_in(pictures))).write(folder / "config.xml", encoding="utf-8")


def _config(names: Sequence[str]) -> ElementTree.Element:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for tag, control in (("RectangleLabels", "box"), ("KeyPointLabels", "point"), ("BrushLabels", "mask")):
        labels = ElementTree.SubElement(view, tag, name=control, toName="image")
        for name in names or ["object"]:
            ElementTree.SubElement(labels, "Label", value=name)
    return view


def _task(picture: Labeled, file: str) -> dict[str, Any]:
    results = [r for number, found in enumerate(picture.objects, start=1) for r in _results(found, number, picture)]
    scores = [score for found in picture.objects if (score := confidence_of(found.instance)) is not None]
    prediction: dict[str, Any] = {"model_version": f"vision-reasoner {__version__}", "result": results}
    if scores:
        prediction["score"] = float(np.mean(scores))
    queries = "; ".join(dict.fromkeys(clean(p.query) for p in picture.predictions))
    return {
        "data": {"image": f"/data/local-files/?d=images/{quote(file)}", "query": queries},
        "predictions": [prediction],
    }


def _results(found: Object, number: int, picture: Labeled) -> list[dict[str, Any]]:
    """An object's rectangle, point and brush; coordinates are percent of the picture's sides."""
    width, height = picture.size
    (x1, y1, x2, y2), point, mask = found.instance.box, found.instance.point, found.instance.mask
    score = confidence_of(found.instance)

    def result(control: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        of = {"id": f"{number}-{control}", "from_name": control, "to_name": "image", "type": kind}
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        return of | size | {"value": value | {kind: [found.name]}} | ({} if score is None else {"score": score})

    box = {"x": 100 * x1 / width, "y": 100 * y1 / height}
    box |= {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rotation": 0}
    results = [result("box", "rectanglelabels", box)]
    if point is not None:
        place = {"x": 100 * point.x / width, "y": 100 * point.y / height, "width": 0.5}
        results.append(result("point", "keypointlabels", place))
    if mask is not None and mask.any():
        results.append(result("mask", "brushlabels", {"format": "rle", "rle": encode_brush(mask)}))
    return results


def encode_brush(mask: Mask) -> list[int]:
    """The run lengths of a brush, as Label Studio packs them into bytes.

    A head of 32 bits for the number of values, 5 for a value's bits less one, and 4 each for the bits of LENGTH_BITS
    less one. Then for each run: 1 (it repeats a value), 2 bits for which of LENGTH_BITS its length has, the length
    less one, and the value in 8 bits. Values are the RGBA of each pixel, row by row.

    Args:
        mask: (H, W) bool.
    """
    pixels = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(pixels)) + 1))
    lengths = CHANNELS * np.diff(np.concatenate((starts, [len(pixels)])))
    bits = [format(CHANNELS * len(pixels), "032b"), format(7, "05b")]
    bits += [format(length_bits - 1, "04b") for length_bits in LENGTH_BITS]
    for length, inside in zip(lengths.tolist(), pixels[starts].tolist(), strict=True):
        value = "11111111" if inside else "00000000"
        left = length
        while left:
            run = min(left, 1 << LENGTH_BITS[-1])
            which = next(i for i, length_bits in enumerate(LENGTH_BITS) if run <= 1 << length_bits)
            bits += ["1", format(which, "02b"), format(run - 1, f"0{LENGTH_BITS[which]}b"), value]
            left -= run
    stream = np.frombuffer("".join(bits).encode("ascii"), dtype=np.uint8) - ord("0")
    packed: NDArray[np.uint8] = np.packbits(stream)
    return [int(byte) for byte in packed]
