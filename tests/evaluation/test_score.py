"""Replies that were made elsewhere: scored as those of a run, and never one that is not known to be of its sample."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evaluation.compare import main as compare
from evaluation.report import main as report
from evaluation.runner.records import METRICS, SAMPLES
from evaluation.score import main
from tests.support.runs import make_data, write_run
from tests.support.toys import objects, toy_model, toy_run
from vision_reasoner.masks import decode_mask, encode_mask

SUITES = ("segmentation", "detection", "counting", "vqa")


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def figures(folder):
    found = json.loads((folder / METRICS).read_text())["figures"]
    return {(one["name"], one["protocol"]): one["value"] for one in found}


@pytest.fixture
def score(tmp_path, capsys):
    """Scores replies; gives exit code, folder and what was said."""

    def run(suite, data, *flags, replies=None):
        folder = tmp_path / "scored"
        given = [] if replies is None else ["--replies", str(replies)]
        code = main(["--suite", suite, str(data), "--output_path", str(folder), "-q", *given, *map(str, flags)])
        return code, folder, capsys.readouterr().err

    return run


# --- rows with ids ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suite", SUITES)
def test_the_replies_of_a_run_give_its_figures(tmp_path, score, suite):
    data = make_data(tmp_path / "data", suite)
    toy_run(data, suite, tmp_path / "run")
    rows = lines(tmp_path / "run" / SAMPLES)
    if suite == "vqa":
        rows = [{"id": row["id"], "reply": row["reply"]} for row in rows]
    code, folder, _ = score(suite, data, replies=write(tmp_path / "replies.jsonl", rows[::-1]))
    assert code == 0
    assert figures(folder) == figures(tmp_path / "run")
    assert report([str(folder)]) == 0
    assert compare([str(folder), str(tmp_path / "run")]) == 0


def test_raw_replies_are_read_as_a_model_s(tmp_path, score):
    data = make_data(tmp_path / "data", "counting")
    model = toy_model()
    toy_run(data, "counting", tmp_path / "run", model)
    rows = [{"id": row["id"], "reply": row["reply"], "else": 1} for row in lines(tmp_path / "run" / SAMPLES)]
    _, folder, _ = score("counting", data, replies=write(tmp_path / "r.jsonl", rows))
    first, second = (
        {
            row["id"]: {key: row.get(key) for key in ("instances", "status", "thinking", "truth")}
            for row in lines(run / SAMPLES)
        }
        for run in (tmp_path / "run", folder)
    )
    cut = {"partial", "truncated"}  # whether the token limit cut a reply off, a reply does not say
    assert {name for name in first if first[name] != second[name]} <= {
        name for name in first if first[name]["status"] in cut
    }


def test_masks_are_scored_where_rows_have_them_and_refused_where_they_do_not(tmp_path, score):
    data = make_data(tmp_path / "data", "segmentation", 4)
    truth = [row["mask"] for row in lines(data)]
    reply = objects((0, 0, 60, 60))
    ids = ["p0/1", "p0/2", "p2/1", "p3/1"]
    rows = [{"id": name, "reply": reply, "masks": [mask]} for name, mask in zip(ids, truth, strict=True)]
    code, folder, _ = score("segmentation", data, replies=write(tmp_path / "r.jsonl", rows))
    assert (code, figures(folder)["gIoU", "official"]) == (0, 1.0)
    bare = write(tmp_path / "bare.jsonl", [{"id": name, "reply": reply} for name in ids])
    code, _, said = score("segmentation", data, "--overwrite", replies=bare)
    assert code == 2
    assert "4 of 4 replies have boxes without masks" in said
    assert "--suite grounding" in said
    one_of_two = {"id": "p0/1", "reply": objects((0, 0, 60, 60), (0, 0, 9, 9)), "masks": [truth[0], None]}
    code, _, said = score("segmentation", data, "--overwrite", replies=write(tmp_path / "half.jsonl", [one_of_two]))
    assert code == 2
    assert "1 of 1 replies have boxes without masks" in said
    rows[1]["masks"] = []
    rows[2]["masks"] = [encode_mask(decode_mask(truth[0])[:-1])]
    code, folder, _ = score("segmentation", data, "--overwrite", replies=write(tmp_path / "bad.jsonl", rows))
    assert code == 7
    errors = [row["error"] for row in sorted(lines(folder / SAMPLES), key=lambda row: row["index"])]
    assert errors[0] is errors[3] is None
    assert "0 masks for the 1 objects" in errors[1]
    assert "mask must have shape" in errors[2]


def test_a_segmenter_makes_masks_if_it_is_named(tmp_path, score, bundle):
    data = make_data(tmp_path / "data", "segmentation", 3)
    rows = [{"id": name, "reply": objects((0, 0, 60, 60))} for name in ("p0/1", "p0/2", "p2/1")]
    flags = ("--segmentation_model_path", bundle / "segmenter", "--device", "cpu")
    code, folder, _ = score("segmentation", data, *flags, replies=write(tmp_path / "r.jsonl", rows))
    assert code == 0
    assert all(one["mask"] for row in lines(folder / SAMPLES) for one in row["instances"])
    assert "segmenter" in json.loads((folder / "manifest.json").read_text())["checkpoint"]


def test_counts_boxes_and_answers_need_no_reply(tmp_path, score):
    data = make_data(tmp_path / "counts", "counting", 4)
    rows = [
        {"id": f"{image}/{n}", "count": i % 4}
        for i, (image, n) in enumerate([("p0", 1), ("p0", 2), ("p2", 1), ("p3", 1)])
    ]
    _, folder, _ = score("counting", data, replies=write(tmp_path / "r.jsonl", rows))
    assert figures(folder)["accuracy", "official"] == 1
    data = make_data(tmp_path / "boxes", "detection", 4)
    boxes = [row["bbox"][0] for row in lines(data)]
    rows = [
        {"id": row["id"], "instances": [{"box": [v + 0.4 for v in box], "likelihood": -1.5}]}
        for row, box in zip(rows, boxes, strict=True)
    ]
    code, folder, _ = score("detection", data, "--overwrite", replies=write(tmp_path / "r.jsonl", rows))
    assert code == 0
    assert figures(folder)["COCO AP", "official"] == figures(folder)["F1 at IoU 0.5", "official"] == 1
    data = make_data(tmp_path / "answers", "vqa", 4)
    rows = [{"image_id": f"q{i}", "answer": f"answer {i}"} for i in range(4)]
    named = [row | {"q": f"q{i}", "z": f"q{3 - i}"} for i, row in enumerate(lines(data))]
    write(data, named)
    submission = tmp_path / "submission.json"
    submission.write_text(
        json.dumps([{"q": row["image_id"], "z": row["image_id"], "answer": row["answer"]} for row in rows])
    )
    code, folder, _ = score("vqa", data, "--overwrite", "--id_column", "q", replies=submission)
    assert (code, figures(folder)["exact match", "official"]) == (0, 1)
    assert all(row["query"].endswith("of them") for row in lines(folder / SAMPLES)), "no instruction of ours"
    code, _, said = score("vqa", data, "--id_column", "z", replies=submission)
    assert code == 2, "found by another column, they are other replies"
    assert "settings.id_column was q and is z" in said


@pytest.mark.parametrize("likelihood", ["-Infinity", "NaN", "800", "1e400", '"-1"', "true"])
def test_a_likelihood_that_is_none_is_an_error_of_its_sample(tmp_path, score, likelihood):
    data = make_data(tmp_path / "data", "detection", 2)
    instance = f'{{"box": [0, 0, 9, 9], "likelihood": {likelihood}}}'
    replies = tmp_path / "r.jsonl"
    replies.write_text(f'{{"id": "p0/1", "instances": [{instance}]}}\n{{"id": "p0/2", "instances": []}}\n')
    code, folder, _ = score("detection", data, "--max_errors", "1", replies=replies)
    assert code == 0
    first, second = sorted(lines(folder / SAMPLES), key=lambda row: row["index"])
    assert "a likelihood is" in first["error"]
    assert second["error"] is None


@pytest.mark.parametrize(
    ("model", "frame", "box"),
    [("qwen2", None, 1000), ("vision_reasoner", None, 840), ("vision_reasoner", [96, 64], 64)],
)
def test_coordinates_are_in_the_model_s_frame_or_the_row_s(tmp_path, score, model, frame, box):
    data = make_data(tmp_path / "data", "detection", 2)
    name = "bbox_2d" if model == "vision_reasoner" else "bbox"
    inner = f'[{{"{name}": [0, 0, {box}, {box}]}}]'
    reply = f"<answer>{inner}</answer>" if model == "vision_reasoner" else f"```json\n{inner}\n```"
    rows = [{"id": f"p0/{i}", "reply": reply} | ({"frame": frame} if frame else {}) for i in (1, 2)]
    code, folder, _ = score("detection", data, "--model", model, replies=write(tmp_path / "r.jsonl", rows))
    assert code == 0
    expected = [0, 0, 64, 64] if frame else [0, 0, 96, 64]
    assert [row["instances"][0]["box"] for row in lines(folder / SAMPLES)] == [expected] * 2


def test_a_sample_without_a_reply_counts_as_failed_and_is_said(tmp_path, capsys):
    data = make_data(tmp_path / "data", "vqa", 5)
    replies = write(
        tmp_path / "r.jsonl", [{"id": "p2/1", "reply": "answer 2"}, {"id": "p0/1", "error": "out of memory"}]
    )
    arguments = ["--suite", "vqa", str(data), "--replies", str(replies), "--output_path", str(tmp_path / "run")]
    assert main(arguments) == 7
    said = capsys.readouterr().err
    assert "3 of 5 samples have no reply and count as failed (first: p0/2)" in said
    assert said.count("no reply") == 1
    assert "4 samples failed" in said
    assert figures(tmp_path / "run")["exact match", "official"] == 1
    assert main([*arguments, "--max_errors", "4"]) == 0
    write(replies, [{"id": f"p{i}/1", "reply": "x"} for i in (0, 2, 3, 4)])
    assert main(arguments) == 2, "other replies are another run"
    assert "checkpoint.reasoner.replies was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suite", "rows", "code", "message"),
    [
        ("vqa", 2 * [{"id": "p2/1", "reply": "a"}], 3, "line 2: a second reply with the id 'p2/1'"),
        ("vqa", [{"id": "p9/1", "reply": "a"}], 3, "1 ids are none of .*'p9/1'.* like 'p0/1'"),
        ("vqa", [{"reply": "a"}], 3, 'line 1: has no "id"'),
        ("vqa", [{"id": 1.5, "reply": "a"}], 3, 'line 1: has no "id"'),
        ("vqa", [{"id": "p2/1"}], 3, 'has no "reply" or "answer"'),
        ("vqa", [{"id": "p2/1", "query": "find the cat", "reply": "a"}], 3, "this reply is to 'find the cat'"),
        ("vqa", [{"id": "p2/1", "count": 3}], 3, 'has no "reply" or "answer"'),
        ("counting", [{"id": "p2/1", "count": -1}], 3, "found -1; expected a whole number"),
        ("counting", [{"id": "p2/1", "answer": "3"}], 3, 'has no "reply", "instances" or "count"'),
        ("detection", [{"id": "p2/1", "reply": "a", "frame": [0, 5]}], 3, '"frame" is'),
        ("detection", [{"id": "p2/1", "instances": [], "status": "well"}], 3, '"status" is'),
        ("segmentation", [{"id": "p2/1", "reply": "a", "masks": "m"}], 3, '"masks" are no list'),
        ("vqa", [], 3, "holds no replies"),
        ("vqa", [["p2/1", "a"]], 3, "line 1: is no JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_one_line(tmp_path, score, suite, rows, code, message):
    data = make_data(tmp_path / "data", suite, 3)
    given, folder, said = score(suite, data, replies=write(tmp_path / "r.jsonl", rows))
    assert given == code
    (line,) = said.splitlines()
    assert re.search(f"^error: .*{message}", line)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--replies", "missing.jsonl"], 3, "cannot be read"),
        (["--replies", "{folder}"], 3, "is a folder without output_"),
        (["--replies", "{data}", "--id_column", "name"], 2, "there is no such column"),
        (["--replies", "{data}", "--id_column", "question"], 3, 'has no "reply"'),
        (["--replies", "{data}", "--frame_side", "0"], 2, "at least 1"),
        (["--replies", "{data}", "--by", "kind"], 2, "no such column"),
    ],
)
def test_misuse_is_one_line(tmp_path, score, flags, code, message):
    data = make_data(tmp_path / "data", "vqa", 3)
    given, _, said = score("vqa", data, *(flag.format(data=data, folder=data.parent) for flag in flags))
    assert given == code
    (line,) = said.splitlines()
    assert line.startswith("error: ")
    assert message in line


# --- lmms-eval's logs -------------------------------------------------------------------------------------------------
def log_of(data, says):
    return [
        {
            "doc_id": i,
            "target": "['x']",
            "filtered_resps": [says(i)],
            "input": f"{row['question'].upper()}\nAnswer shortly.",
        }
        for i, row in enumerate(lines(data))
    ]


def test_a_sample_log_of_lmms_eval_is_scored(tmp_path, score):
    data = make_data(tmp_path / "data", "vqa", 6)
    rows = log_of(data, lambda i: f"answer {i}" if i else "no")
    rows[2] = {"doc_id": 2, "resps": [["answer 2"]], "target": "x"}
    code, folder, _ = score("vqa", data, replies=write(tmp_path / "1_samples_toys.jsonl", rows[::-1]))
    assert (code, figures(folder)["exact match", "official"]) == (0, pytest.approx(5 / 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doc_id": 3}, "a second reply to doc_id 3"),
        ({"doc_id": 6}, "doc_id 6 is none of the 6 rows"),
        ({"doc_id": "5"}, "doc_id 5 is none of the 6 rows"),
        ({"filtered_resps": ["a", "b"]}, "has 2 replies"),
        ({"filtered_resps": [[0.1, False]]}, "has 2 replies"),
        ({"filtered_resps": None}, "has no reply"),
        ({"input": "What is this?"}, "another data set"),
    ],
)
def test_a_log_of_something_else_is_refused(tmp_path, score, change, message):
    data = make_data(tmp_path / "data", "vqa", 6)
    rows = log_of(data, str)
    rows[5] |= change
    code, _, said = score("vqa", data, replies=write(tmp_path / "r.jsonl", rows))
    assert code == 3
    assert message in said


# --- the original's output_*.json -------------------------------------------------------------------------------------
def shards(folder, rows, size=4):
    """What the original leaves: a file for each process."""
    folder.mkdir()
    for k, start in enumerate(range(0, len(rows), size)):
        (folder / f"output_{k}.json").write_text(json.dumps(rows[start : start + size]))
    return folder


def upstream_rows(data, run, suite):
    """What the original would have measured of a run's records."""
    rows = []
    for record, row in zip(sorted(lines(run / SAMPLES), key=lambda one: one["index"]), lines(data), strict=True):
        common = {"image_id": row["image_id"], "ann_id": row["ann_id"], "think": record["thinking"]}
        found = record["instances"]
        if suite == "counting":
            rows.append(common | {"pred_count": len(found), "gt_count": row["count"]})
        elif suite == "detection":
            rows += [common | {"category_id": row["cat_id"], "bbox": one["box"], "score": 0.1} for one in found]
        else:
            true = decode_mask(row["mask"])
            mask = np.logical_or.reduce([decode_mask(one["mask"]) for one in found] or [np.zeros_like(true)])
            inside, union = int((mask & true).sum()), int((mask | true).sum())
            rows.append(common | {"intersection": inside, "union": union, "bbox_iou": 0.0})
    return rows


