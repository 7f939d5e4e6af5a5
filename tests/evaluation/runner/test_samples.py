"""Samples: names that are unique, pictures that belong together, rows that cannot be used."""

import json

import pytest

from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from tests.conftest import noise
from vision_reasoner.data.sources import open_source
from vision_reasoner.errors import DataError


@pytest.fixture
def samples_of(tmp_path):
    for i in range(2):
        noise(30 + i, 20, i).save(tmp_path / f"{i}.png")

    def make(*rows, suite="counting", **columns):
        lines = [json.dumps({"image": "0.png", "text": "dogs", "count": 1, **row}) for row in rows]
        (tmp_path / "test.jsonl").write_text("\n".join(lines))
        return Samples(SUITES[suite].with_columns(columns), open_source(tmp_path))

    return make


def test_names_are_the_image_s_and_the_annotation_s_and_unique(samples_of):
    samples = samples_of(*({"image_id": 5, "ann_id": ann} for ann in (1, 1, 2, 1)))
    assert [samples[i].id for i in range(4)] == ["5/1", "5/1#2", "5/2", "5/1#3"]
    assert {samples[i].image_id for i in range(4)} == {"5"}


def test_without_ids_rows_are_numbered_and_pictures_told_by_their_content(samples_of):
    samples = samples_of({}, {"image": "1.png"}, {})
    assert [samples[i].id for i in range(3)] == ["0", "1", "2"]
    assert samples[0].image_id == samples[2].image_id != samples[1].image_id


def test_a_sample_has_the_picture_s_bytes_its_size_and_the_truth(samples_of, tmp_path):
    sample = samples_of({"count": 3})[0]
    assert sample.image == (tmp_path / "0.png").read_bytes()
    assert (sample.size, sample.query, sample.truth, sample.problem) == ((30, 20), "dogs", {"count": 3}, None)


def test_columns_with_other_names(samples_of):
    sample = samples_of({"words": "cats", "number": 7}, text="words", count="number")[0]
    assert (sample.query, sample.truth) == ("cats", {"count": 7})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"count": None}, "column 'count': found None; expected a whole number from 0 to 1,000,000"),
        ({"text": ""}, "column 'text': found '' (it is empty); expected text"),
        ({"text": "..."}, "column 'text': found"),
        ({"text": None}, "column 'text': found None; expected text"),
        ({"text": ["dogs"]}, "column 'text': found ['dogs']; expected text"),
        ({"text": "\ud800"}, "it is not valid Unicode"),
        ({"image": None}, "column 'image': found None; expected an image"),
        ({"image": "lost.png"}, "there is no such file"),
        ({"image": "x" * 5000}, "there is no such file"),
        ({"image": "a\0b"}, "there is no such file"),
        ({"image": ["0.png", "1.png"]}, "column 'image': found ['0.png', '1.png']; expected an image"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(samples_of, row, message):
    sample = samples_of({}, row)[1]
    assert sample.problem is not None
    assert sample.problem.startswith("row 1 of ")
    assert message in sample.problem
    assert samples_of({}, row)[0].problem is None


def test_columns_that_are_missing_are_named_with_those_that_are_there(samples_of):
    with pytest.raises(DataError, match=r"no column 'question' and no 'answers' \(it has image, text, count\)"):
        samples_of({}, suite="vqa")
