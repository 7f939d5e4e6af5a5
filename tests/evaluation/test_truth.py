"""Reading truth: right, or an error of the row that says column, what was found and what was expected."""

import io
import json
import logging
import os
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation import compare, report
from evaluation.runner.records import INSTANCES, MANIFEST, SAMPLES
from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from tests.conftest import noise
from tests.support.runs import SIZE, make_data, write_run
from tests.support.toys import objects, toy_model, toy_run
from vision_reasoner.data.sources import MAX_JSON_BYTES, open_source
from vision_reasoner.errors import DataError
from vision_reasoner.masks import decode_mask, encode_mask
from vision_reasoner.models.reasoner import Reply

W, H = 60, 40
OBJECT = np.zeros((H, W), dtype=bool)
OBJECT[5:25, 5:25] = True


@pytest.fixture
def samples_of(tmp_path):
    """Samples of rows in JSON lines, beside an image of 60 x 40 pixels."""
    noise(W, H).save(tmp_path / "a.png")

    def make(suite, *rows):
        (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({"image": "a.png", **row}) for row in rows))
        return Samples(SUITES[suite], open_source(tmp_path / "test.jsonl"))

    return make


@pytest.fixture
def problem_of(samples_of):
    """What is wrong with a row."""

    def problem(suite, **row):
        return samples_of(suite, row)[0].problem or ""

    return problem


