"""Data sets as rows: every form gives the same, pictures stay as they are stored, and what is wrong is said."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import noise
from tests.support.runs import make_data
from vision_reasoner.data.sources import datasets_cache, open_source, upright_sizes
from vision_reasoner.data.tables import load_table
from vision_reasoner.errors import DataError
from vision_reasoner.images import load_image

MASKS = np.random.default_rng(0).random((4, 40, 60)) > 0.5


def jpeg(i: int) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    noise(60, 40, i).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.fixture(scope="module")
def dataset():
    """Four rows as the Hub's sets have them."""
    from datasets import Dataset
    from datasets import Image as ImageColumn

    rows = [
        {
            "image": {"bytes": jpeg(i), "path": None},
            "text": f"thing {i}",
            "mask": MASKS[i].tolist(),
            "bbox": [1, 2, 3 + i, 4] if i != 2 else None,
            "count": i,
        }
        for i in range(4)
    ]
    return Dataset.from_list(rows).cast_column("image", ImageColumn())


@pytest.fixture(scope="module")
def places(dataset, tmp_path_factory):
    """The same data set in every form."""
    from datasets import DatasetDict

    root = tmp_path_factory.mktemp("data")
    dataset.to_parquet(root / "file" / "test.parquet")
    dataset.select(range(2)).to_parquet(root / "clone" / "data" / "test-00000-of-00002.parquet")
    dataset.select(range(2, 4)).to_parquet(root / "clone" / "data" / "test-00001-of-00002.parquet")
    dataset.select(range(1)).to_parquet(root / "clone" / "data" / "train-00000-of-00001.parquet")
    dataset.to_parquet(root / "plain" / "part.parquet")
    dataset.save_to_disk(root / "saved")
    DatasetDict({"test": dataset, "validation": dataset.select(range(1))}).save_to_disk(root / "parts")
    (root / "lines").mkdir()
    lines = []
    for i, row in enumerate(dataset.with_format("arrow").to_list()):
        (root / "lines" / f"{i}.jpg").write_bytes(jpeg(i))
        lines.append(json.dumps({**row, "image": f"{i}.jpg"}))
    (root / "lines" / "test.jsonl").write_text("\n".join(lines) + "\n\n")
    return root


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("file/test.parquet", "file"),
        ("file", "file"),
        ("clone", "clone"),
        ("plain", "plain"),
        ("saved", "saved"),
        ("parts", "parts"),
        ("lines/test.jsonl", "lines"),
        ("lines", "lines"),
    ],
)
def test_every_form_gives_the_same_rows(places, path, name):
    source = open_source(places / path)
    assert (source.n, source.name, source.split) == (4, name, "test")
    assert set(source.columns) == {"image", "text", "mask", "bbox", "count"}
    assert source.column("text") == [f"thing {i}" for i in range(4)]
    for i in range(4):
        row = source.row(i)
        assert row["image"]["bytes"] == jpeg(i), "not decoded, and not encoded again"
        assert np.array_equal(np.asarray(row["mask"]), MASKS[i])
        assert (row["text"], row["count"]) == (f"thing {i}", i)
        assert row["bbox"] == ([1, 2, 3 + i, 4] if i != 2 else None)


def test_masks_of_tables_are_arrays_at_once(places):
    mask = open_source(places / "file").row(3)["mask"]
    assert isinstance(mask, np.ndarray)
    assert (mask.shape, mask.dtype) == ((40, 60), np.bool_)


def test_the_upright_size_comes_from_the_header():
    assert upright_sizes({"bytes": jpeg(0), "path": None}) == ((40, 60),), "turned by a quarter"
    assert upright_sizes({"bytes": b"nothing", "path": None}) == ()
    assert upright_sizes({"bytes": None, "path": "x.png"}) == ()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_loaded_image_in_every_orientation(format, orientation):
    out, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    noise(60, 40).save(out, format, exif=exif)
    assert load_image(out.getvalue()).size == upright_sizes({"bytes": out.getvalue(), "path": None})[0]


def test_a_png_that_says_behind_its_pixels_that_it_is_turned_has_two_sizes():
    out, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    noise(60, 40).save(out, "PNG", exif=exif)
    data = out.getvalue()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    moved = data[:start] + data[end:last] + data[start:end] + data[last:]
    assert load_image(moved).size in upright_sizes({"bytes": moved, "path": None})


