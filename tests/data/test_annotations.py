"""Official formats: what is read is what the files say, and files that say something else are refused in one line."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import noise
from tests.support import releases
from tests.support.releases import BAT, CAT, DOG, RECTANGLES, SHEEP, SIZE
from vision_reasoner.data.annotations import (
    AnnotatedImage,
    ReasonSegImage,
    read_countbench,
    read_instances,
    read_pixmo_count,
    read_reasonseg,
    read_references,
)
from vision_reasoner.errors import DataError, ImageError


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- COCO, LVIS -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [11, 12, 14], ids=["polygons", "compressed run lengths", "run lengths of a crowd"])
def test_outlines_of_every_kind_become_the_same_mask(tmp_path: Path, number: int) -> None:
    found = read_instances(*releases.write_coco(tmp_path)).annotations[number]
    assert np.array_equal(found.mask(), releases.rectangle(number))
    assert list(found.box) == list(RECTANGLES[number])
    assert found.crowd == (number == 14)


def test_coco_has_looked_for_every_category_in_every_picture(tmp_path: Path) -> None:
    read = read_instances(*releases.write_coco(tmp_path))
    assert read.absent(1) == [BAT]
    assert read.absent(2) == [DOG, SHEEP, BAT]
    assert read.not_exhaustive[1] == frozenset()
    assert [a.category for a in read.by_image[1]] == [CAT, DOG, DOG, SHEEP]
    assert read.images[2].open().size == SIZE


def test_lvis_says_what_it_has_looked_for_and_its_names_are_plain_words(tmp_path: Path) -> None:
    read = read_instances(*releases.write_lvis(tmp_path))
    assert read.absent(1) == read.absent(2) == [BAT]
    assert read.not_exhaustive == {1: {DOG}, 2: frozenset()}
    assert read.categories[BAT] == "baseball bat"
    assert read.images[1].file == tmp_path / "coco/train2017/000000000001.jpg"


@pytest.mark.parametrize("there", ["000000000001.jpg", "COCO_train2014_000000000001.jpg"])
def test_a_picture_of_coco_2014_is_found_by_either_name(tmp_path: Path, there: str) -> None:
    _, annotations, _ = releases.write_refer(tmp_path)
    images = releases.write_pictures(tmp_path / "elsewhere", [there])
    assert read_instances(annotations, images).images[1].file == images / there


def test_a_picture_that_is_not_as_annotated_is_refused(tmp_path: Path) -> None:
    annotations, images = releases.write_coco(tmp_path)
    releases.turned(images / "000000000001.jpg")
    with pytest.raises(DataError, match=r"is 100x200, but annotated as 200x100 \(turned by its EXIF") as error:
        read_instances(annotations, images).images[1].open()
    one_line(error)


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        (None, "no outline"),
        ([], "no outline"),
        ([["a"] * 6], "neither polygons nor run lengths"),
        ([[5, 5, 25, 5, 25, 25], 7], "neither polygons nor run lengths"),
        ([[5, 5, 25, 5, 25, 25, 5]], "an x without a y"),
        ({"size": [100, 200]}, "a mask's run lengths must be"),
        ({"size": [200, 100], "counts": [5]}, "not of its picture's size"),
        ({"size": [10**6, 10**6], "counts": "abc"}, "not of its picture's size"),
        ({"size": [100, 200], "counts": [10**9]}, "run lengths must add up"),
    ],
)
def test_an_outline_that_cannot_be_drawn_is_refused(tmp_path: Path, segmentation: Any, complaint: str) -> None:
    data = releases.instances()
    data["annotations"][0]["segmentation"] = segmentation
    annotations, images = releases.write_coco(tmp_path, annotations=data["annotations"])
    with pytest.raises(DataError, match=f"annotation 11: .*{complaint}"):
        read_instances(annotations, images).annotations[11].mask()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", 'no list "images"'),
        ('{"images": [], "categories": []}', 'no list "annotations"'),
        ('{"images": [{}], "annotations": [], "categories": []}', 'image number 1 .*no "id"'),
        ('{"images": [], "annotations": [{"id": 1, "image_id": 5, "bbox": [1, 2, 3, 4]}], "categories": []}', "5"),
        ('{"images": [], "annotations": [{"bbox": 3}], "categories": []}', 'annotation number 1 .*no "id"'),
        (
            '{"images": [{"id": 1, "width": 9, "height": 9, "file_name": "a"}], "categories": [], '
            '"annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}]}',
            "category 7, which is not listed",
        ),
    ],
)
def test_a_file_that_is_no_instances_file_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "instances.json"
    file.write_text(content)
    with pytest.raises(DataError, match=complaint) as error:
        read_instances(file, tmp_path)
    assert str(file) in one_line(error)


FAR = [[5, 5, 2e8, 3e8, 25, 25]]
NAN = float("nan")


@pytest.mark.parametrize(
    "polygons",
    [
        FAR,
        [[-164.1, -221.8, 208500000.0, 352100000.0, 225.9, 236.5, 272.0, 384.2]],
        [[5, 5, NAN, 5, 25, 25, 5, 25]],
        [[5, 5, 25, 5, float("inf"), 25]],
        [[5, 5, 25, 5, 25, -1e300]],
        [releases.instances()["annotations"][0]["segmentation"][0], FAR[0]],
    ],
    ids=["far", "as in cocoapi 380", "NaN", "infinite", "negative", "a good part first"],
)
def test_a_polygon_with_a_corner_far_away_or_nowhere_is_refused(tmp_path: Path, polygons: Any) -> None:
    data = releases.instances()["annotations"]
    data[0]["segmentation"] = polygons
    read = read_instances(*releases.write_coco(tmp_path, annotations=data))
    with pytest.raises(DataError, match="annotation 11: a polygon has a corner"):
        read.annotations[11].mask()


def test_a_polygon_may_reach_over_the_border(tmp_path: Path) -> None:
    data = releases.instances()["annotations"]
    data[0]["segmentation"] = [[-30, -10, 40, -10, 40, 50, -30, 50]]
    mask = read_instances(*releases.write_coco(tmp_path, annotations=data)).annotations[11].mask()
    assert mask.sum() == 40 * 50
    assert mask[:50, :40].all()


SQUARE = [40, 20, 80, 20, 80, 60, 40, 60]


@pytest.mark.parametrize(
    "parts",
    [
        [SQUARE],
        [[], SQUARE],
        [SQUARE, []],
        [[128.0, 50.0], SQUARE],
        [SQUARE, [128.0, 50.0]],
        [[5, 5, 6, 6], SQUARE],
        [SQUARE, [100, 10, 140, 50]],
        [[1, 1], SQUARE, [5, 5, 6, 6], []],
        [[100], SQUARE],
    ],
)
def test_parts_of_a_polygon_without_an_area_add_nothing_wherever_they_stand(tmp_path: Path, parts: Any) -> None:
    data = releases.instances()["annotations"]
    data[0]["segmentation"] = parts
    read = read_instances(*releases.write_coco(tmp_path, annotations=data))
    assert np.array_equal(read.annotations[11].mask(), releases.rectangle(11))


@pytest.mark.parametrize("empty", [[], [[]], [[], []], [[5, 5]], [[5, 5, 25, 25]], {}, None])
def test_an_outline_of_nothing_is_none(tmp_path: Path, empty: Any) -> None:
    data = releases.instances()["annotations"]
    data[0]["segmentation"] = empty
    read = read_instances(*releases.write_coco(tmp_path, annotations=data))
    assert read.annotations[11].segmentation is None
    with pytest.raises(DataError, match="annotation 11: has a box but no outline"):
        read.annotations[11].mask()


@pytest.mark.parametrize("counts", ["", "b'0P='", "0", [205, 20, 20], [-5, 20005], "\\\\b03", [20000, 1], 7, None])
def test_run_lengths_that_do_not_fit_the_picture_are_refused(tmp_path: Path, counts: Any) -> None:
    data = releases.instances()["annotations"]
    data[0]["segmentation"] = {"size": [100, 200], "counts": counts}
    read = read_instances(*releases.write_coco(tmp_path, annotations=data))
    with pytest.raises(DataError, match="annotation 11: "):
        read.annotations[11].mask()


# --- entries that are left out ----------------------------------------------------------------------------------------
BAD_ANNOTATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no box": ({"bbox": None}, 'its "bbox" is None'),
    "an empty box": ({"bbox": []}, r'its "bbox" is \[\]'),
    "three numbers": ({"bbox": [1, 2, 3]}, r'its "bbox" is \[1, 2, 3\]'),
    "text": ({"bbox": ["1", "2", "3", "4"]}, 'its "bbox" is'),
    "NaN": ({"bbox": [1, 2, NAN, 4]}, 'its "bbox" is'),
    "corners that are no width and height": ({"bbox": [50, 50, -20, -20]}, 'its "bbox" is'),
    "a box of a larger picture": ({"bbox": [500, 5, 10, 10]}, "leaves its picture of"),
    "a picture that is not listed": ({"image_id": 99}, "it is of image 99, which is not listed"),
    "no picture": ({"image_id": None}, "it is of image None, which is not listed"),
    "a category that is not listed": ({"category_id": 77}, "it has category 77, which is not listed"),
    "another one's id": ({"id": 12}, "another one has the same id"),
}


@pytest.mark.parametrize(("change", "complaint"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_one_bad_annotation_is_named_and_costs_no_other(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    data = releases.instances()["annotations"]
    data[4] |= change  # 15, the cat of picture 2
    files = releases.write_coco(tmp_path, annotations=data)
    with pytest.raises(DataError, match=complaint) as error:
        read_instances(*files)
    assert "instances_val2017.json: annotation 1" in one_line(error)
    said: list[DataError] = []
    read = read_instances(*files, on_bad=said.append)
    assert complaint.replace("\\", "") in str(said[0])
    assert {11, 13, 14} <= set(read.annotations)
    assert 15 not in read.annotations


def test_what_is_left_out_is_not_taken_to_be_absent(tmp_path: Path) -> None:
    data = releases.instances()["annotations"]
    del data[4]["bbox"]
    read = read_instances(*releases.write_coco(tmp_path, annotations=data), on_bad=lambda _: None)
    assert CAT not in read.absent(2), "the cat without a box is there all the same"
    assert CAT in read.uncertain(2)
    assert DOG in read.absent(2)
    data = releases.instances()["annotations"]
    data[4]["category_id"] = 77
    read = read_instances(*releases.write_coco(tmp_path, annotations=data), on_bad=lambda _: None)
    assert read.absent(2) == [], "it may be anything"
    assert read.uncertain(1) == set(), "the other picture is as it was"


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("images", {"id": 3}),
        ("images", {"id": 3, "file_name": "c.jpg", "width": 0, "height": 5}),
        ("images", 7),
        ("categories", {"id": 9}),
        ("categories", {"name": "a bird"}),
        ("annotations", "text"),
    ],
)
def test_other_entries_that_are_bad_cost_no_other_either(tmp_path: Path, key: str, entry: Any) -> None:
    changed = releases.instances()[key] + [entry]
    files = releases.write_coco(tmp_path, **{key: changed})
    with pytest.raises(DataError, match=r"(image|category|annotation) \S+"):
        read_instances(*files)
    said: list[DataError] = []
    read = read_instances(*files, on_bad=said.append)
    assert len(said) == 1
    assert (len(read.images), len(read.categories), len(read.annotations)) == (2, 4, 5)


# --- what is not there ------------------------------------------------------------------------------------------------
def tree(*categories: tuple[int, str, str]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, "supercategory": above} for number, name, above in categories]


@pytest.mark.parametrize(
    ("categories", "absent"),
    [
        # Roboflow: a root that owns nothing and is above all
        (tree((0, "pets", "none"), (1, "cat", "pets"), (2, "dog", "pets"), (3, "sheep", "pets")), {2: [2, 3]}),
        (tree((0, "Farm_animals", ""), (1, "cat", "farm animals"), (2, "dog", ""), (3, "sheep", "")), {2: [2, 3]}),
        # two steps above
        (
            tree((8, "being", ""), (9, "pet", "being"), (1, "cat", "pet"), (2, "dog", "pet"), (3, "sheep", "")),
            {2: [2, 3]},
        ),
        # a circle, and one above itself, as COCO's person
        (tree((1, "cat", "dog"), (2, "dog", "cat"), (3, "sheep", "sheep")), {2: [3], 1: []}),
        # what is above may be what is below: the cat of picture 2 is a pet, and may be a tiger
        (tree((1, "cat", ""), (2, "dog", ""), (3, "sheep", ""), (5, "tiger", "cat")), {2: [2, 3]}),
        # no tree at all: as ever
        (
            tree((1, "cat", "animal"), (2, "dog", "animal"), (3, "sheep", "animal"), (4, "bat", "sports")),
            {2: [2, 3, 4]},
        ),
    ],
)
def test_a_category_is_absent_only_where_nothing_of_its_branch_is_there(
    tmp_path: Path, categories: Any, absent: dict[int, list[int]]
) -> None:
    read = read_instances(*releases.write_coco(tmp_path, categories=categories))
    assert {number: read.absent(number) for number in absent} == absent


def test_a_category_above_one_that_is_there_has_more_objects_than_its_own(tmp_path: Path) -> None:
    categories = tree((1, "cat", "dog"), (2, "dog", ""), (3, "sheep", ""))
    read = read_instances(*releases.write_coco(tmp_path, categories=categories))
    assert read.uncertain(1) == {2}


# --- file names -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    ["images\\a.png", "..\\..\\media\\upload\\4\\a.png", "C:\\data\\a.png", "images/a.png", "COCO_val2014_a.png"],
)
def test_names_of_other_systems_and_of_2014_are_found(tmp_path: Path, name: str) -> None:
    releases.write_pictures(tmp_path, ["a.png"])
    assert AnnotatedImage("1", tmp_path, name).file == tmp_path / "a.png"


def test_a_windows_path_is_found_in_its_folder_before_its_last_part(tmp_path: Path) -> None:
    releases.write_pictures(tmp_path, ["a.png", "left/a.png"])
    assert AnnotatedImage("1", tmp_path, "left\\a.png").file == tmp_path / "left/a.png"


@pytest.mark.parametrize("name", ["left_a.png", "my_train2014_a.png", "COCO_a.png", "coco_train2014_a.png", "b_a.png"])
def test_another_picture_is_not_taken_for_one_that_is_missing(tmp_path: Path, name: str) -> None:
    releases.write_pictures(tmp_path, ["a.png", "2014_a.png"])
    image = AnnotatedImage("1", tmp_path, name)
    assert image.file == tmp_path / name
    with pytest.raises(ImageError, match=name):
        image.open()


@pytest.mark.parametrize(
    ("orientation", "said"), [(1, False), (2, True), (3, True), (4, True), (None, False), (99, False)]
)
def test_a_turn_that_keeps_the_size_is_said(
    tmp_path: Path, orientation: int | None, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    annotations, images = releases.write_coco(tmp_path)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    noise(*SIZE).save(images / "000000000001.jpg", exif=exif)
    image = read_instances(annotations, images).images[1]
    image.open()
    image.open()
    assert [f"EXIF orientation {orientation}" in record.message for record in caplog.records] == [True] * said


def test_a_square_picture_that_is_turned_by_a_quarter_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(50, 50).save(tmp_path / "a.jpg", exif=exif)
    AnnotatedImage("1", tmp_path, "a.jpg", (50, 50)).open()
    assert "EXIF orientation 6" in caplog.text


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances\.json: cannot be read \(No such file"):
        read_instances(tmp_path / "instances.json", tmp_path)
    annotations, _ = releases.write_coco(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_instances(annotations, tmp_path / "nowhere")


# --- refer, gRefCOCO --------------------------------------------------------------------------------------------------
def test_references_are_read_with_their_phrases_and_objects(tmp_path: Path) -> None:
    file, annotations, images = releases.write_refer(tmp_path)
    first, second, third = read_references(file)
    assert first.phrases == ("the cat", "cat on the left")
    assert (second.image_id, second.objects, third.split) == (1, (13,), "val")
    assert [a.id for a in read_instances(annotations, images).objects_of(second)] == ["13"]


def test_grefcoco_means_several_objects_or_none(tmp_path: Path) -> None:
    several, none = read_references(releases.write_grefcoco(tmp_path)[0])
    assert several.objects == (12, 13)
    assert none.objects == ()
    assert none.phrases == ("right dog",)


def python2_pickle(value: Any) -> bytes:
    """As Python 2 wrote it, where text is bytes."""
    if isinstance(value, dict):
        return b"(d" + b"".join(python2_pickle(k) + python2_pickle(v) + b"s" for k, v in value.items())
    if isinstance(value, list):
        return b"(l" + b"".join(python2_pickle(item) + b"a" for item in value)
    if isinstance(value, str):
        text = value.encode()
        return b"T" + struct.pack("<i", len(text)) + text
    return b"I%d\n" % value


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    data = releases.references()
    data[1]["sentences"][0]["sent"] = "caf\u00e9 dog"
    file = tmp_path / "refs(google).p"
    file.write_bytes(python2_pickle(data) + b".")
    assert [r.phrases[0] for r in read_references(file)] == ["the cat", "caf\u00e9 dog", "large cat"]


class Malicious:
    """Runs a command when it is unpickled the ordinary way."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("hidden", [False, True], ids=["alone", "inside a good list"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int, hidden: bool) -> None:
    sign = tmp_path / "it ran"
    bomb = Malicious(os.mkdir, str(sign))
    entry = releases.references()[0]
    entry["sentences"][0]["sent"] = bomb
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps([entry] if hidden else bomb, protocol=protocol))
    with pytest.raises(DataError, match=r"wants \w+.mkdir imported.*malicious") as error:
        read_references(file)
    one_line(error)
    assert not sign.exists()
    pickle.loads(file.read_bytes())
    assert sign.exists(), "the file was no threat in the first place"


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps([np.array([1, 2])]),
        pickle.dumps([Path("x")]),
        pickle.dumps([eval]),
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02Pabc\n.",
        b"\x80\x04\x8c\x01xQ.",
        b"\x80\x02\x82\x01.",
    ],
    ids=["array", "path", "function", "reduce", "inst", "persistent", "binpersistent", "extension"],
)
def test_whatever_is_more_than_plain_data_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "refs.p"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"refs\.p: ") as error:
        read_references(file)
    one_line(error)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no pickle, or damaged"),
        (b"hello", "no pickle, or damaged"),
        (pickle.dumps(releases.references())[:-40], "no pickle, or damaged"),
        (pickle.dumps({"refs": []}), "no list of references"),
        (pickle.dumps([{"ref_id": 1}]), "KeyError: 'ann_id'"),
        (pickle.dumps([5]), "TypeError"),
        (pickle.dumps([releases.references()[0] | {"sentences": ["the cat"]}]), "TypeError"),
    ],
)
def test_damaged_or_other_pickles_are_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "refs.p"
    file.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        read_references(file)
    assert str(file) in one_line(error)