# --- masks ------------------------------------------------------------------------------------------------------------
def stored(image, format="PNG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def labels(dtype, value=1):
    return Image.fromarray(OBJECT.astype(dtype) * dtype(value))


def palette(*colors, value=1):
    image = labels(np.uint8, value)
    image.putpalette([channel for color in colors for channel in color])
    return image


def alpha(mode, color, other=None):
    """The object in the transparency; the color is one, or another outside."""
    values = np.full((H, W, len(mode)), color, dtype=np.uint8)
    if other is not None:
        values[~OBJECT] = other
    values[..., -1] = OBJECT * 255
    return Image.fromarray(values)


READ = {
    "16 bits, small labels": stored(labels(np.uint16, 26)),
    "16 bits, a multiple of 256": stored(labels(np.uint16, 512)),
    "16 bits, TIFF": stored(labels(np.uint16, 1000), "TIFF"),
    "32 bits": stored(labels(np.int32, 70_000), "TIFF"),
    "float": stored(labels(np.float32), "TIFF"),
    "bool": stored(Image.fromarray(OBJECT)),
    "0 and 255": stored(labels(np.uint8, 255)),
    "0 and 1": stored(labels(np.uint8)),
    "palette": stored(palette((0, 0, 0), (128, 0, 0))),
    "palette with a transparent background": stored(palette((0, 0, 0), (0, 128, 0)), transparency=0),
    "gray with a transparent background": stored(labels(np.uint8, 255), transparency=0),
    "gray and alpha": stored(alpha("LA", 255, 0)),
    "black gray, alpha": stored(alpha("LA", 0)),
    "alpha, white everywhere": stored(alpha("RGBA", 255)),
    "alpha, black everywhere": stored(alpha("RGBA", 0)),
    "alpha and color": stored(alpha("RGBA", 200, 0)),
    "opaque": stored(labels(np.uint8, 255).convert("RGBA")),
    "RGB": stored(labels(np.uint8, 255).convert("RGB")),
    "JPEG": stored(labels(np.uint8, 255), "JPEG", quality=60),
}


@pytest.mark.parametrize("name", READ)
def test_mask_images_are_read_right(samples_of, tmp_path, name):
    (tmp_path / "mask.bin").write_bytes(READ[name])
    sample = samples_of("segmentation", {"text": "cup", "mask": "mask.bin"})[0]
    assert sample.problem is None
    assert np.array_equal(decode_mask(sample.truth["mask"]), OBJECT)


REFUSED = {
    "a photograph": (stored(noise(W, H).point(lambda value: max(value, 1))), "nothing is 0"),
    "a photograph with a hole": (stored(alpha("RGBA", 9, 30)), "mean two masks"),
    "a black label": (stored(palette((0, 0, 0), (0, 0, 0))), "mean two masks"),
    "a white background": (stored(palette((255, 255, 255), (0, 0, 0))), "mean two masks"),
    "labels in JPEG": (stored(labels(np.uint8, 7), "JPEG"), "not exact"),
    "CMYK": (stored(labels(np.uint8, 255).convert("CMYK"), "TIFF"), "mode CMYK"),
    "fractions": (stored(Image.fromarray(OBJECT * np.float32(0.5)), "TIFF"), "fractions"),
    "cut off": (stored(labels(np.uint8, 255))[:60], "damaged"),
    "no image": (b"mask", "no picture"),
    "another size": (stored(Image.new("L", (50, 40))), "its mask is 50x40 and its image 60x40"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mask_images_with_two_readings_are_errors_of_their_row(problem_of, tmp_path, name):
    data, message = REFUSED[name]
    (tmp_path / "mask.bin").write_bytes(data)
    problem = problem_of("segmentation", text="cup", mask="mask.bin")
    assert "column 'mask': " in problem
    assert message in problem


@pytest.mark.parametrize(
    "mask",
    [
        None,
        [],
        [[]],
        "no such.png",
        5,
        [[True], [True, False]],
        [[0.5] * W] * H,
        [["x"] * W] * H,
        [[10**400] * W] * H,
        [["x" * 100_000, *[""] * 1000]] * 4,
        [[[True]]],
        {"size": [H, W], "counts": "b'0'"},
        {"size": [H, W], "counts": ""},
        {"size": [H, W], "counts": [H * W - 1]},
        {"size": [H, W], "counts": "PP0é"},
        {"size": [10**5, 10**5], "counts": [10**10]},
        {"size": [H, W, 1], "counts": [H * W]},
        {"bytes": None, "path": None},
        encode_mask(np.ones((W, H), dtype=bool)),
        encode_mask(np.ones((2 * H, 2 * W), dtype=bool)),
    ],
    ids=lambda mask: repr(mask)[:40],
)
def test_what_is_no_mask_of_its_image_is_an_error_of_its_row(problem_of, mask):
    tracemalloc.start()
    try:
        problem = problem_of("segmentation", text="cup", mask=mask)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert problem.startswith("row 0 of ")
    assert "column 'mask': " in problem


def test_a_mask_is_compared_with_the_upright_image(samples_of, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    noise(W, H).save(tmp_path / "turned.jpg", exif=exif)
    upright, asleep = (encode_mask(np.ones(shape, dtype=bool)) for shape in ((W, H), (H, W)))
    rows = [{"image": "turned.jpg", "text": "cup", "mask": mask} for mask in (upright, asleep)]
    samples = samples_of("segmentation", *rows)
    assert samples[0].problem is None
    assert "its mask is 60x40 and its image 40x60 (turned by its EXIF orientation?)" in (samples[1].problem or "")


# --- boxes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ([30, 20, 10, 6], "x2 < x1; x, y, width, height?"),
        ([10, 20, 15, 6], "y2 < y1"),
        ([10, 20, 10, 26], "x2 = x1"),
        ([30, 20, 35, 20, 35, 26, 30, 26], "8 numbers: four corners?"),
        ([[30, 20], [35, 20], [35, 26], [30, 26]], "2 values"),
        ([[[1, 2, 3, 4]]], "1 values"),
        ([1, 2, 3], "3 values"),
        ([[1, 2, 3, 4], 5], "found 5"),
        ([1, 2, 3, float("nan")], "not 4 numbers of pixels"),
        ([1, 2, float("inf"), 4], "not 4 numbers of pixels"),
        ([1, 2, 3, 1e308], "not 4 numbers of pixels"),
        ([1, 2, 3, 10**400], "not 4 numbers of pixels"),
        (["1", "2", "3", "4"], "not 4 numbers of pixels"),
        ([0, 0, True, True], "not 4 numbers of pixels"),
        ("[1, 2, 3, 4]", "found '[1, 2, 3, 4]'"),
        ({"x1": 1, "y1": 2, "x2": 3, "y2": 4}, "a list of boxes"),
        (None, "found None"),
        ([1, 2, 63, 4], "outside of its image of 60x40"),
        ([-2, 2, 3, 4], "outside of its image"),
        ([[1, 2, 3, 4], [300, 200, 350, 260]], "outside of its image"),
    ],
)
def test_boxes_that_are_none_are_errors_of_their_row(problem_of, bbox, message):
    problem = problem_of("detection", text="cup", bbox=bbox, cat_id=1, image_id="1")
    assert problem.startswith("row 0 of ")
    assert "column 'bbox': " in problem
    assert message in problem


@pytest.mark.parametrize(
    ("bbox", "boxes"),
    [
        ([1, 2, 3, 4], [[1, 2, 3, 4]]),
        ([[1, 2, 3.5, 4.0], [0, 0, 60, 40]], [[1, 2, 3.5, 4], [0, 0, 60, 40]]),
        ([-0.5, 0, 60.9, 40], [[-0.5, 0, 60.9, 40]]),
        ([], []),
    ],
)
def test_boxes_are_read(samples_of, bbox, boxes):
    assert samples_of("detection", {"text": "cup", "bbox": bbox, "cat_id": 1, "image_id": 1})[0].truth["boxes"] == boxes


def test_a_box_as_width_and_height_is_told_by_its_mask(samples_of):
    mask = encode_mask(OBJECT[:, ::-1])  # from 35 to 55
    rows = [{"text": "cup", "mask": mask, "bbox": bbox} for bbox in ([35, 5, 55, 25], [35, 5, 36, 25], None)]
    assert [samples_of("segmentation", *rows)[i].problem for i in range(3)] == [None] * 3
    shifted = np.zeros((H, W), dtype=bool)
    shifted[4:34, 4:54] = True
    row = {"text": "cup", "mask": encode_mask(shifted), "bbox": [4, 4, 50, 30]}
    assert samples_of("segmentation", row)[0].problem is None, "both readings are near"
    row = {"text": "cup", "mask": encode_mask(OBJECT), "bbox": [5, 5, 20, 20]}
    assert samples_of("segmentation", row)[0].problem is None, "its IoU is 0.56"
    shifted[:] = False
    shifted[10:22, 10:25] = True
    row = {"text": "cup", "mask": encode_mask(shifted), "bbox": [10, 10, 15, 12]}
    assert "x, y, width, height, by the mask" in (samples_of("segmentation", row)[0].problem or "")


@pytest.mark.parametrize("point", [[1], [1, 2, 3], "1,2", [1, float("nan")], [70, 2], [True, 2]])
def test_points_that_are_none_are_errors_of_their_row(problem_of, point):
    row = {"text": "cup", "mask": encode_mask(OBJECT), "bbox": [5, 5, 25, 25]}
    assert "column 'point': " in problem_of("segmenter", **row, point=point)
    assert not problem_of("segmenter", **row, point=[9, 9])


# --- counts, answers, ids ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "count", [-3, 2.7, 10**30, 2_000_000, float("inf"), float("nan"), "3", "many", None, True, [3], {}]
)
def test_counts_that_are_none_are_errors_of_their_row(problem_of, count):
    assert "column 'count': found" in problem_of("counting", text="cups", count=count)
    assert "expected a whole number from 0 to 1,000,000" in problem_of("counting", text="cups", count=count)


def test_counts_of_a_column_with_nulls_are_read(samples_of):
    assert samples_of("counting", {"text": "cups", "count": 3.0})[0].truth == {"count": 3}


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        ("red", ["red"]),
        (["red", "blue"], ["red", "blue"]),
        (5, ["5"]),
        (5.0, ["5"]),
        ([1.5, "2"], ["1.5", "2"]),
        ([{"answer": "net", "answer_id": 1}, {"answer": "nets"}], ["net", "nets"]),
        ({"answer": "net"}, ["net"]),
        ('["red", "blue"]', ["red", "blue"]),
        ('[{"answer": "net"}]', ["net"]),
        ("[1]", ["[1]"]),
        ("[x^2]", ["[x^2]"]),
        ("None", ["None"]),
        ("{", ["{"]),
    ],
)
def test_answers_are_read(samples_of, answers, read):
    assert samples_of("vqa", {"question": "what", "answers": answers})[0].truth == {"answers": read}


