"""CVAT's "for images" XML, version 1.1: boxes, or masks where there are any, and points."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vision_reasoner.formats.labeled import Labeled, Object, names_in, save_pictures
from vision_reasoner.masks import Mask, box_around


def write_cvat(pictures: Sequence[Labeled], folder: Path) -> None:
    """Write `annotations.xml` and `images/`. A box or mask and the point inside it share a group."""
    files = save_pictures(pictures, folder / "images")
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in names_in(pictures):
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, (picture, file) in enumerate(zip(pictures, files, strict=True)):
        width, height = picture.size
        image = ElementTree.SubElement(root, "image", id=str(number), name=file, width=str(width), height=str(height))
        for group, found in enumerate(picture.objects, start=1):
            _add_object(image, found, group)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)


def _add_object(image: ElementTree.Element, found: Object, group: int) -> None:
    common = {"label": found.name, "source": "auto", "occluded": "0", "z_order": "0", "group_id": str(group)}
    mask, box, point = found.instance.mask, found.instance.box, found.instance.point
    if mask is not None and mask.any():
        shape = _mask_attributes(mask)
        ElementTree.SubElement(image, "mask", {**common, **{key: str(value) for key, value in shape.items()}})
    else:
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in box), strict=True))
        ElementTree.SubElement(image, "box", {**common, **corners})
    if point is not None:
        ElementTree.SubElement(image, "points", {**common, "points": f"{point.x:.2f},{point.y:.2f}"})


def _mask_attributes(mask: Mask) -> dict[str, int | str]:
    """A mask as CVAT has it: its bounding box, and run lengths row by row inside that, beginning outside."""
    box = box_around(mask)
    assert box is not None, "empty masks are not written"
    cut = mask[box.y1 : box.y2, box.x1 : box.x2]
    values = cut.ravel()
    starts = np.flatnonzero(np.diff(values, prepend=False))  # where a run begins that is unlike what was before
    lengths = np.diff(np.concatenate(([0], starts, [len(values)])))
    return {
        "rle": ", ".join(map(str, lengths.tolist())),
        "left": box.x1,
        "top": box.y1,
        "width": cut.shape[1],
        "height": cut.shape[0],
    }
