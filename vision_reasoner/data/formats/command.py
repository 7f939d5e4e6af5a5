"""The flags of a command that reads annotated pictures in one of the formats, and their reading."""

import argparse

from vision_reasoner.data.annotations import Instances, OnBad, read_instances
from vision_reasoner.data.formats.label_studio import read_label_studio
from vision_reasoner.data.formats.labelme import read_labelme
from vision_reasoner.data.formats.shared import renamed
from vision_reasoner.data.formats.voc import read_voc
from vision_reasoner.data.formats.yolo import read_yolo

FORMATS = {
    "coco": "COCO's instances, or your own pictures in that format",
    "voc": "Pascal VOC: an XML file for each picture (LabelImg, CVAT, Roboflow)",
    "yolo": "YOLO: a text file of boxes or outlines for each picture",
    "labelme": "LabelMe: a JSON file for each picture",
    "label_studio": "Label Studio, exported as JSON or JSON-MIN",
}
"""Formats of objects with a category each, with a line about each."""

_ANNOTATIONS = {
    "voc": ("DIR", "Annotations/, the folder of XML files"),
    "yolo": ("DIR", "labels/, the folder of text files"),
    "labelme": ("DIR", "the folder of JSON files"),
    "label_studio": ("JSON", "the export"),
}


def add_format_flags(parser: argparse.ArgumentParser, source: str) -> None:
    """Add the flags that say where annotations of one of FORMATS (or of COCO's and LVIS's relatives) lie."""
    add = parser.add_argument
    metavar, text = _ANNOTATIONS.get(source, ("JSON", "instances, as COCO or LVIS has them"))
    add("--annotations", required=True, metavar=metavar, help=text)
    if source == "labelme":
        add("--images", metavar="DIR", help="the pictures; default: where each JSON file says, relative to itself")
    else:
        add("--images", required=True, metavar="DIR", help="the pictures; for LVIS the folder above train2017")
    if source == "voc":
        add("--list", metavar="FILE", help="only these: a file of ImageSets/Main, a name on each line; default: all")
    if source == "yolo":
        add(
            "--names",
            required=True,
            metavar="FILE",
            help="the classes: data.yaml, or one on each line of a text file",
        )
    if source in FORMATS or source == "lvis":
        text = 'other names of categories, such as RBC="red blood cell"'
        add("--rename", nargs="+", type=_renaming, default=[], metavar="OLD=NEW", help=text)


def _renaming(text: str) -> tuple[str, str]:
    """An argparse type: OLD=NEW."""
    old, _, new = text.partition("=")
    if not old.strip() or not new.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return old.strip(), new.strip()


def read_format(arguments: argparse.Namespace, on_bad: OnBad) -> Instances:
    """The annotations that the flags of `add_format_flags` name.

    Raises:
        DataError: they cannot be read.
    """
    where, images = arguments.annotations, arguments.images
    if arguments.source == "voc":
        found = read_voc(where, images, listed=arguments.list, on_bad=on_bad)
    elif arguments.source == "yolo":
        found = read_yolo(where, images, arguments.names, on_bad=on_bad)
    elif arguments.source == "labelme":
        found = read_labelme(where, images, on_bad=on_bad)
    elif arguments.source == "label_studio":
        found = read_label_studio(where, images, on_bad=on_bad)
    else:
        found = read_instances(where, images, on_bad=on_bad)
    return renamed(found, dict(getattr(arguments, "rename", ())))