@pytest.mark.parametrize(
    "answers",
    [
        None,
        [],
        "",
        ["", " "],
        [None],
        ["red", None],
        True,
        float("nan"),
        {},
        {"text": ["red"]},
        [{"text": "red"}],
        [["red"]],
        '{"text": "red"}',
        '["red", {"text": 1}]',
        "['red', 'blue']",
    ],
)
def test_answers_that_are_none_are_errors_of_their_row(problem_of, answers):
    assert "column 'answers': found" in problem_of("vqa", question="what", answers=answers)


@pytest.mark.parametrize(("value", "read"), [(3, 3), ("3", 3), (3.0, 3), (-1, -1)])
def test_category_ids_are_numbers_or_text(samples_of, value, read):
    row = {"text": "cup", "bbox": [], "cat_id": value, "image_id": 1}
    assert samples_of("detection", row)[0].truth["category_id"] == read


@pytest.mark.parametrize("value", ["cup", 3.5, None, [3], True, "٣", "9" * 30])
def test_category_ids_that_are_none_are_errors_of_their_row(problem_of, value):
    assert "column 'cat_id': found" in problem_of("detection", text="cup", bbox=[], cat_id=value, image_id=1)


@pytest.mark.parametrize("value", [None, [1], {}, float("nan"), 1.5])
def test_image_ids_that_are_none_are_errors_of_their_row(samples_of, value):
    good = {"text": "cup", "bbox": [], "cat_id": 1, "image_id": 7}
    samples = samples_of("detection", good, {**good, "image_id": value})
    assert samples[0].problem is None
    assert "column 'image_id': found" in (samples[1].problem or "")


