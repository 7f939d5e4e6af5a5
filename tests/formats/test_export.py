"""Every format read back by the tool's own reader, or where that is too heavy by what its documentation says."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import supervision
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from vision_reasoner import Box, Instance, Point, Prediction, Status, Task
from vision_reasoner.data.annotations import read_instances
from vision_reasoner.data.formats import read_label_studio, read_voc, read_yolo
from vision_reasoner.errors import DataError, ExitCode, ImageError, UsageError
from vision_reasoner.formats import FORMATS
from vision_reasoner.formats.export import check_formats, export
from vision_reasoner.formats.labelstudio import encode_brush
from vision_reasoner.inference import main
from vision_reasoner.masks import Mask

SIZE = (64, 48)  # (width, height)
NAME = "größe 猫 <&> 'x'"  # of objects: not ASCII, and with XML's own characters


def shape(*boxes: tuple[int, int, int, int], hole: tuple[int, int, int, int] | None = None) -> Mask:
    image = Image.new("1", SIZE)
    draw = ImageDraw.Draw(image)
    for box in boxes:
        draw.rectangle(box, fill=1)
    if hole:
        draw.rectangle(hole, fill=0)
    return np.asarray(image).copy()


RING = shape((4, 4, 30, 30), hole=(10, 12, 20, 22))
PARTS = shape((36, 2, 44, 10), (50, 30, 60, 44))
PIXEL = shape((62, 46, 62, 46))


def instance(mask: Mask, score: float | None = 0.75) -> Instance:
    x1, y1, x2, y2 = Image.fromarray(mask).getbbox() or (0, 0, 1, 1)
    return Instance(Box(x1, y1, x2, y2), Point(x1, y1), mask, score)


def prediction(query: str, *instances: Instance, status: Status = Status.OK, **changes: Any) -> Prediction:
    return Prediction(SIZE, query, **{"task": Task.SEGMENTATION, "status": status, "instances": instances, **changes})


RECORDS: list[tuple[str, Prediction | str]] = [
    ("shapes.png", prediction(NAME, instance(RING), instance(PARTS), instance(PIXEL))),
    ("shapes.png", prediction("a second query?", Instance(Box(1, 2, 11, 22)), task=Task.DETECTION)),
    ("ünï cödé.jpg", prediction(NAME, Instance(Box(0, 0, 64, 48), Point(64, 48)), task=Task.COUNTING)),
    ("empty.png", prediction(NAME, status=Status.NONE)),
    ("unreadable.png", prediction(NAME, status=Status.NO_ANSWER)),
    ("question.png", prediction("=what is it?", task=Task.VQA, answer="a cat")),
    ("broken.png", "the picture is damaged"),
]
PICTURES = ["shapes", "ünï cödé", "empty"]  # those that say what is in them


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results.jsonl with its pictures beside it."""
    folder = tmp_path / "results"
    folder.mkdir()
    lines = []
    for name, outcome in RECORDS:
        Image.new("RGB", SIZE, (30, 90, 160)).save(folder / name)
        failed = {"error": outcome, "usable": False}
        lines.append({"image": name} | (failed if isinstance(outcome, str) else outcome.to_json()))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "results.jsonl"


def exported(results: Path, name: str) -> Path:
    export([results], check_formats(name), results.parent / "out")
    return results.parent / "out" / name


def masks_by_stem(dataset: supervision.DetectionDataset) -> dict[str, Any]:
    return {Path(path).stem: found for path, _, found in dataset}


# --- each format ------------------------------------------------------------------------------------------------------
def test_coco_reads_every_mask_bit_for_bit_and_keeps_empty_pictures(results):
    folder = exported(results, "coco")
    coco = COCO(str(folder / "instances.json"))
    names = {image["file_name"]: number for number, image in coco.imgs.items()}
    assert [Path(name).stem for name in names] == PICTURES
    first = coco.loadAnns(coco.getAnnIds(names["shapes.png"]))
    for annotation, mask in zip(first, (RING, PARTS, PIXEL), strict=False):
        assert np.array_equal(coco.annToMask(annotation), mask)
        assert (annotation["iscrowd"], annotation["area"], annotation["score"]) == (0, mask.sum(), 0.75)
    assert (first[3]["bbox"], first[3]["segmentation"]) == ([1, 2, 10, 20], [])
    assert [category["name"] for category in coco.cats.values()] == [NAME, "a second query"]
    assert coco.getAnnIds(names["empty.png"]) == []
    assert all((folder / "images" / name).is_file() for name in names)


