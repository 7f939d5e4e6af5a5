"""The report: from the folder alone, the same bytes each time, in time and memory, and a table to read."""

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import compare
from evaluation.report import main
from evaluation.runner.figures import table, write_report
from evaluation.runner.records import MANIFEST, METRICS, PAGE, SAMPLES
from tests.support.runs import make_data, right, write_run
from vision_reasoner.masks import encode_mask

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", "segmentation", make_data(tmp_path / "data", "segmentation"))


def test_figures_are_made_anew_without_model_or_data(folder, capsys):
    expected = write_report(folder)
    for name in (METRICS, PAGE):
        (folder / name).unlink()
    (folder.parent / "data" / "test.jsonl").unlink()
    assert main([str(folder)]) == 0
    assert json.loads((folder / METRICS).read_text()) == expected
    out = capsys.readouterr().out
    assert "segmentation on toys (test" in out
    assert (folder / PAGE).is_file()


@pytest.mark.parametrize("command", [main, lambda folder: compare.main([*folder, *folder])])
@pytest.mark.parametrize("counts", ["0", "", [], "b'0'"])
def test_damaged_run_lengths_of_a_record_end_in_one_line(folder, capsys, command, counts):
    lines = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    lines[3]["truth"]["mask"]["counts"] = counts
    (folder / SAMPLES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert command([str(folder)]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: sample {lines[3]['id']}: run lengths")
    assert error.count("\n") == 1


def test_the_order_of_lines_changes_no_byte(folder):
    write_report(folder)
    before = (folder / METRICS).read_bytes()
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES).write_bytes(b"".join(lines[::-1]))
    write_report(folder)
    assert (folder / METRICS).read_bytes() == before


def test_metrics_have_no_times_and_no_paths(folder, tmp_path):
    write_report(folder)
    text = (folder / METRICS).read_text()
    assert str(tmp_path) not in text
    assert "seconds" not in text
    assert "timings" not in text


def test_everything_that_must_be_stated_is(folder):
    metrics = write_report(folder)
    shown = table(metrics)
    for fact in (
        metrics["data"]["fingerprint"][:12],
        metrics["checkpoint"]["reasoner"]["digest"][:12],
        *(
            "10 of 10 samples",
            "0 errors",
            "8 ok",
            "2 none",
            "score intervals, by the jackknife where no share",
            "official",
            "upstream",
        ),
        *("gIoU", "cIoU", "N-acc", "T-acc"),
    ):
        assert fact in shown
    assert "upstream" not in table(metrics, "official")
    assert "N-acc" not in table(metrics, "upstream")


def test_published_figures_stand_in_the_table(tmp_path):
    data = make_data(tmp_path / "data", "counting")
    folder = write_run(tmp_path / "run", "counting", data)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["data"]["name"] = "counting_countbench"
    manifest["places"]["data"] = "Ricky06662/counting_countbench"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    metrics = write_report(folder)
    (line,) = [line for line in table(metrics).splitlines() if line.startswith("accuracy")]
    assert line.endswith("Qwen2.5-VL-7B 78.8; VisionReasoner-7B 89.2")


@pytest.mark.parametrize("damage", ["missing", "twice", "nothing"])
def test_what_is_not_a_finished_run_is_refused_with_one_line(folder, capsys, damage):
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    if damage == "nothing":
        (folder / MANIFEST).unlink()
    else:
        (folder / SAMPLES).write_bytes(b"".join(lines[:-1] if damage == "missing" else [*lines, lines[0]]))
    assert main([str(folder)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not (folder / METRICS).exists()


def test_a_run_in_which_all_failed_has_no_figures(tmp_path):
    data = make_data(tmp_path / "data", "detection", 3)
    metrics = write_report(write_run(tmp_path / "run", "detection", data, lambda _: ValueError("odd")))
    assert (metrics["errors"], metrics["figures"]) == (3, [])
    assert "3 errors; replies: none" in table(metrics)


@pytest.mark.slow
def test_five_thousand_masks_are_scored_in_seconds_and_little_memory(tmp_path):
    folder = write_run(tmp_path / "run", "segmentation", make_data(tmp_path / "data", "segmentation", 2))
    record = json.loads((folder / SAMPLES).read_text().splitlines()[0])
    y, x = np.mgrid[:480, :640]
    blobs = [encode_mask(np.hypot(x - 300 - 9 * k, y - 240) + 9 * np.sin(x / 3 + k) < 120) for k in range(40)]
    with (folder / SAMPLES).open("w") as lines:
        for i in range(5000):
            instances = [
                {"box": [9, 9, 99, 99], "point": None, "mask": blobs[(i + k) % 40], "score": 1.0, "likelihood": None}
                for k in range(3)
            ]
            line = {**record, "index": i, "id": str(i), "image_id": str(i // 2), "size": [640, 480]}
            lines.write(json.dumps({**line, "instances": instances, "truth": {"mask": blobs[i % 7]}}) + "\n")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "n": 5000}))
    code = (
        "from pathlib import Path; from evaluation.runner.figures import compute_metrics\n"
        "from tests.conftest import peak_memory\n"
        f"compute_metrics(Path({str(folder)!r})); print(peak_memory())"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = min(time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert seconds < 30
    assert int(result.stdout) < 1e9


def test_notes_say_how_boxes_are_ranked_and_what_cannot_go_wrong(tmp_path):
    def sure(sample):
        return right(sample, instances=[replace(one, votes=(2, 2), confidence=0.9) for one in right(sample).instances])

    data = make_data(tmp_path / "data", "detection")
    said = [
        write_report(write_run(tmp_path / name, "detection", data, answer))["notes"]
        for name, answer in (("one", right), ("two", sure))
    ]
    assert [notes[0] for notes in said] == [
        "COCO, official: boxes are ranked by the likelihood of their tokens",
        "COCO, official: boxes are ranked by confidence",
    ]
    assert "no false alarm on an absent category" in said[0][1]
    assert "no false alarm" not in table(write_report(tmp_path / "one")).splitlines()[0]
    assert said[0][0] in table(write_report(tmp_path / "one"))


def test_notes_say_which_box_accuracy_and_what_a_set_does_not_mark(tmp_path):
    data = make_data(tmp_path / "data", "segmentation")
    lines = [json.loads(line) | {"bbox": None} for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = write_run(tmp_path / "run", "segmentation", data)
    assert write_report(folder)["notes"] == []
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["data"]["name"] = "ReasonSeg_val"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert write_report(folder)["notes"] == [
        "The set does not mark the pixels to be ignored: they count as its masks have them"
    ]