# --- before anything is asked -----------------------------------------------------------------------------------------
def lines_of(data):
    return [json.loads(line) for line in data.read_text().splitlines()]


def write_lines(data, rows):
    data.write_text("\n".join(map(json.dumps, rows)))


def test_all_bad_rows_are_known_and_said_before_the_model_is_loaded(tmp_path, caplog):
    data = make_data(tmp_path / "data", "counting", 12)
    rows = lines_of(data)
    for i in range(3, 10):
        rows[i]["count"] = -i
    write_lines(data, rows)
    model = toy_model()

    def load():
        assert "7 of 12 rows cannot be used" in caplog.text
        assert all(f"row {i} of " in caplog.text for i in range(3, 8))
        assert "row 8 of " not in caplog.text
        assert "and 2 more" in caplog.text
        caplog.clear()
        return model

    with caplog.at_level(logging.WARNING):
        metrics = toy_run(data, "counting", tmp_path / "run", load=load)
    assert metrics["errors"] == 7
    assert "row " not in caplog.text, "nothing is said twice"
    assert sum(map(len, model.reasoner.batches)) == 5


def test_rows_of_which_none_can_be_used_are_refused_and_can_be_put_right(tmp_path):
    data = make_data(tmp_path / "data", "counting", 3)
    rows = lines_of(data)
    write_lines(data, [{**row, "count": 2.7} for row in rows])
    with pytest.raises(DataError, match=r"none of the 3 rows can be used; the first: row 0 of .*found 2\.7"):
        toy_run(data, "counting", tmp_path / "run", load=lambda: pytest.fail("a model is loaded"))
    write_lines(data, rows)
    assert toy_run(data, "counting", tmp_path / "run")["errors"] == 0


def test_reading_truth_decodes_no_image(tmp_path, monkeypatch):
    data = make_data(tmp_path / "data", "detection", 6)
    samples = Samples(SUITES["detection"], open_source(data))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("an image is decoded"))
    assert samples.check(6, quiet=True) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": "p2"}, "column 'image_id': found 'p2', which row 2 has for another image"),
        ({"image_id": "p2", "image": "2.png"}, "column 'cat_id': found 1, which row 2 asks for in the same image"),
    ],
)
def test_ids_that_are_used_twice_are_errors_of_their_row(tmp_path, changes, message):
    data = make_data(tmp_path / "data", "detection", 6)
    rows = lines_of(data)
    rows[4] |= changes
    write_lines(data, rows)
    samples = Samples(SUITES["detection"], open_source(data))
    problems = samples.check(6, quiet=True)
    assert list(problems) == [4]
    assert message in problems[4]
    assert samples[4].problem == problems[4]


# --- instances files --------------------------------------------------------------------------------------------------
@pytest.fixture
def detection(tmp_path):
    """A data set with its instances file, whose answers are right: (folder, its instances, a run on others)."""
    data = make_data(tmp_path / "data", "detection", 4)
    rows = [{**row, "image_id": 1 + i, "cat_id": 1 + i % 2} for i, row in enumerate(lines_of(data))]
    for row in rows:
        row["text"] += " (cup)" if row["cat_id"] == 1 else " (ball)"
    write_lines(data, rows)
    instances = {
        "images": [{"id": row["image_id"], "file_name": row["image"]} for row in rows],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "ball"}],
        "annotations": [
            {
                "id": i,
                "image_id": row["image_id"],
                "category_id": row["cat_id"],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
            }
            for i, row in enumerate(rows, start=1)
            for x1, y1, x2, y2 in row["bbox"]
        ],
    }

    def run(instances, rows=rows):
        write_lines(data, rows)
        file = tmp_path / "instances.json"
        file.write_text(json.dumps(instances))
        replies = [Reply(objects(*row["bbox"], point=False), (840, 840)) for row in rows]
        loaded = []

        def load():
            loaded.append(True)
            return toy_model(lambda i: replies[i])

        try:
            metrics = toy_run(data, "detection", tmp_path / "run", load=load, annotations=file)
        except DataError:
            assert not loaded, "it is refused before a model is loaded"
            raise
        return {(figure["name"], figure["protocol"]): figure["value"] for figure in metrics["figures"]}

    return run, instances, rows


