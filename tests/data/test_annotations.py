"""Official formats: what is read is what the files say, and files that say something else are refused in one line."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import releases
from tests.support.releases import BAT, CAT, DOG, RECTANGLES, SHEEP, SIZE
from vision_reasoner.data.annotations import (
    ReasonSegImage,
    read_countbench,
    read_instances,
    read_pixmo_count,
    read_reasonseg,
    read_references,
)
from vision_reasoner.errors import DataError


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
        ([["a", "b"]], "neither polygons nor run lengths"),
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
        ('{"images": [{}], "annotations": [], "categories": []}', "KeyError: 'id'"),
        ('{"images": [], "annotations": [{"id": 1, "image_id": 5, "bbox": [1, 2, 3, 4]}], "categories": []}', "5"),
        ('{"images": [], "annotations": [{"bbox": 3}], "categories": []}', "TypeError"),
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
        (pickle.dumps([releases.references()[0] | {"sentences": []}]), "has no phrase"),
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