def test_references_of_other_instances_are_refused(tmp_path: Path) -> None:
    file, annotations, images = releases.write_refer(tmp_path)
    data = releases.instances()
    releases.write_json(annotations, {**data, "annotations": data["annotations"][:1]})
    read = read_instances(annotations, images)
    with pytest.raises(DataError, match="reference 2: the instances have no picture or annotation 13"):
        [read.objects_of(r) for r in read_references(file)]


def test_a_reference_to_an_object_of_another_picture_is_refused(tmp_path: Path) -> None:
    _, annotations, images = releases.write_refer(tmp_path)
    file = releases.write_json(tmp_path / "grefs.json", [releases.references()[0] | {"image_id": 2}])
    (reference,) = read_references(file)
    with pytest.raises(DataError, match="reference 1: is of picture 2, but its annotation 11 is of picture 1"):
        read_instances(annotations, images).objects_of(reference)


@pytest.mark.parametrize("sentences", [[], [{"sent": ""}], [{"sent": " "}, {"sent": "\n"}]])
def test_references_without_a_sentence_are_passed_over_and_said(
    tmp_path: Path, sentences: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = releases.references()
    file = releases.write_json(tmp_path / "grefs.json", [first, second | {"sentences": sentences}, third])
    assert [r.id for r in read_references(file)] == ["1", "3"]
    assert "1 of 3 references have no sentence and are passed over: 2" in caplog.text


def test_an_empty_sentence_among_others_is_passed_over(tmp_path: Path) -> None:
    first = releases.references()[0]
    file = releases.write_json(tmp_path / "grefs.json", [first | {"sentences": [{"sent": ""}, {"sent": "the cat"}]}])
    assert [r.phrases for r in read_references(file)] == [("the cat",)]


@pytest.mark.parametrize("bad", [5, {"ref_id": 9}, releases.references()[0] | {"ann_id": ["x"]}])
def test_one_bad_reference_is_named_and_costs_no_other(tmp_path: Path, bad: Any) -> None:
    file = releases.write_json(tmp_path / "grefs.json", [*releases.references(), bad])
    with pytest.raises(DataError, match="reference number 4 is not as refer or gRefCOCO has it"):
        read_references(file)
    said: list[DataError] = []
    assert [r.id for r in read_references(file, on_bad=said.append)] == ["1", "2", "3"]
    assert "number 4" in str(said[0])


# --- ReasonSeg --------------------------------------------------------------------------------------------------------
def test_reasonseg_keeps_target_and_ignored_pixels_apart(tmp_path: Path) -> None:
    first, second = read_reasonseg(releases.write_reasonseg(tmp_path))
    target, ignore = first.masks(SIZE)
    assert first.phrases == ("what flies", "what has wings")
    assert ignore.sum() == 21 * 21, "outline and inside, on top of the larger target though it stands first"
    assert target.sum() == 81 * 61 - 21 * 21, "corners are cut to whole pixels"
    assert not (target & ignore).any()
    target, ignore = second.masks(SIZE)
    assert second.phrases == ("the caf\u00e9",), "read in Windows' encoding"
    assert (target.sum(), ignore.sum()) == (21 * 21, 0), "a flag means nothing"


def test_reasonseg_paints_small_shapes_over_large_ones(tmp_path: Path) -> None:
    (first, _) = read_reasonseg(releases.write_reasonseg(tmp_path))
    swapped = ReasonSegImage(
        first.image, first.phrases, [(f"{'target' if n == 'ignore' else 'ignore'}", p) for n, p in first.polygons]
    )
    target, ignore = swapped.masks(SIZE)
    assert target.sum() == 21 * 21
    assert ignore.sum() == 81 * 61 - 21 * 21


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"text": []}, 'no phrase in "text"'),
        ({"shapes": [{"label": "target", "points": [[1]]}]}, "not as ReasonSeg has it"),
        ({"shapes": None}, "not as ReasonSeg has it"),
    ],
)
def test_a_json_that_is_not_reasonsegs_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    folder = releases.write_reasonseg(tmp_path)
    releases.write_json(folder / "b.json", {"text": ["x"], "shapes": [], **change})
    with pytest.raises(DataError, match=complaint) as error:
        list(read_reasonseg(folder))
    assert "b.json" in one_line(error)