@pytest.mark.parametrize("form", [int, str, float])
@pytest.mark.parametrize("part", ["images", "annotations", "categories", "rows"])
def test_ids_may_be_text_or_numbers_anywhere(detection, form, part):
    run, instances, rows = detection
    keys = ("image_id", "category_id", "cat_id") if part in ("annotations", "rows") else ("id",)
    changed = [
        {key: form(value) if key in keys else value for key, value in one.items()}
        for one in (rows if part == "rows" else instances[part])
    ]
    if part == "rows" and form is str:
        changed = [{**row, "image_id": str(row["image_id"])} for row in changed]
    found = run(instances if part == "rows" else {**instances, part: changed}, changed if part == "rows" else rows)
    assert found["COCO AP", "upstream"] == pytest.approx(1)
    assert found["F1 at IoU 0.5", "official"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": None}, r'annotation 2 \(id 2\): its "bbox" is None'),
        ({"bbox": []}, 'its "bbox" is'),
        ({"bbox": [1, 2, -3, 4]}, 'its "bbox" is'),
        ({"bbox": [1, 2, float("nan"), 4]}, 'its "bbox" is'),
        ({"bbox": ["1", 2, 3, 4]}, 'its "bbox" is'),
        ({"image_id": 99}, "it is of image 99, which is not listed"),
        ({"image_id": "one"}, "found 'one'"),
        ({"category_id": 99}, "it has category 99, which is not listed"),
        ({"area": "large"}, 'its "area" is large'),
    ],
)
def test_one_bad_annotation_is_said_before_the_model_is_loaded(detection, changes, message):
    run, instances, _ = detection
    instances["annotations"][1] |= changes
    with pytest.raises(DataError, match=message):
        run(instances)


@pytest.mark.parametrize("key", ["bbox", "image_id", "category_id"])
def test_annotations_without_a_key_are_said_before_the_model_is_loaded(detection, key):
    run, instances, _ = detection
    for annotation in instances["annotations"]:
        del annotation[key]
    with pytest.raises(DataError, match=f"annotation 1 .*{key}"):
        run(instances)


@pytest.mark.parametrize(
    "instances",
    [[], {}, {"images": [], "annotations": {}, "categories": []}, {"images": [5], "annotations": [], "categories": []}],
)
def test_what_is_no_instances_file_is_said(detection, instances):
    with pytest.raises(DataError, match="cannot be scored against"):
        detection[0](instances)


def test_ids_that_are_there_twice_in_an_instances_file_are_said(detection):
    run, instances, _ = detection
    for part in ("images", "categories"):
        with pytest.raises(DataError, match=r"same id|another image"):
            run({**instances, part: [*instances[part], {**instances[part][0], "name": "plate"}]})


def test_a_category_id_of_another_numbering_is_said(detection):
    run, instances, rows = detection
    with pytest.raises(DataError, match=r"row 0 of .* has cat_id 0, which is no category there"):
        run(instances, [{**row, "cat_id": row["cat_id"] - 1} for row in rows])
    named = [{**row, "text": "cup" if row["cat_id"] == 1 else "ball"} for row in rows]
    with pytest.raises(DataError, match="cat_id 2 for 'cup', which is category 1 there: the numbering is another"):
        run(instances, [{**row, "cat_id": 3 - row["cat_id"]} for row in named])


