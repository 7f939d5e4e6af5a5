"""Results in the formats of annotation tools: one file for each, and `export`, which writes them.

Every format gets what `labeled` gathers of a results.jsonl: pictures, each with its objects and their names.
"""

FORMATS = ("coco", "yolo", "labelme", "labelstudio", "cvat", "voc", "csv")
NEEDS_SUPERVISION = ("yolo", "labelme", "voc")  # pip install -e ".[formats]"
