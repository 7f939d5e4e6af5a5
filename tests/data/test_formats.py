"""People's own annotations: each format gives the same objects, and what is wrong with one of them is named."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.prepare import main as prepare_evaluation
from vision_reasoner.data.annotations import AnnotatedImage, Annotation, Instances
from vision_reasoner.data.formats import read_label_studio, read_labelme, read_voc, read_yolo, renamed
from vision_reasoner.data.rows import load_rows
from vision_reasoner.data.tables import load_table
from vision_reasoner.errors import DataError
from vision_reasoner.training.prepare import main as prepare_training

SIZE = (200, 100)
CUP, DOG = (20.0, 10.0, 60.0, 50.0), (100.0, 20.0, 200.0, 90.0)  # xyxy edges


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.JPG"):
        Image.new("RGB", SIZE, (90, 120, 60)).save(folder / name, format="JPEG")
    return folder


def found(instances: Instances, image: int = 1) -> list[tuple[str, tuple[float, ...]]]:
    """Names and boxes of a picture's objects."""
    return [(instances.categories[a.category], a.box) for a in instances.by_image.get(image, [])]


def same(box: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return box == pytest.approx(other, abs=1e-6)


# --- how each format says that there is a cup and a dog in picture a --------------------------------------------------
def xml(*objects: str, name: str = "a.jpg", size: str = "<width>200</width><height>100</height>") -> str:
    return f"<annotation><filename>{name}</filename><size>{size}</size>{''.join(objects)}</annotation>"


def xml_object(name: str = "cup", box: tuple[float, ...] = CUP, more: str = "") -> str:
    edges = "".join(f"<{k}>{v:g}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def voc(folder: Path, texts: dict[str, str]) -> Path:
    (folder / "Annotations").mkdir()
    for stem, text in texts.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    return folder / "Annotations"


def yolo(folder: Path, *lines: str, names: str = "names: {0: cup, 1: dog}") -> tuple[Path, Path]:
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(names)
    return folder / "labels", folder / "data.yaml"


def labelme(folder: Path, *shapes: Any, **changes: Any) -> Path:
    (folder / "json").mkdir()
    data = {"imagePath": "..\\images\\a.jpg", "imageWidth": 200, "imageHeight": 100, "shapes": shapes}
    (folder / "json" / "a.json").write_text(json.dumps(data | changes))
    return folder / "json"


def shape(label: str, points: Any, kind: str = "rectangle", group: Any = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def result(label: str, kind: str = "rectangle", **value: Any) -> dict[str, Any]:
    return {
        "type": f"{kind}labels",
        "original_width": 200,
        "original_height": 100,
        "value": {**value, f"{kind}labels": [label]},
    }


def label_studio(folder: Path, *results: Any, image: str = "/data/upload/3/0a1b2c3d-a.jpg") -> Path:
    task = {"id": 7, "data": {"image": image}, "annotations": [{"result": list(results)}]}
    (folder / "export.json").write_text(json.dumps([task]))
    return folder / "export.json"


def test_every_format_gives_the_same_objects(tmp_path: Path, images: Path) -> None:
    annotations = voc(tmp_path, {"a": xml(xml_object(), xml_object("dog", DOG))})
    labels, names = yolo(tmp_path, "0 0.2 0.3 0.2 0.4", "1 .75 .55 .5 .7")
    shapes = labelme(tmp_path, shape("cup", [[60, 50], [20, 10]]), shape("dog", [[100, 20], [200, 90]]))
    export = label_studio(
        tmp_path, result("cup", x=10, y=10, width=20, height=40), result("dog", x=50, y=20, width=50, height=70)
    )
    for instances in (
        read_voc(annotations, images),
        read_yolo(labels, images, names),
        read_labelme(shapes),
        read_label_studio(export, images),
    ):
        (cup, cup_box), (dog, dog_box) = found(instances)
        assert (cup, dog) == ("cup", "dog")
        assert same(cup_box, CUP)
        assert same(dog_box, DOG)
        assert instances.images[1].open().size == SIZE
        assert not any(a.segmentation for a in instances.annotations.values())


def test_outlines_become_polygons(tmp_path: Path, images: Path) -> None:
    labels, names = yolo(tmp_path, "1 0.5 0.2 1 0.2 1 0.9 0.5 0.9")
    corners = [[100, 20], [200, 20], [200, 90], [100, 90]]
    shapes = labelme(tmp_path, shape("dog", corners, "polygon"))
    export = label_studio(tmp_path, result("dog", "polygon", points=[[50, 20], [100, 20], [100, 90], [50, 90]]))
    for instances in (read_yolo(labels, images, names), read_labelme(shapes), read_label_studio(export, images)):
        (dog,) = instances.annotations.values()
        assert same(dog.box, DOG)
        assert dog.mask().sum() == 100 * 70


def test_circles_ellipses_and_turned_rectangles_are_outlined(tmp_path: Path, images: Path) -> None:
    shapes = labelme(tmp_path, shape("cup", [[100, 50], [120, 50]], "circle"))
    export = label_studio(
        tmp_path,
        result("cup", "ellipse", x=50, y=50, radiusX=10, radiusY=20),
        result("cup", x=50, y=30, width=20, height=20, rotation=90),  # 40 x 20 pixels, turned about (100, 30)
    )
    (circle,) = read_labelme(shapes).annotations.values()
    ellipse, turned = read_label_studio(export, images).annotations.values()
    assert same(circle.box, (80, 30, 120, 70))
    assert same(ellipse.box, (80, 30, 120, 70))
    assert same(turned.box, (80, 30, 100, 70))


def test_labelme_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    left, right = [[0, 0], [40, 0], [40, 40], [0, 40]], [[100, 0], [140, 0], [140, 40], [100, 40]]
    shapes = [shape("dog", left, "polygon", 1), shape("dog", right, "polygon", 1), shape("cup", left, "polygon", 1)]
    folder = labelme(tmp_path, *shapes)
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg")
    assert [box for _, box in found(read_labelme(folder, tmp_path))] == [(0, 0, 140, 40), (0, 0, 40, 40)]


@pytest.mark.parametrize("layout", ["json", "min"])
def test_labels_apart_from_their_shapes_are_theirs(tmp_path: Path, images: Path, layout: str) -> None:
    """<Labels> beside <Rectangle>: Label Studio exports the shape, and once more with its labels, choices or texts."""
    sizes = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    box = {"x": 10, "y": 10, "width": 20, "height": 40, "rotation": 0}
    more = {
        "rectangle": {},
        "labels": {"labels": ["cup"]},
        "choices": {"choices": ["new"]},
        "textarea": {"text": ["?"]},
    }
    if layout == "json":
        results = [{"id": "s", "type": kind, **sizes, "value": box | value} for kind, value in more.items()]
        task: dict[str, Any] = {"data": {"image": "a.jpg"}, "annotations": [{"result": results}]}
    else:
        task = {"image": "a.jpg", **{kind: [box | value | sizes] for kind, value in more.items()}}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    [(name, cup)] = found(read_label_studio(tmp_path / "export.json", images))
    assert name == "cup"
    assert same(cup, CUP)
    (task["annotations"][0]["result"] if layout == "json" else task["labels"]).pop(1 if layout == "json" else 0)
    (tmp_path / "export.json").write_text(json.dumps([task]))
    with pytest.raises(DataError, match=r"object 1 .*it has no class"):
        read_label_studio(tmp_path / "export.json", images)


def test_json_min_and_addresses_are_read(tmp_path: Path, images: Path) -> None:
    value = {"x": 10, "y": 10, "width": 20, "height": 40, "rectanglelabels": ["cup"]}
    sizes = {"original_width": 200, "original_height": 100}
    task = {"id": 1, "image": "/data/local-files/?d=some/where/a.jpg", "label": [value | sizes], "annotator": 1}
    (tmp_path / "min.json").write_text(json.dumps([task]))
    assert [box for _, box in found(read_label_studio(tmp_path / "min.json", images))] == [pytest.approx(CUP)]


def test_pictures_that_nobody_annotated_are_not_empty(tmp_path: Path, images: Path) -> None:
    done = {"data": {"image": "a.jpg"}, "annotations": [{"was_cancelled": True, "result": [1]}, {"result": []}]}
    (tmp_path / "export.json").write_text(json.dumps([done, {"data": {"image": "b.JPG"}, "annotations": []}]))
    instances = read_label_studio(tmp_path / "export.json", images)
    assert [image.name for image in instances.images.values()] == ["a.jpg"]


def test_yolo_pictures_without_a_label_file_have_nothing(tmp_path: Path, images: Path) -> None:
    labels, names = yolo(tmp_path, "0 0.2 0.3 0.2 0.4", names="names: [cup, dog]")
    instances = read_yolo(labels, images, names)
    assert found(instances, 2) == []
    assert instances.absent(2) == [1, 2]
    (tmp_path / "names.txt").write_text("cup\ndog\n")
    assert read_yolo(labels, images, tmp_path / "names.txt").categories == {1: "cup", 2: "dog"}


def test_voc_takes_listed_pictures_stale_names_and_difficult_objects(tmp_path: Path, images: Path) -> None:
    texts = {
        "a": xml(xml_object(more="<difficult>1</difficult>"), name="before_it_was_renamed.png", size=""),
        "b": xml(xml_object("dog", DOG), name="b.jpg"),
    }
    folder = voc(tmp_path, texts)
    (tmp_path / "train.txt").write_text("b\n")
    (dog,) = read_voc(folder, images, listed=tmp_path / "train.txt").images.values()
    assert dog.name == "b.JPG"
    instances = read_voc(folder, images)
    assert instances.images[1].name == "a.jpg"
    assert instances.images[1].size == SIZE
    assert [a.crowd for a in instances.annotations.values()] == [True, False]


# --- what is wrong ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (xml_object(box=(60, 10, 20, 50)), "swapped"),
        (xml_object(box=(20, 10, 20, 50)), "no area"),
        (xml_object(box=(20, 10, 400, 50)), "leaves its picture of 200x100"),
        (xml_object(box=(float("nan"), 10, 60, 50)), "none"),
        ("<object><name>cup</name></object>", "no <bndbox>"),
        ("<object><name>cup</name><bndbox><xmin>x</xmin></bndbox></object>", "no <bndbox>"),
        (xml_object(name=" "), "no class"),
    ],
)
def test_one_bad_object_is_named_and_can_be_left_out(tmp_path: Path, images: Path, bad: str, says: str) -> None:
    folder = voc(tmp_path, {"a": xml(bad, xml_object("dog", DOG))})
    with pytest.raises(DataError, match=f"a.xml: object 1 .*{says}"):
        read_voc(folder, images)
    said: list[DataError] = []
    instances = read_voc(folder, images, on_bad=said.append)
    assert [name for name, _ in found(instances)] == ["dog"]
    assert len(said) == 1
    assert instances.absent(1) == []  # what was left out may be one of any class


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.2 0.3 0.2", "3 numbers"),
        ("0 0.2 0.3 0.2 0.4 0.9", "5 numbers"),
        ("0 120 30 40 40", "from 0 to 1"),
        ("0 0.2 nan 0.2 0.4", "from 0 to 1"),
        ("0 0.2 0.3 0.2 zero", "could not convert"),
        ("7 0.2 0.3 0.2 0.4", "not listed"),
        ("cup 0.2 0.3 0.2 0.4", "not listed"),
    ],
)
def test_one_bad_line_is_named(tmp_path: Path, images: Path, line: str, says: str) -> None:
    labels, names = yolo(tmp_path, "1 .75 .55 .5 .7", line)
    with pytest.raises(DataError, match=f"a.txt: object 2 .*{says}"):
        read_yolo(labels, images, names)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (shape("cup", [[0, 0], [9, 9]], "line"), "a line is no outline"),
        (shape("cup", [[0, 0], [9, 9]], "polygon"), "no area"),
        (shape("cup", [[0, 0, 3]], "polygon"), "too many values"),
        ({"points": []}, "no class"),
        ("cup", "no class"),
    ],
)
def test_one_bad_shape_is_named(tmp_path: Path, images: Path, bad: Any, says: str) -> None:
    with pytest.raises(DataError, match=f"a.json: object 1 .*{says}"):
        read_labelme(labelme(tmp_path, bad), images)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<annotation><object>", "is no XML"),
        ("<html></html>", "no annotation of Pascal VOC"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ("<annotation>" + "<part>" * 100_000, "more than 20 elements"),
    ],
)
def test_files_that_are_no_annotation_are_refused(tmp_path: Path, images: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=f"a.xml: .*{says}"):
        read_voc(voc(tmp_path, {"a": text}), images)
    said: list[DataError] = []
    with pytest.raises(DataError, match="no annotated pictures"):
        read_voc(tmp_path / "Annotations", images, on_bad=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("names", ["names: &a [*a]", "[" * 5000, "classes: [cup]", "names: {cup: 0}", "names: 3"])
def test_names_that_are_no_list_of_classes_are_refused(tmp_path: Path, images: Path, names: str) -> None:
    labels, file = yolo(tmp_path, names=names)
    with pytest.raises(DataError, match=r"data\.yaml"):
        read_yolo(labels, images, file)


def test_annotations_of_missing_pictures_are_named(tmp_path: Path, images: Path) -> None:
    labels, names = yolo(tmp_path)
    (labels / "lost.txt").write_text("0 0.2 0.3 0.2 0.4")
    with pytest.raises(DataError, match=r"lost\.txt: there is no picture"):
        read_yolo(labels, images, names)
    brush = label_studio(tmp_path, result("cup", "brush", rle=[1, 2]))
    with pytest.raises(DataError, match=r"task 7: object 1 .*COCO"):
        read_label_studio(brush, images)
    wrong: list[Any] = [{}, [1], [{"id": 2, "data": {"text": "no picture"}, "annotations": [{"result": []}]}]]
    for data in wrong:
        (tmp_path / "export.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=r"export\.json"):
            read_label_studio(tmp_path / "export.json", images)


@pytest.mark.parametrize("case", ["size 0", "corners of three", "long name"])
def test_whatever_is_wrong_with_an_entry_is_named_and_may_be_left_out(tmp_path: Path, images: Path, case: str) -> None:
    if case == "corners of three":
        export = label_studio(tmp_path, result("dog", "polygon", points=[[50, 20, 1], [100, 20, 1], [100, 90, 1]]))
        read = partial(read_label_studio, export, images)
    elif case == "size 0":
        folder = labelme(tmp_path, shape("cup", [[60, 50], [20, 10]]), imageWidth=0, imageHeight=0)
        assert found(read_labelme(folder)) == [("cup", CUP)]
        return
    else:
        folder = labelme(tmp_path, shape("cup", [[60, 50], [20, 10]]), imageWidth=0, imagePath="a" * 5000)
        (tmp_path / "json" / "b.json").write_text(
            (tmp_path / "json" / "a.json").read_text().replace("a" * 5000, "b.JPG")
        )
        read = partial(read_labelme, folder, images)
    with pytest.raises(DataError, match=r"(export|a)\.json"):
        read()
    said: list[DataError] = []
    assert read(on_bad=said.append).images
    assert len(said) == 1


# --- names ------------------------------------------------------------------------------------------------------------
def test_categories_of_one_name_are_one(tmp_path: Path, images: Path) -> None:
    annotations = voc(tmp_path, {"a": xml(xml_object("RBC"), xml_object("wbc", DOG)), "b": xml(xml_object("Cell"))})
    read = read_voc(annotations, images)
    assert len(read.categories) == 3
    merged = renamed(read, {"RBC": "cell", "wbc": "white cell"})
    assert sorted(merged.categories.values()) == ["Cell", "white cell"]
    assert [len({a.category for a in merged.by_image[i]}) for i in (1, 2)] == [2, 1]
    assert [merged.categories[k] for k in merged.absent(2)] == ["white cell"]
    assert merged.absent(1) == []


def test_what_one_of_two_merged_categories_was_looked_for_is_not_known_of_both() -> None:
    size = (200, 100)
    image = AnnotatedImage("1", Path(), "a.jpg", size)
    cup = Annotation("1", 1, 3, (0, 0, 9, 9), None, size)
    read = Instances(
        {1: image},
        {1: "cat", 2: "Cat", 3: "cup", 4: "dog", 5: "Dog"},
        {1: cup},
        {1: [cup]},
        {1: [1, 4, 5]},
        {1: frozenset()},
    )
    assert renamed(read, {}).absent(1) == [4]


# --- the commands -----------------------------------------------------------------------------------------------------
def test_rows_to_train_on_and_to_evaluate_on_have_the_new_names(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = voc(tmp_path, {"a": xml(xml_object("RBC"), xml_object("WBC", DOG)), "b": xml(xml_object("RBC"))})
    flags = ["--annotations", folder, "--images", images, "--rename", "RBC=red blood cell", "WBC=white blood cell"]
    texts = ["voc", *map(str, flags), "--output_dir"]
    assert prepare_training([*texts, str(tmp_path / "rows"), "--boxes_as_masks", "--group_share", "0"]) == 0
    assert {row["problem"] for row in load_rows(tmp_path / "rows")} == {"red blood cell", "white blood cell"}
    assert prepare_evaluation([*texts, str(tmp_path / "test"), "--absent"]) == 0
    table = {(row["image_id"], row["text"]): row["bbox"] for row in load_table(tmp_path / "test", "test")}
    assert table["1", "red blood cell"] == [list(CUP)]
    assert table["2", "white blood cell"] == []
    known = json.loads((tmp_path / "test" / "instances.json").read_text())
    assert [a["bbox"] for a in known["annotations"]] == [[20, 10, 40, 40], [100, 20, 100, 70], [20, 10, 40, 40]]
    assert prepare_training([*texts[:-1], "X=y", "--output_dir", str(tmp_path / "none")]) == 2
    assert "there is no category X" in capsys.readouterr().err