def test_reasonseg_without_pictures_or_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no JSON files here"):
        list(read_reasonseg(tmp_path))
    releases.write_json(tmp_path / "c.json", {"text": ["x"], "shapes": []})
    with pytest.raises(DataError, match=r"c\.json: no picture of the same name"):
        list(read_reasonseg(tmp_path))


EMPTY: dict[str, list[Any]] = {
    "no shapes": [],
    "no points": [{"label": "target", "points": []}],
    "only a flag": [{"label": "flag", "points": [[0, 0], [9, 9], [0, 9]]}],
    "only what is ignored": [{"label": "ignore", "points": [[0, 0], [9, 9], [0, 9]]}],
}


@pytest.mark.parametrize("shapes", EMPTY.values(), ids=EMPTY)
def test_no_polygon_is_not_taken_for_nothing_to_find_unless_that_is_wanted(
    tmp_path: Path, shapes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = releases.write_reasonseg(tmp_path)
    releases.write_json(folder / "b.json", {"text": ["x"], "shapes": shapes})
    assert [found.image.id for found in read_reasonseg(folder)] == ["a"]
    assert "b.json: has no target polygon; left out" in caplog.text
    caplog.clear()
    kept = list(read_reasonseg(folder, keep_empty=True))
    assert [found.image.id for found in kept] == ["a", "b"]
    assert not kept[1].masks(SIZE)[0].any()
    assert "b.json: has no target polygon; taken as nothing to find" in caplog.text


@pytest.mark.parametrize("suffix", [".JPG", ".Jpeg", ".PNG"])
def test_reasonseg_finds_pictures_and_files_whatever_their_case(tmp_path: Path, suffix: str) -> None:
    folder = releases.write_reasonseg(tmp_path)
    noise(*SIZE).save(folder / f"IMG_1{suffix}")
    (folder / "b.json").rename(folder / "IMG_1.JSON")
    assert [found.image.name for found in read_reasonseg(folder)] == [f"IMG_1{suffix}", "a.jpg"]


def test_files_that_macos_leaves_behind_are_passed_over(tmp_path: Path) -> None:
    folder = releases.write_reasonseg(tmp_path)
    (folder / "._a.json").write_bytes(b"\0\5\26\7")
    assert [found.image.id for found in read_reasonseg(folder)] == ["a", "b"]


def damaged(file: Path) -> None:
    file.with_suffix(".json").write_text('{"text": [')


def other(file: Path) -> None:
    releases.write_json(file.with_suffix(".json"), {"text": 5})


@pytest.mark.parametrize("spoil", [Path.unlink, damaged, other], ids=["no picture", "no JSON", "another format"])
def test_one_bad_file_of_reasonseg_is_named_and_costs_no_other(tmp_path: Path, spoil: Any) -> None:
    folder = releases.write_reasonseg(tmp_path)
    spoil(folder / "a.jpg")
    with pytest.raises(DataError, match=r"a\.json: "):
        list(read_reasonseg(folder))
    said: list[DataError] = []
    assert [found.image.id for found in read_reasonseg(folder, on_bad=said.append)] == ["b"]
    assert len(said) == 1


@pytest.mark.parametrize("corner", [[2e9, 5], [5, -3e5]])
def test_a_polygon_of_reasonseg_with_a_corner_far_away_is_refused(tmp_path: Path, corner: list[float]) -> None:
    folder = releases.write_reasonseg(tmp_path)
    shapes = [{"label": "target", "points": [[0, 0], corner, [9, 9]]}]
    releases.write_json(folder / "b.json", {"text": ["x"], "shapes": shapes})
    _, far = read_reasonseg(folder)
    with pytest.raises(DataError, match="a polygon has a corner farther away"):
        far.masks(SIZE)


# --- counting sets ----------------------------------------------------------------------------------------------------
def test_counting_sets_are_read_by_their_columns() -> None:
    row = {"image_url": "http://x/a.jpg", "image_sha256": "ab", "count": 3, "points": None, "label": " dogs "}
    (found,) = read_pixmo_count([row])
    assert (found.id, found.source, found.what, found.count) == ("ab", "http://x/a.jpg", "dogs", 3)
    (found,) = read_pixmo_count([{**row, "image": {"bytes": b"x", "path": None}}])
    assert found.source == b"x"
    (found,) = read_countbench([{"image": {"bytes": b"x"}, "text": "ten cups", "question": "How many?", "number": 10}])
    assert (found.id, found.source, found.what, found.count) == ("0", b"x", "How many?", 10)


def test_captions_that_tell_the_number_are_no_questions() -> None:
    with pytest.raises(DataError, match="row 0: has no `question`, so this is not CountBenchQA"):
        list(read_countbench([{"image": {"bytes": b"x"}, "text": "ten cups", "number": 10}]))
    with pytest.raises(DataError, match="row 0: has no `label`, so this is not PixMo-Count"):
        list(read_pixmo_count([{"count": 3, "image_sha256": "ab"}]))
