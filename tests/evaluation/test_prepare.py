"""Tables to score on: the official releases in the suites' schema, ignored pixels apart, pictures as published."""

import hashlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from pycocotools.coco import COCO

from evaluation.prepare import counting_rows, main
from evaluation.suites import SUITES
from tests.conftest import noise
from tests.support import releases
from vision_reasoner.data.annotations import CountedImage
from vision_reasoner.data.sources import open_source
from vision_reasoner.data.tables import load_table, write_table
from vision_reasoner.errors import DataError
from vision_reasoner.masks import decode_mask

COMMON = ["image", "text", "image_id", "ann_id", "img_height", "img_width"]


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` keeps of a table is kept for the test alone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run(source: str, tmp_path: Path, *arguments: object) -> int:
    return main([source, "--output_dir", str(tmp_path / "out"), *map(str, arguments)])


def table(tmp_path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = list(load_table(tmp_path / "out", "test"))
    keys = [(row["image_id"], row["ann_id"]) for row in rows]
    assert len(set(keys)) == len(keys), "together they are one row's"
    for row in rows:
        assert row["image"].size == (row["img_width"], row["img_height"])
        for name in ("mask", "ignore"):
            if row.get(name) is not None:
                row[name] = np.array(row[name])
                assert row[name].shape == (row["img_height"], row["img_width"])
    return rows


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


# --- ReasonSeg --------------------------------------------------------------------------------------------------------
def test_reasonseg_has_a_row_for_each_picture_with_ignored_pixels_apart(tmp_path: Path) -> None:
    folder = releases.write_reasonseg(tmp_path / "val")
    assert run("reasonseg", tmp_path, "--data", folder) == 0
    first, second = table(tmp_path)
    assert list(first) == [*COMMON, "mask", "ignore"]
    assert (first["text"], first["image_id"], first["ann_id"]) == ("what flies", "a", "0")
    assert first["mask"].sum() == 81 * 61 - 21 * 21
    assert first["ignore"].sum() == 21 * 21
    assert not (first["mask"] & first["ignore"]).any()
    assert second["ignore"] is None
    assert second["mask"].sum() == 21 * 21


def test_reasonseg_has_a_row_for_each_phrase_where_that_is_wanted(tmp_path: Path) -> None:
    folder = releases.write_reasonseg(tmp_path / "val")
    assert run("reasonseg", tmp_path, "--data", folder, "--level", "expression") == 0
    assert [row["text"] for row in table(tmp_path)] == ["what flies", "what has wings", "the caf\u00e9"]


def test_reasonseg_files_that_are_bad_are_named_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = releases.write_reasonseg(tmp_path / "val")
    (folder / "a.jpg").unlink()
    assert run("reasonseg", tmp_path, "--data", folder) == 3
    assert "a.json: no picture of the same name" in last_line(capsys)
    assert run("reasonseg", tmp_path, "--data", folder, "--skip_bad") == 0
    assert [row["image_id"] for row in table(tmp_path)] == ["b"]
    said = capsys.readouterr().err
    assert "a.json: no picture of the same name" in said
    assert "left out for being unusable: 1" in said


def test_reasonseg_without_a_polygon_is_said_and_kept_where_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = releases.write_reasonseg(tmp_path / "val")
    releases.write_json(folder / "b.json", {"text": ["x"], "shapes": []})
    assert run("reasonseg", tmp_path, "--data", folder) == 0
    assert [row["image_id"] for row in table(tmp_path)] == ["a"]
    assert "b.json: has no target polygon; left out" in capsys.readouterr().err
    assert run("reasonseg", tmp_path, "--data", folder, "--keep_empty", "--overwrite") == 0
    assert [row["mask"].any() for row in table(tmp_path)] == [True, False]
    assert "b.json: has no target polygon; taken as nothing to find" in capsys.readouterr().err


# --- references -------------------------------------------------------------------------------------------------------
def refer_flags(files: tuple[Path, Path, Path]) -> list[object]:
    return ["--refs", files[0], "--annotations", files[1], "--images", files[2], "--split", "train"]


def test_refcoco_has_a_row_for_each_object_or_each_phrase(tmp_path: Path) -> None:
    flags = refer_flags(releases.write_refer(tmp_path))
    assert run("refcoco", tmp_path, *flags) == 0
    cat, dog = table(tmp_path)
    assert list(cat) == [*COMMON, "mask", "bbox", "targets"]
    assert (cat["text"], cat["image_id"], cat["ann_id"], cat["bbox"]) == ("the cat", "1", "11", [40, 20, 80, 60])
    assert np.array_equal(dog["mask"], releases.rectangle(13))
    assert run("refcoco", tmp_path, *flags, "--level", "expression", "--overwrite") == 0
    assert [(row["ann_id"], row["text"]) for row in table(tmp_path)] == [
        ("11-0", "the cat"),
        ("11-1", "cat on the left"),
        ("13-0", "right dog"),
    ]


def test_the_picture_is_kept_as_it_was_published(tmp_path: Path) -> None:
    files = releases.write_refer(tmp_path)
    assert run("refcoco", tmp_path, *refer_flags(files)) == 0
    kept = load_table(tmp_path / "out", "test").cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert kept["bytes"] == (files[2] / releases.NAMES_2014[1]).read_bytes()


def test_grefcoco_has_unions_and_empty_masks(tmp_path: Path) -> None:
    assert run("grefcoco", tmp_path, *refer_flags(releases.write_grefcoco(tmp_path))) == 0
    several, none = table(tmp_path)
    assert np.array_equal(several["mask"], releases.rectangle(12) | releases.rectangle(13))
    assert several["bbox"] is None
    assert not none["mask"].any()
    assert none["bbox"] is None


def test_a_reference_to_a_crowd_is_none_of_the_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = releases.write_grefcoco(tmp_path)
    instances = json.loads(files[1].read_text())
    next(entry for entry in instances["annotations"] if entry["id"] == 12)["iscrowd"] = 1
    files[1].write_text(json.dumps(instances))
    assert run("grefcoco", tmp_path, *refer_flags(files)) == 3
    assert "means a crowd (annotation 12)" in capsys.readouterr().err
    assert run("grefcoco", tmp_path, *refer_flags(files), "--skip_bad") == 0
    assert [row["mask"].any() for row in table(tmp_path)] == [False]


# --- COCO -------------------------------------------------------------------------------------------------------------
def test_coco_has_a_row_for_each_picture_and_category_and_keeps_the_instances_with_it(tmp_path: Path) -> None:
    annotations, images = releases.write_coco(tmp_path)
    assert run("coco", tmp_path, "--annotations", annotations, "--images", images) == 0
    rows = table(tmp_path)
    assert list(rows[0]) == [*COMMON, "bbox", "cat_id"]
    assert [(row["image_id"], row["text"], row["cat_id"]) for row in rows] == [
        ("1", "cat", 1),
        ("1", "dog", 2),
        ("2", "cat", 1),
    ], "not the crowd of sheep"
    assert rows[1]["bbox"] == [[100, 10, 140, 50], [150, 40, 190, 90]]
    scored_against = COCO(tmp_path / "out/instances.json")
    assert scored_against.getAnnIds(imgIds=[1], catIds=[2]) == [12, 13]
    published = {a["id"]: a["area"] for a in json.loads(Path(annotations).read_text())["annotations"]}
    assert all(a["area"] == published[a["id"]] for a in scored_against.dataset["annotations"])
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="test")
    assert len(loaded) == 3, "the JSON beside it does not disturb"


def test_a_category_with_an_annotation_that_is_left_out_has_no_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = releases.instances()["annotations"]
    del data[1]["bbox"]  # one of the two dogs
    annotations, images = releases.write_coco(tmp_path, annotations=data)
    assert run("coco", tmp_path, "--annotations", annotations, "--images", images, "--skip_bad") == 0
    assert [(row["image_id"], row["text"]) for row in table(tmp_path)] == [("1", "cat"), ("2", "cat")]
    assert 'annotation 12 has no "bbox"' in capsys.readouterr().err


# --- counting ---------------------------------------------------------------------------------------------------------
def picture_bytes(seed: int) -> bytes:
    data = io.BytesIO()
    noise(40, 30, seed=seed).save(data, "PNG")
    return data.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/0" or self.path == "/1"
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(picture_bytes(int(self.path[1:])))

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write_pixmo(folder: Path, address: str) -> Path:
    """Picture 0 is there, 1 is another one now, 2 is gone, 3 is no http address."""
    columns = {name: datasets.Value("string") for name in ("image_url", "image_sha256", "label")}
    digests = [hashlib.sha256(picture_bytes(seed)).hexdigest() for seed in (0, 7, 8, 9)]
    urls = [f"{address}/0", f"{address}/1", f"{address}/2", "file:///etc/passwd"]
    rows = [
        {"image_url": url, "image_sha256": digest, "label": f"cups of kind {i}", "count": i + 2}
        for i, (url, digest) in enumerate(zip(urls, digests, strict=True))
    ]
    write_table(folder, "validation", {**columns, "count": datasets.Value("int32")}, rows)
    return folder


def test_pixmo_counts_pictures_that_lie_there_already(tmp_path: Path) -> None:
    data = write_pixmo(tmp_path / "pixmo", "http://nowhere.invalid")
    images = tmp_path / "images"
    images.mkdir()
    for seed, name in ((0, ""), (7, ".png"), (8, ".jpg"), (9, "")):
        content = picture_bytes(seed)
        (images / f"{hashlib.sha256(content).hexdigest()}{name}").write_bytes(content)
    flags = ["--data", data, "--split", "validation", "--images", images]
    assert run("pixmo_count", tmp_path, *flags) == 0
    rows = table(tmp_path)
    assert list(rows[0]) == [*COMMON, "count"]
    assert [(row["ann_id"], row["count"]) for row in rows] == [("0", 2), ("1", 3), ("2", 4), ("3", 5)]
    assert rows[0]["text"] == "How many cups of kind 0 are there in this image?"


def test_pixmo_fetches_pictures_and_takes_no_other_ones(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pixmo(tmp_path / "pixmo", address)
    images = tmp_path / "images"
    flags = ["--data", data, "--split", "validation", "--images", images]
    assert run("pixmo_count", tmp_path, *flags) == 3
    assert "no such image; fetch it (--download)" in last_line(capsys)
    assert run("pixmo_count", tmp_path, *flags, "--download") == 3
    assert "is another image now" in last_line(capsys)
    assert run("pixmo_count", tmp_path, *flags, "--download", "--skip_bad", "--question", "count {what}") == 0
    errors = capsys.readouterr().err
    assert "cannot be fetched (HTTP Error 404" in errors
    assert "is no http address" in errors
    assert "left out for being unusable: 3" in errors
    (row,) = table(tmp_path)
    assert row["text"] == "count cups of kind 0"
    assert [f.read_bytes() for f in images.iterdir()] == [picture_bytes(0)], "kept for the next time"


@pytest.mark.parametrize("url", ["http://exam ple/a.png", "http://localhost:port/a.png"])
def test_an_address_that_is_none_is_a_picture_that_cannot_be_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        counting_rows(CountedImage("0" * 64, url, "cups", 2), 0, "{what}", tmp_path, download=True)


def test_countbench_asks_its_own_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"image": datasets.Image(), "text": datasets.Value("string"), "question": datasets.Value("string")}
    columns["number"] = datasets.Value("int32")
    row = {"image": {"bytes": picture_bytes(0), "path": None}, "text": "ten cups", "question": "How many {cups}?"}
    write_table(tmp_path / "qa", "test", columns, [{**row, "number": 10}])
    assert run("countbench", tmp_path, "--data", tmp_path / "qa") == 0
    (found,) = table(tmp_path)
    assert (found["text"], found["count"], found["image_id"]) == ("How many {cups}?", 10, "0")
    del columns["question"], row["question"]
    write_table(tmp_path / "captions", "test", columns, [{**row, "number": 10}])
    assert run("countbench", tmp_path, "--data", tmp_path / "captions", "--overwrite") == 3
    assert "has no `question`" in last_line(capsys)


def test_a_line_that_is_no_json_is_left_out_by_skip_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(picture_bytes(0))
    line = json.dumps({"image": "a.png", "question": "How many {cups}?", "text": "ten cups", "number": 10})
    (tmp_path / "test.jsonl").write_text(f'{line}\n{{"image": "a.p\n{line}\n')
    flags = ["--data", tmp_path / "test.jsonl"]
    assert run("countbench", tmp_path, *flags) == 3
    assert "line 2 is no JSON object" in last_line(capsys)
    assert run("countbench", tmp_path, *flags, "--skip_bad") == 0
    assert "left out for being unusable: 1" in capsys.readouterr().err
    assert len(table(tmp_path)) == 2


# --- what they are for ------------------------------------------------------------------------------------------------
def test_the_suites_find_in_the_tables_what_they_score_against(tmp_path: Path) -> None:
    folder = releases.write_reasonseg(tmp_path / "val")
    assert run("reasonseg", tmp_path / "a", "--data", folder) == 0
    assert run("grefcoco", tmp_path / "b", *refer_flags(releases.write_grefcoco(tmp_path))) == 0
    annotations, images = releases.write_coco(tmp_path)
    assert run("coco", tmp_path / "c", "--annotations", annotations, "--images", images) == 0

    def truths(name: str, folder: str) -> list[dict[str, Any]]:
        source = open_source(tmp_path / folder / "out")
        assert {"image", SUITES[name].query, *SUITES[name].needs} <= set(source.columns)
        return [SUITES[name].truth(source.row(i)) for i in range(source.n)]

    first, second = truths("segmentation", "a")
    assert decode_mask(first["ignore"]).sum() == 21 * 21
    assert "ignore" not in second
    several, none = truths("segmentation", "b")
    assert decode_mask(several["mask"]).sum() == 1600 + 2000
    assert not decode_mask(none["mask"]).any()
    assert truths("detection", "c")[1] == {"boxes": [[100, 10, 140, 50], [150, 40, 190, 90]], "category_id": 2}


# --- errors -----------------------------------------------------------------------------------------------------------
def test_bad_pictures_stop_the_work_unless_they_may_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = releases.write_coco(tmp_path)
    (images / "000000000001.jpg").unlink()
    flags = ["--annotations", annotations, "--images", images]
    assert run("coco", tmp_path, *flags) == 3
    assert "000000000001.jpg: there is no such file" in last_line(capsys)
    assert not (tmp_path / "out/instances.json").exists()
    assert run("coco", tmp_path, *flags, "--skip_bad") == 0
    assert [row["image_id"] for row in table(tmp_path)] == ["2"]
    assert run("coco", tmp_path, *flags, "--skip_bad") == 3
    assert "--overwrite" in last_line(capsys)


def test_a_limit_takes_the_first_rows(tmp_path: Path) -> None:
    annotations, images = releases.write_coco(tmp_path)
    flags = ["--annotations", annotations, "--images", images]
    assert run("coco", tmp_path, *flags, "--limit", 2) == 0
    assert [row["text"] for row in table(tmp_path)] == ["cat", "dog"]
    beside = json.loads((tmp_path / "out/instances.json").read_text())
    assert [image["id"] for image in beside["images"]] == [1]
    assert {(a["image_id"], a["category_id"]) for a in beside["annotations"]} == {(1, 1), (1, 2)}
    assert run("coco", tmp_path, *flags, "--limit", 0, "--overwrite") == 2


@pytest.mark.parametrize(
    ("source", "arguments", "complaint"),
    [
        ("reasonseg", ["--data", "none"], "no JSON files here"),
        ("countbench", ["--data", "./none"], "no such data set"),
        ("coco", ["--annotations", "none.json", "--images", "."], "none.json: cannot be read"),
        ("refcoco", ["--refs", "none.p", "--annotations", "none.json", "--images", "."], "none.json: cannot be read"),
    ],
)
def test_missing_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, arguments: list[str], complaint: str
) -> None:
    assert run(source, tmp_path, *arguments) == 3
    assert complaint in last_line(capsys)
