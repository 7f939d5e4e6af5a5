"""What the supervision library writes: YOLO, LabelMe and Pascal VOC; and its `Detections`.

One object at a time, so that many masks of a large picture are never in memory together. Its outlines run through
the centers of the outermost pixels, and holes are joined to the outline by a seam.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_reasoner.data.formats.voc import DATABASE
from vision_reasoner.errors import UsageError
from vision_reasoner.formats.labeled import Labeled, Object, confidence_of, name_of, names_in, save_pictures
from vision_reasoner.results import Prediction

if TYPE_CHECKING:
    from supervision import Detections

YOLO_BOX = 5  # numbers of a line that is a box; an outline's has more


def check_supervision() -> None:
    """Import the library, quietly.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it does without OpenCV
            import supervision  # noqa: F401
    except ImportError as error:
        raise UsageError('this needs the supervision library: pip install -e ".[formats]"') from error


def detections_of(prediction: Prediction) -> "Detections":
    """A prediction as supervision has it.

    Returns:
        `xyxy` in pixels of the image; `mask` (N, H, W) bool, all False for an object without one, None where no
        object has one; `confidence` (N,) where all are known; `class_id` by `data["class_name"]`.

    Raises:
        UsageError: supervision is not installed.
    """
    check_supervision()
    from supervision import Detections

    if not prediction.instances:
        return Detections.empty()
    objects = [Object(name_of(instance, prediction), instance) for instance in prediction.instances]
    names = list(dict.fromkeys(found.name for found in objects))
    detections = _detections(objects, names, prediction.image_size)
    detections.data["class_name"] = np.array([found.name for found in objects])
    return detections


def _detections(objects: Sequence[Object], names: Sequence[str], size: tuple[int, int]) -> "Detections":
    from supervision import Detections

    scores = [confidence_of(found.instance) for found in objects]
    masks = [found.instance.mask for found in objects]
    nothing = np.zeros(size[::-1], dtype=np.bool_)
    return Detections(
        xyxy=np.array([found.instance.box for found in objects], dtype=np.float32),
        mask=None if all(m is None for m in masks) else np.stack([nothing if m is None else m for m in masks]),
        confidence=None if None in scores else np.array(scores, dtype=np.float32),
        class_id=np.array([names.index(found.name) for found in objects], dtype=int),
    )


def write_yolo(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write `data.yaml`, `labels/` and `images/`.

    A line holds one outline: an object of several parts has a line for each. Beside outlines, an object without a mask
    is the outline of its box, for readers take a file's lines to be all of one kind.
    """
    from supervision.dataset.formats.yolo import detections_to_yolo_annotations, object_to_yolo

    names = names_in(pictures)
    files = save_pictures(pictures, folder / "images")
    (folder / "labels").mkdir()
    for picture, file in zip(pictures, files, strict=True):
        width, height = picture.size
        outlines = any(found.instance.mask_shape is not None for found in picture.objects)
        lines: list[str] = []
        for found in picture.objects:
            written = detections_to_yolo_annotations(
                _detections([found], names, picture.size), (height, width, 3), approximation_percentage=0.0
            )
            if outlines and all(len(line.split()) == YOLO_BOX for line in written):
                x1, y1, x2, y2 = found.instance.box
                corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
                written = [object_to_yolo(corners, names.index(found.name), (height, width), corners)]
            lines += written
        text = "".join(line + "\n" for line in lines)
        (folder / "labels" / f"{Path(file).stem}.txt").write_text(text, encoding="utf-8")
    # JSON is YAML, and says unambiguously what is text.
    listed = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(names))
    head = f"train: images\nval: images\nnc: {len(names)}\n"
    (folder / "data.yaml").write_text(f"{head}names:\n{listed}" if names else f"{head}names: []\n", encoding="utf-8")


def write_labelme(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write a JSON beside each picture. The parts of an object share its `group_id`."""
    from supervision.dataset.formats.labelme import detections_to_labelme_shapes

    names = names_in(pictures)
    for picture, file in zip(pictures, save_pictures(pictures, folder), strict=True):
        shapes: list[dict[str, Any]] = []
        for number, found in enumerate(picture.objects, start=1):
            outlines = detections_to_labelme_shapes(_detections([found], names, picture.size), names)
            shapes += [{**outline, "group_id": number} for outline in outlines]
        width, height = picture.size
        about = {"imagePath": file, "imageData": None, "imageWidth": width, "imageHeight": height}
        data: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": shapes, **about}
        (folder / f"{picture.stem}.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def write_voc(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write `Annotations/` and `JPEGImages/`, as VOC has them. Each part of an object is an object there."""
    from xml.etree import ElementTree

    from supervision.dataset.formats.pascal_voc import detections_to_pascal_voc

    names = names_in(pictures)
    files = save_pictures(pictures, folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for picture, file in zip(pictures, files, strict=True):
        shape = (picture.size[1], picture.size[0], 3)
        root = ElementTree.fromstring(detections_to_pascal_voc(_nothing(), names, file, shape))
        for found in picture.objects:
            one = ElementTree.fromstring(
                detections_to_pascal_voc(_detections([found], names, picture.size), names, file, shape, 0.0, 1.0, 0.0)
            )
            root.extend(one.findall("object"))
        database = root.find("source/database")
        assert database is not None
        database.text = DATABASE
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(folder / "Annotations" / f"{picture.stem}.xml", encoding="utf-8")


def _nothing() -> "Detections":
    from supervision import Detections

    return Detections.empty()