def test_what_coco_gets_can_be_trained_on(results):
    folder = exported(results, "coco")
    instances = read_instances(folder / "instances.json", folder / "images")
    assert len(instances.images) == 3
    assert np.array_equal(instances.by_image[1][0].mask(), RING)


def test_yolo_reads_outlines_with_holes_and_parts(results):
    folder = exported(results, "yolo")
    dataset = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert dataset.classes == [NAME, "a second query"]
    found = masks_by_stem(dataset)
    assert found.keys() == set(PICTURES)
    ring, *parts, pixel, box = found["shapes"].mask
    assert np.array_equal(ring, RING)
    assert np.array_equal(np.any(parts, axis=0), PARTS)
    assert pixel[46, 62]
    assert box[2:22, 1:11].all()
    assert found["ünï cödé"].xyxy.tolist() == [[0, 0, 64, 48]]
    assert len(found["empty"]) == 0
    assert (folder / "labels/empty.txt").read_bytes() == b"", "a file without lines, which YOLO takes for a negative"


def test_labelme_reads_an_object_of_several_parts_as_one(results):
    folder = exported(results, "labelme")
    dataset = supervision.DetectionDataset.from_labelme(str(folder), str(folder))
    found = masks_by_stem(dataset)
    assert found.keys() == set(PICTURES)
    masks = {int(mask.sum()): mask for mask in found["shapes"].mask}
    assert np.array_equal(masks[int(RING.sum())], RING)
    assert np.array_equal(masks[int(PARTS.sum())], PARTS)
    assert len(found["shapes"]) == 4
    assert json.loads((folder / "empty.json").read_text())["shapes"] == []


def test_voc_reads_boxes_and_outlines(results):
    folder = exported(results, "voc")
    dataset = supervision.DetectionDataset.from_pascal_voc(
        str(folder / "JPEGImages"), str(folder / "Annotations"), force_masks=True
    )
    found = masks_by_stem(dataset)
    assert set(dataset.classes) == {NAME, "a second query"}
    assert np.array_equal(found["shapes"].mask[0], RING)
    assert np.array_equal(found["shapes"].mask[1:3].any(axis=0), PARTS)
    assert found["shapes"].xyxy[-1].tolist() == [1, 2, 11, 22]
    assert len(found["empty"]) == 0


def test_cvat_has_masks_row_by_row_in_their_boxes(results):
    root = ElementTree.parse(exported(results, "cvat") / "annotations.xml").getroot()
    images = {image.get("name"): image for image in root.iter("image")}
    assert list(images) == ["shapes.png", "ünï cödé.jpg", "empty.png"]
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == [NAME, "a second query"]
    for element, mask in zip(images["shapes.png"].iterfind("mask"), (RING, PARTS, PIXEL), strict=True):
        left, top, width, height = (int(element.get(key, "")) for key in ("left", "top", "width", "height"))
        lengths = [int(length) for length in element.get("rle", "").split(",")]
        values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
        assert np.array_equal(values, mask[top : top + height, left : left + width])
        assert values.sum() == mask.sum()
    [box] = images["shapes.png"].iterfind("box")
    assert [box.get(key) for key in ("xtl", "ytl", "xbr", "ybr")] == ["1.00", "2.00", "11.00", "22.00"]
    assert len(images["shapes.png"].findall("points")) == 3
    assert not list(images["empty.png"])


def decode_brush(packed: list[int]) -> np.ndarray:
    """Label Studio's run lengths as its documentation has them, both kinds of runs."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    at = 0

    def read(n: int) -> int:
        nonlocal at
        at += n
        return int(bits[at - n : at], 2)

    n, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < n:
        repeats = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeats else [read(word) for _ in range(length)]
    return np.array(values)


@pytest.mark.parametrize("mask", [RING, PARTS, PIXEL, np.ones((300, 300), dtype=np.bool_)])
def test_a_brush_is_unpacked_to_the_mask(mask):
    pixels = decode_brush(encode_brush(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(pixels[..., 3] == 255, mask)
    assert (pixels == pixels[..., :1]).all()


def test_label_studio_gets_predictions_with_scores(results):
    folder = exported(results, "labelstudio")
    tasks = json.loads((folder / "tasks.json").read_text())
    assert len(tasks) == 3
    [first] = tasks[0]["predictions"]
    assert first["score"] == 0.75
    kinds = [result["type"] for result in first["result"]]
    assert kinds == [*["rectanglelabels", "keypointlabels", "brushlabels"] * 3, "rectanglelabels"]
    box = first["result"][0]
    assert box["value"]["x"] == pytest.approx(100 * 4 / 64)
    assert box["value"]["rectanglelabels"] == [NAME]
    assert (box["original_width"], box["original_height"], box["score"]) == (64, 48, 0.75)
    assert tasks[2]["predictions"][0]["result"] == []
    controls = {element.get("name") for element in ElementTree.parse(folder / "config.xml").getroot()}
    assert {result["from_name"] for result in first["result"]} <= controls


LABEL_STUDIO = """
import json, sys
from pathlib import Path
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
interface = LabelInterface((folder / "config.xml").read_text())
interface.validate()
masks = []
for task in json.loads((folder / "tasks.json").read_text()):
    for prediction in task["predictions"]:
        problems = interface.validate_prediction(prediction, return_errors=True)
        assert problems == [], problems
        brushes = [result["value"]["rle"] for result in prediction["result"] if result["type"] == "brushlabels"]
        masks += [int((decode_rle(brush).reshape(-1, 4)[:, 3] > 0).sum()) for brush in brushes]
