"""Pascal VOC: an XML file for each picture."""

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from vision_reasoner.data.annotations import AnnotatedImage, Instances, OnBad, refuse
from vision_reasoner.data.formats.shared import (
    Entry,
    Picture,
    Shape,
    assemble,
    beside,
    list_files,
    read_bytes,
    read_text,
)
from vision_reasoner.errors import DataError, one_line
from vision_reasoner.images import load_image

DATABASE = "VisionReasoner"  # in the files of our own export
MAX_DEPTH = 20  # of elements inside each other


def read_voc(
    folder: str | Path, images: str | Path, *, listed: str | Path | None = None, on_bad: OnBad = refuse
) -> Instances:
    """Read Pascal VOC's annotations, as LabelImg and many others write them.

    Edges are taken as they are written. (VOC of 2007 counts pixels from 1, and so its boxes begin one pixel late. Our
    own export counts so, too, and is read accordingly.)

    Args:
        folder: Annotations/, of XML files.
        images: JPEGImages/.
        listed: a file of ImageSets/Main/: one name on each line, without a suffix; None: all XML files.
        on_bad: gets what is wrong with a file or an object.

    Raises:
        DataError: there are none.
    """
    files = list_files(folder, ".xml")
    if listed is not None:
        by_name = {file.stem: file for file in files}
        names = [line.split()[0] for line in read_text(Path(listed)).splitlines() if line.strip()]
        files = [by_name.get(name, Path(folder) / f"{name}.xml") for name in names]
    return assemble((partial(_voc_picture, file, Path(images)) for file in files), Path(images), on_bad)


def _voc_picture(file: Path, images: Path) -> Picture:
    root = _parse_xml(file)
    if root.tag != "annotation":
        raise DataError(f"{file}: is no annotation of Pascal VOC (it begins with <{root.tag[:40]}>)")
    said = (root.findtext("filename") or "").strip()
    name = beside(images, file.stem) or said or file.stem
    size = tuple(int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    if min(size) < 1:  # some tools leave it out
        size = load_image(AnnotatedImage("", images, name).file).size
    first = 1 if root.findtext("source/database") == DATABASE else 0  # number of the first pixel
    entries = [
        Entry((found.findtext("name") or "").strip() or None, partial(_voc_shape, found, first))
        for found in root.findall("object")
    ]
    return Picture(str(file), name, (size[0], size[1]), entries)


def _voc_shape(found: ElementTree.Element, first: int) -> Shape:
    text = [found.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    if None in text:
        raise ValueError("it has no <bndbox> with xmin, ymin, xmax and ymax")
    x1, y1, x2, y2 = (float(value or "") for value in text)
    return Shape((x1 - first, y1 - first, x2, y2), crowd=(found.findtext("difficult") or "0").strip() == "1")


def _parse_xml(file: Path) -> ElementTree.Element:
    """A file's XML; without a document type, for that is where entities are declared."""
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DataError(f"{file}: has more than {MAX_DEPTH} elements inside each other, so it is no annotation")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def document_type(*_: Any) -> None:
        raise DataError(f"{file}: declares a document type, which no annotation needs; take it out (<!DOCTYPE ...>)")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = document_type
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_bytes(file), True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{file}: is no XML ({one_line(error)}); get it again") from error
    return builder.close()
