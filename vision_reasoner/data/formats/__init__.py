"""Readers of the formats that people's own annotated pictures are in; all give `annotations.Instances`.

    read_voc            Pascal VOC: an XML file for each picture
    read_yolo           YOLO: a text file of boxes or outlines for each picture, and the names of the classes
    read_labelme        LabelMe: a JSON file of shapes for each picture
    read_label_studio   Label Studio: one JSON file for all, exported as JSON or JSON-MIN

(`annotations.read_instances` reads COCO's.) All are untrusted. What is wrong with one picture or one object goes to
`on_bad`, which raises it by default; where it returns, that is left out, and the object's class (every class, where
that is not known) counts as not exhaustively annotated in that picture.

supervision has readers of the first three, too. They stop at the first bad object without naming its file, which leaves
nothing to leave out, and need FFmpeg's libraries and matplotlib.
"""

from vision_reasoner.data.formats.label_studio import read_label_studio
from vision_reasoner.data.formats.labelme import read_labelme
from vision_reasoner.data.formats.shared import renamed
from vision_reasoner.data.formats.voc import read_voc
from vision_reasoner.data.formats.yolo import read_yolo

__all__ = ["read_label_studio", "read_labelme", "read_voc", "read_yolo", "renamed"]
