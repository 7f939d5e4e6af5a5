"""A run's folder: what is finished, what is refused."""

import json

import pytest

from evaluation.runner.records import MANIFEST, SAMPLES, begin, finished, read_json, read_records, write_json
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.files import locked


def write(folder, *records, n=3):
    write_json(folder / MANIFEST, {"n": n})
    (folder / SAMPLES).write_text("".join(json.dumps(record) + "\n" for record in records))


def done(i, error=None):
    return {"index": i, "error": error}


def test_finished_are_whole_lines_without_an_error_each_once(tmp_path):
    write(tmp_path, done(2), done(0, "odd"), done(1), done(2), {"no": "record"})
    with (tmp_path / SAMPLES).open("ab") as lines:
        lines.write(b'{"index": 0, "err')
    assert finished(tmp_path) == {1, 2}
    assert [json.loads(line)["index"] for line in (tmp_path / SAMPLES).read_text().splitlines()] == [2, 1]
    assert finished(tmp_path / "nothing") == set()


def test_all_records_are_read_as_they_were_written(tmp_path):
    write(tmp_path, done(2), done(0, "odd"), done(1))
    assert [record["index"] for record in read_records(tmp_path)] == [2, 0, 1]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([done(0), done(2)], r"1 of 3 samples are missing \(first: 1\)"),
        ([], "3 of 3 samples are missing"),
        ([done(0), done(1), done(0), done(2)], "sample 0 is there twice"),
        ([done(0), done(1), done(2), done(3)], "sample 3 is none of this run's 3"),
    ],
)
def test_missing_double_and_stray_samples_are_refused(tmp_path, records, message):
    write(tmp_path, *records)
    with pytest.raises(DataError, match=message):
        list(read_records(tmp_path))


def test_a_torn_line_is_a_missing_sample(tmp_path):
    write(tmp_path, done(0), done(1), done(2))
    whole = (tmp_path / SAMPLES).read_bytes()
    (tmp_path / SAMPLES).write_bytes(whole[:-3])
    with pytest.raises(DataError, match="1 of 3 samples are missing"):
        list(read_records(tmp_path))


def test_a_folder_without_a_run_or_with_a_damaged_one_is_said(tmp_path):
    with pytest.raises(DataError, match="give the folder of a run"):
        list(read_records(tmp_path))
    for content in ("{", "[]"):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_json(tmp_path / MANIFEST)


def test_manifests_may_differ_in_places_only(tmp_path):
    begin(tmp_path, {"suite": "vqa", "places": {"data": "/a"}})
    begin(tmp_path, {"suite": "vqa", "places": {"data": "/b"}})
    assert read_json(tmp_path / MANIFEST)["places"] == {"data": "/b"}
    with pytest.raises(UsageError, match=r"suite was vqa and is counting; x\.y was None and is 1"):
        begin(tmp_path, {"suite": "counting", "x": {"y": 1}, "places": {}})


def test_overwriting_takes_only_a_run_s_own_files_away(tmp_path):
    write(tmp_path, done(0), n=1)
    (tmp_path / "notes.txt").write_text("mine")
    begin(tmp_path, {"suite": "vqa"}, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", MANIFEST}


def test_the_same_values_are_the_same_bytes(tmp_path):
    write_json(tmp_path / "a", {"b": 1.1, "a": ["é"]})
    write_json(tmp_path / "b", {"a": ["é"], "b": 1.1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a", float("nan"))


def test_a_lock_is_given_back(tmp_path):
    with locked(tmp_path / "new"), pytest.raises(UsageError, match="another process"), locked(tmp_path / "new"):
        pass
    with locked(tmp_path / "new"):
        pass