@pytest.mark.parametrize("suite", ["segmentation", "detection", "counting"])
def test_the_original_s_files_give_the_upstream_figures(tmp_path, score, suite):
    data = make_data(tmp_path / "data", suite, 30)
    toy_run(data, suite, tmp_path / "run")
    folder = shards(tmp_path / "old", upstream_rows(data, tmp_path / "run", suite), 3)
    code, scored, _ = score(suite, data, replies=folder)
    assert code == 0
    expected = {key: value for key, value in figures(tmp_path / "run").items() if key[1] == "upstream"}
    found = figures(scored)
    assert {key: value for key, value in found.items() if key[1] == "upstream"} == expected
    assert len(expected) >= 2
    if suite != "detection":
        assert {protocol for _, protocol in found} == {"upstream"}, "nothing that was not measured"
    assert compare([str(scored), str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("suite", "change", "code", "message"),
    [
        ("counting", lambda rows: rows[2].update(gt_count=7), 7, "1 samples failed"),
        ("segmentation", lambda rows: rows[2].update(intersection=9999), 7, "1 samples failed"),
        ("counting", lambda rows: rows.append(rows[3]), 3, "a second entry of p3/1"),
        ("counting", lambda rows: rows[3].update(image_id="x"), 3, "x/1, are of no row"),
        ("counting", lambda rows: rows[3].pop("ann_id"), 3, "not of a counting set, or is damaged"),
        ("counting", lambda rows: rows.pop(), 7, "1 samples failed"),
        ("detection", lambda rows: rows[1].update(category_id=7), 3, "asks for category 7"),
        ("detection", lambda rows: rows.append(rows[0]), 3, "stand in two places"),
        ("vqa", lambda _: None, 3, "is not of a vqa set"),
    ],
)
def test_files_that_are_stale_or_of_another_set_are_refused(tmp_path, score, suite, change, code, message):
    data = make_data(tmp_path / "data", suite, 6)
    if suite == "vqa":
        rows = [{"image_id": "p0", "ann_id": "1", "think": "", "pred_count": 1, "gt_count": 1}]
    else:
        rows = upstream_rows(data, write_run(tmp_path / "run", suite, data), suite)
    change(rows)
    given, _, said = score(suite, data, replies=shards(tmp_path / "old", rows))
    assert given == code
    assert message in said


def test_a_folder_that_lacks_a_part_is_refused(tmp_path, score):
    data = make_data(tmp_path / "data", "detection", 12)
    folder = shards(tmp_path / "old", upstream_rows(data, write_run(tmp_path / "run", "detection", data), "detection"))
    (folder / "output_1.json").unlink()
    code, _, said = score("detection", data, replies=folder)
    assert code == 3
    assert "output_1.json is missing" in said


def test_rows_that_share_an_id_are_told_apart_by_their_order_or_not_at_all(tmp_path, score):
    data = make_data(tmp_path / "data", "counting", 6)
    write(data, [row | {"image_id": "p", "ann_id": str(i // 3)} for i, row in enumerate(lines(data))])
    rows = upstream_rows(data, write_run(tmp_path / "run", "counting", data), "counting")
    assert score("counting", data, replies=shards(tmp_path / "old", rows))[0] == 0
    code, folder, _ = score("counting", data, "--overwrite", replies=shards(tmp_path / "less", rows[:5]))
    assert code == 7
    assert [row["index"] for row in lines(folder / SAMPLES) if row["error"]] == [3, 4, 5]


def test_replies_are_of_what_is_said(tmp_path, score):
    data = make_data(tmp_path / "data", "vqa", 2)
    replies = write(tmp_path / "r.jsonl", [{"id": f"p0/{i}", "reply": "a"} for i in (1, 2)])
    _, folder, _ = score("vqa", data, "--name", "my-model", replies=replies)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["checkpoint"]["reasoner"]["name"] == "my-model"
    assert len(manifest["checkpoint"]["reasoner"]["replies"]) == 64
    assert "device" not in manifest["settings"]
    assert Path(manifest["places"]["data"]) == data