def test_fingerprints_tell_contents_apart_and_places_not(tmp_path):
    data = make_data(tmp_path / "a", "counting", 3)
    first = open_source(data).fingerprint
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert open_source(tmp_path / "b").fingerprint == first
    noise(96, 64).save(tmp_path / "b" / "2.png")
    assert open_source(tmp_path / "b").fingerprint != first
    data.write_text(data.read_text().replace("sample 0", "sample 5"))
    assert open_source(data).fingerprint != first


def test_fingerprints_of_tables_are_those_of_their_files(places, tmp_path):
    shutil.copytree(places / "clone", tmp_path / "moved")
    first = open_source(places / "clone").fingerprint
    assert open_source(tmp_path / "moved").fingerprint == first
    shutil.copy(places / "plain/part.parquet", tmp_path / "moved/data/test-00001-of-00002.parquet")
    assert open_source(tmp_path / "moved").fingerprint != first


@pytest.mark.parametrize("path", ["clone", "parts"])
def test_a_split_that_is_not_there_is_said_with_those_that_are(places, path):
    with pytest.raises(DataError, match=r"no split 'val'; give --split .*test"):
        open_source(places / path, split="val")


def test_a_split_among_those_that_only_a_letter_tells_apart_is_the_one_read(dataset, tmp_path):
    for letter, n in (("A", 3), ("B", 2)):
        dataset.select(range(n)).to_parquet(tmp_path / f"test{letter}-00000-of-00001.parquet")
    assert open_source(tmp_path, split="testA").n == 3
    assert open_source(tmp_path, split="testB").n == 2


def test_other_splits_are_read(places):
    assert open_source(places / "clone", split="train").n == 1
    assert open_source(places / "parts", split="validation").n == 1
    assert open_source(places / "plain", split="validation").n == 4, "a single part bears no split's name"


def test_rows_that_differ_in_length_are_no_mask(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"mask": [[[True, False], [True]]]}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(ValueError, match="rows of 1 to 2 values"):
        open_source(tmp_path / "test.parquet").row(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "no such data set"),
        ("a/b/c", None, "no such data set"),
        ("test.parquet", b"no parquet", "cannot be read"),
        ("test.jsonl", b'{"a"\n\n{', "line 1 is no JSON object"),
        ("test.jsonl", b"[1]", "line 1 is no JSON object"),
        ("test.jsonl", b"\n", "is empty"),
        ("picture.png", b"", "is no data set that can be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)


def test_a_folder_of_several_unnamed_line_files_wants_a_choice(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("{}")
    with pytest.raises(DataError, match="holds 2"):
        open_source(tmp_path)
    (tmp_path / "test.jsonl").write_text('{"x": 1}')
    assert open_source(tmp_path).columns == ("x",)


def test_a_hub_id_is_asked_for_with_its_configuration_and_split(monkeypatch, dataset):
    import datasets

    given = []

    def load_dataset(*arguments, **options):
        given.append((arguments, options))
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source("owner/Some_set", split="validation", config="Part")
    assert given == [(("owner/Some_set", "Part"), {"split": "validation", "cache_dir": None})]
    assert (source.name, source.path, source.n) == ("Some_set", "owner/Some_set", 4)
    assert source.row(1)["image"]["bytes"] == jpeg(1)


def test_a_hub_that_is_out_of_reach_is_said(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match="not on this machine and the Hub cannot be reached"):
        open_source("owner/no-such-set-here", offline=True)


@pytest.mark.parametrize("suite", ["segmentation", "detection", "counting", "vqa"])
def test_the_bundled_sets_are_read(suite):
    from evaluation.runner.samples import Samples
    from evaluation.suites import SUITES

    source = open_source(SUITES[suite].data or "")
    samples = Samples(SUITES[suite], source)
    assert source.n >= 200
    assert source.name == suite
    for i in (0, source.n - 1):
        assert samples[i].problem is None
    assert len({samples.ids[i] for i in range(source.n)}) == source.n


def test_a_cache_that_cannot_be_written_is_no_hindrance(places, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/dev/null/cache")
    datasets_cache.cache_clear()
    try:
        temporary = datasets_cache()
        assert temporary is not None
        assert open_source(places / "file" / "test.parquet").row(0)["text"]
        assert list(Path(temporary).rglob("*.arrow")), "what was read lies there"
        assert load_table(places / "file", "test")[0]["text"]
    finally:
        datasets_cache.cache_clear()