print(masks)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    "LABEL_STUDIO_PYTHON" not in os.environ,
    reason="LABEL_STUDIO_PYTHON names no Python of another environment with label-studio-sdk",
)
def test_label_studios_own_validator_and_brush_reader_take_it(results):
    command = [os.environ["LABEL_STUDIO_PYTHON"], "-c", LABEL_STUDIO, str(exported(results, "labelstudio"))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [int(mask.sum()) for mask in (RING, PARTS, PIXEL)]


def test_a_spreadsheet_has_a_line_for_each_object_and_no_formulas(results):
    with (exported(results, "csv") / "objects.csv").open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [Path(line["image"]).stem for line in lines] == ["shapes"] * 4 + ["ünï cödé", "empty", "question"]
    assert (lines[0]["label"], lines[0]["mask_pixels"], lines[0]["score"]) == (NAME, str(RING.sum()), "0.75")
    assert (lines[5]["status"], lines[5]["count"], lines[5]["label"]) == ("none", "0", "")
    assert (lines[6]["query"], lines[6]["answer"]) == ("'=what is it?", "a cat")


# --- pictures and names -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["voc", "labelstudio", "coco"])
def test_what_is_exported_is_read_again_with_the_same_boxes(results, name):
    folder = exported(results, name)
    if name == "labelstudio":  # as it is once the predictions are accepted there
        tasks = json.loads((folder / "tasks.json").read_text())
        done = [{**task, "annotations": task.pop("predictions")} for task in tasks]
        (folder / "tasks.json").write_text(json.dumps(done))
    read = {
        "voc": lambda: read_voc(folder / "Annotations", folder / "JPEGImages"),
        "labelstudio": lambda: read_label_studio(folder / "tasks.json", folder / "images"),
        "coco": lambda: read_instances(folder / "instances.json", folder / "images"),
    }[name]()
    number = next(i for i, image in read.images.items() if Path(image.name).stem == "shapes")
    boxes = {tuple(round(v) for v in a.box) for a in read.by_image[number]}
    assert {(4, 4, 31, 31), (62, 46, 63, 47), (1, 2, 11, 22)} <= boxes
    assert len(read.by_image[number]) == (5 if name == "voc" else 4), "parts are objects of their own in VOC"


def test_of_two_results_of_a_picture_and_a_query_the_last_one_counts(results, caplog):
    again = prediction(NAME, instance(PIXEL)).to_json()
    with results.open("a") as lines:
        lines.write(json.dumps({"image": str(results.parent / "shapes.png")} | again) + "\n")
    coco = COCO(str(exported(results, "coco") / "instances.json"))
    [number] = [number for number, image in coco.imgs.items() if image["file_name"] == "shapes.png"]
    assert [a["bbox"] for a in coco.loadAnns(coco.getAnnIds(number))] == [[62, 46, 1, 1], [1, 2, 10, 20]]
    assert "1 results left out: a later one is of the same picture and query" in caplog.text


def test_pictures_are_copied_upright_and_as_tools_read_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", SIZE).save(tmp_path / "other.webp")
    Image.new("RGB", SIZE).save(tmp_path / "plain.jpg")
    lines = [{"image": n} | prediction("x").to_json() for n in ("turned.jpg", "other.webp", "plain.jpg")]
    (tmp_path / "results.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    folder = exported(tmp_path / "results.jsonl", "coco") / "images"
    assert sorted(file.name for file in folder.iterdir()) == ["other.png", "plain.jpg", "turned.png"]
    assert {Image.open(file).size for file in folder.iterdir()} == {SIZE}
    assert (folder / "plain.jpg").read_bytes() == (tmp_path / "plain.jpg").read_bytes()


def test_pictures_of_one_name_stay_apart(tmp_path):
    lines = []
    for parent in ("a", "B"):
        (tmp_path / parent).mkdir()
        Image.new("RGB", SIZE).save(tmp_path / parent / "Cat.png")
        lines.append(json.dumps({"image": f"{parent}/Cat.png"} | prediction("x").to_json()))
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    folder = exported(tmp_path / "results.jsonl", "labelme")
    assert sorted(file.name for file in folder.glob("*.json")) == ["Cat-2.json", "Cat.json"]


@pytest.mark.parametrize("name", FORMATS)
def test_names_that_no_file_can_hold_do_not_break_a_format(tmp_path, name):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    line = {"image": "a.png"} | prediction("a\x00b\ud800\nc\x92" + "d" * 500, instance(RING)).to_json()
    (tmp_path / "results.jsonl").write_text(json.dumps(line))
    folder = exported(tmp_path / "results.jsonl", name)
    assert any(folder.iterdir())
    if name == "yolo":
        assert len(read_yolo(folder / "labels", folder / "images", folder / "data.yaml").annotations) == 1


# --- errors -----------------------------------------------------------------------------------------------------------
def test_a_folder_that_was_not_written_by_an_export_is_not_replaced(results):
    mine = results.parent / "out/coco"
    mine.mkdir(parents=True)
    (mine / "precious.json").write_text("{}")
    with pytest.raises(UsageError, match="no earlier export"):
        exported(results, "coco")
    assert (mine / "precious.json").exists()


def test_an_earlier_export_is_replaced_whole(results):
    before = exported(results, "yolo")
    results.write_text(results.read_text().splitlines()[0] + "\n")
    assert exported(results, "yolo") == before
    assert [file.stem for file in (before / "labels").iterdir()] == ["shapes"]


def test_a_missing_picture_leaves_nothing_half_written(results):
    (results.parent / "shapes.png").unlink()
    with pytest.raises(ImageError, match="no such file"):
        exported(results, "coco")
    assert not list((results.parent / "out").iterdir())


@pytest.mark.parametrize("line", ['{"image": "a.png"}', "[]", '{"image": 3}', "{", '{"image": "a.png", "box": 1, "ins'])
def test_a_line_that_is_no_result_is_named(tmp_path, line):
    (tmp_path / "results.jsonl").write_text(line)
    with pytest.raises(DataError, match="line 1 is no result"):
        exported(tmp_path / "results.jsonl", "coco")


@pytest.mark.parametrize(
    ("where", "value"),
    [("label", 5), ("score", "x"), ("votes", [1]), ("likelihood", []), ("query", 5), ("image", "a" * 5000)],
)
def test_a_value_that_cannot_be_is_named_with_its_line(tmp_path, where, value):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    line = {"image": "a.png"} | prediction("dogs", instance(RING)).to_json()
    (line if where in line else line["instances"][0])[where] = value
    (tmp_path / "results.jsonl").write_text(json.dumps(line))
    with pytest.raises(DataError, match="line 1 is no result"):
        exported(tmp_path / "results.jsonl", "csv")


def test_unknown_formats_are_refused():
    with pytest.raises(UsageError, match="no format 'pascal'"):
        check_formats("coco,pascal")


# --- the command and the library --------------------------------------------------------------------------------------
def test_the_command_writes_all_formats_beside_the_results(results, capsys, monkeypatch, tmp_path):
    shutil.rmtree(results.parent / "out", ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "results/results.jsonl", "--format", ",".join(FORMATS)]) == 0
    out = capsys.readouterr()
    assert out.out.split() == [f"results/{name}" for name in FORMATS]
    assert "1 results left out: the reply could not be used" in out.err
    assert main(["export", "results/results.jsonl", "--format", "coco"]) == 0


def test_one_image_has_no_folder_to_put_formats_into(capsys):
    assert main(["--format", "coco"]) == ExitCode.USAGE
    assert "--output_dir" in capsys.readouterr().err


def test_a_prediction_becomes_detections():
    detections = prediction("cats?", instance(RING), Instance(Box(1, 2, 3, 4), score=0.5)).to_supervision()
    assert detections.xyxy.tolist() == [[4, 4, 31, 31], [1, 2, 3, 4]]
    assert np.array_equal(detections.mask[0], RING)
    assert not detections.mask[1].any()
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections["class_name"].tolist() == ["cats", "cats"]
    assert len(prediction("cats?").to_supervision()) == 0


def test_the_confidence_of_several_looks_is_written_where_it_is_known():
    sure = Instance(Box(1, 2, 3, 4), score=0.5, votes=(2, 2), confidence=0.875)
    assert prediction("cats?", sure).to_supervision().confidence.tolist() == [0.875]