# --- the forms of data sets -------------------------------------------------------------------------------------------
def table(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": ["cups"], "count": [2], **columns}), path)
    return path


@pytest.mark.parametrize("kind", ["bytes", "list of bytes", "path", "list of paths", "struct", "list of structs"])
def test_images_of_tables_in_every_form_are_read(tmp_path, kind):
    data = stored(noise(W, H))
    (tmp_path / "a.png").write_bytes(data)
    struct = {"bytes": data, "path": None}
    value = {"bytes": data, "path": "a.png", "struct": struct}
    value |= {"list of bytes": [data], "list of paths": ["a.png"], "list of structs": [struct]}
    source = open_source(table(tmp_path / "test.parquet", images=[value[kind]]), image_columns=["images"])
    sample = Samples(SUITES["counting"].with_columns({"image": "images"}), source)[0]
    assert (sample.problem, sample.image, sample.size) == (None, data, (W, H))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "found None; expected an image: the bytes of its file, its path, or a list of one of these"),
        ("lost.png", "lost.png': there is no such file"),
        ([], "found []"),
        (["a.png", "b.png"], "found ['a.png', 'b.png']"),
        (b"", "expected an image"),
        ({"bytes": None, "path": None}, "expected an image"),
    ],
)
def test_images_of_tables_that_are_none_name_row_and_column(tmp_path, image, message):
    import pyarrow as pa

    kind = pa.string() if image is None else None
    path = table(tmp_path / "test.parquet", image=pa.array([image], kind))
    problem = Samples(SUITES["counting"], open_source(path))[0].problem or ""
    assert problem.startswith(f"row 0 of {path} cannot be used (column 'image': ")
    assert message in problem


def test_masks_of_tables_whose_rows_differ_in_length_name_row_and_column(tmp_path):
    path = table(tmp_path / "test.parquet", image=[b"x"], mask=[[[True, False], [True]]])
    problem = Samples(SUITES["segmentation"], open_source(path))[0].problem or ""
    assert "row 0 of " in problem
    assert "column 'mask': rows of 1 to 2 values are no mask" in problem


def test_a_pipe_or_a_device_is_no_data_set(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", "/dev/zero"):
        with pytest.raises(DataError, match="neither a file nor a folder"):
            open_source(path)
    with pytest.raises(DataError, match="is no data set that can be read"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="no such data set"):
        open_source("x" * 5000)


def test_a_file_that_is_too_large_for_json_is_refused_at_once(tmp_path):
    for name in ("test.jsonl", "instances.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MAX_JSON_BYTES + 1)
    start = time.monotonic()
    with pytest.raises(DataError, match="too many for JSON"):
        open_source(tmp_path / "test.jsonl")
    data = make_data(tmp_path / "data", "detection", 2)
    with pytest.raises(DataError, match="too many for JSON"):
        toy_run(data, "detection", tmp_path / "run", annotations=tmp_path / "instances.json")
    assert time.monotonic() - start < 5


# --- runs of others ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", [report.main, lambda folder: compare.main([*folder, *folder])])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (MANIFEST, {"n": 10**9}),
        (MANIFEST, {"suite": "nonsense"}),
        (MANIFEST, {"suite": ["counting"]}),
        (MANIFEST, {"checkpoint": {}}),
        (SAMPLES, {"truth": {"mask": {"size": [10**5, 10**5], "counts": "0"}}}),
        (SAMPLES, {"size": [10**5, 10**5], "truth": {"mask": {"size": [10**5, 10**5], "counts": "0"}}}),
        (SAMPLES, {"truth": {}}),
        (SAMPLES, {"truth": {"count": 10**400}}),
        (SAMPLES, {"truth": {"count": 2.7}}),
        (SAMPLES, {"status": "odd"}),
        (SAMPLES, {"instances": 3}),
        (SAMPLES, {"size": None}),
    ],
)
def test_a_damaged_or_foreign_run_is_one_line(tmp_path, capsys, command, name, changes):
    folder = write_run(tmp_path / "run", "counting", make_data(tmp_path / "data", "counting", 3))
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()] if name == SAMPLES else None
    if lines is None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))
    else:
        write_lines(folder / name, [{**lines[0], **changes}, *lines[1:]])
    assert command([str(folder)]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")


def test_a_foreign_instances_file_is_one_line(tmp_path, capsys):
    folder = write_run(tmp_path / "run", "detection", make_data(tmp_path / "data", "detection", 3))
    (folder / INSTANCES).write_text('{"images": [], "annotations": [{}], "categories": []}')
    assert report.main([str(folder)]) == 3
    assert "cannot be scored against" in capsys.readouterr().err


# --- figures ----------------------------------------------------------------------------------------------------------
def test_a_limited_run_has_no_upstream_average_precision_and_says_so(tmp_path, capsys):
    data = make_data(tmp_path / "data", "detection", 6)
    whole, part = (toy_run(data, "detection", tmp_path / f"run{limit}", limit=limit) for limit in (6, 3))

    def upstream(metrics):
        return [f for f in metrics["figures"] if f["name"].startswith("COCO") and f["protocol"] == "upstream"]

    assert upstream(whole)
    assert not upstream(part)
    assert report.main([str(tmp_path / "run3")]) == 0
    assert "COCO's upstream figures are left out" in capsys.readouterr().out
    assert compare.main([str(tmp_path / "run3"), str(tmp_path / "run3"), "--json"]) == 0
    assert not upstream(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("suite", "truth"),
    [
        ("detection", {"bbox": [], "cat_id": 1}),
        ("grounding", {"bbox": []}),
        ("counting", {"count": 0}),
        ("segmentation", {"mask": encode_mask(np.zeros(SIZE[::-1], dtype=bool))}),
    ],
)
def test_a_set_of_negatives_alone_shows_false_alarms_and_what_cannot_be_read_is_never_right(tmp_path, suite, truth):
    data = make_data(tmp_path / "data", "counting", 4)
    rows = [{**row, **truth, "image_id": str(i)} for i, row in enumerate(lines_of(data))]
    write_lines(data, rows)
    replies = ["<answer>[]</answer>", "I do not know.", objects((5, 5, 40, 40)), "<answer>[]</answer>"]
    metrics = toy_run(data, suite, tmp_path / "run", toy_model(lambda i: replies[i]))
    found = {(figure["name"], figure["protocol"]): figure["value"] for figure in metrics["figures"]}
    assert found["N-acc", "official"] == 0.5
    readable = "replies with a count" if suite == "counting" else "replies that could be read"
    assert found[readable, "official"] == 0.75
    if suite == "segmentation":
        assert found["gIoU", "official"] == 0.5


# --- any row ----------------------------------------------------------------------------------------------------------
NUMBERS = st.one_of(st.integers(), st.integers(-3, 70), st.floats(), st.sampled_from([10**400, 1e308, -0.0, 2.7]))
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=12), st.sampled_from(["a.png", "", "None", "3"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.one_of(st.sampled_from(["size", "counts", "bytes", "path", "answer"]), st.text(max_size=4)),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
NEAR = st.one_of(
    JSON,
    st.lists(NUMBERS, min_size=4, max_size=4),
    st.lists(st.lists(st.integers(-2, 62), min_size=4, max_size=4), max_size=3),
    st.fixed_dictionaries(
        {
            "size": st.one_of(st.just([H, W]), st.lists(st.integers(-1, 10**6), max_size=3)),
            "counts": st.one_of(st.text(max_size=20), st.text("01PQo`", max_size=9), st.lists(NUMBERS, max_size=5)),
        }
    ),
)
FIELDS = ("image", "text", "question", "mask", "ignore", "bbox", "point", "count", "answers", "cat_id", "image_id")
GOOD: dict[str, object] = {
    "image": "a.png",
    "text": "cup",
    "question": "what",
    "mask": encode_mask(OBJECT),
    "bbox": [5, 5, 25, 25],
}
GOOD |= {"count": 1, "answers": ["red"], "cat_id": 1, "image_id": 1}


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.dictionaries(st.sampled_from(FIELDS), NEAR), min_size=1, max_size=4))
@pytest.mark.parametrize("suite", ["segmentation", "segmenter", "detection", "grounding", "counting", "vqa"])
def test_any_row_gives_a_sample_or_an_error_of_its_row(tmp_path_factory, suite, rows):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    if not (folder / "a.png").exists():
        noise(W, H).save(folder / "a.png")
    write_lines(folder / "test.jsonl", [{**GOOD, **row} for row in rows])
    tracemalloc.start()
    try:
        samples = Samples(SUITES[suite], open_source(folder / "test.jsonl"))
        problems = samples.check(samples.source.n, quiet=True)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    for i in range(samples.source.n):
        sample = samples[i]
        assert sample.problem == problems.get(i)
        if sample.problem is None:
            assert sample.query.strip()
            json.dumps(sample.truth, allow_nan=False)
        else:
            assert f"row {i} of " in sample.problem
            assert "column '" in sample.problem, "no error but those of a field"
            assert len(sample.problem) < 1500
            assert len(sample.problem.splitlines()) == 1
