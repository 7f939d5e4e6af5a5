"""The runner: what is asked in which batches, what is recorded, and that no interruption shows in the figures."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from evaluation.compare import main as compare
from evaluation.merge import main as merge
from evaluation.report import main as report
from evaluation.run import main
from evaluation.runner.evaluate import plan
from evaluation.runner.records import METRICS, PAGE, SAMPLES
from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from tests.conftest import largest_file, noise
from tests.support.runs import make_data
from tests.support.toys import FRAME, Knows, objects, toy_model, toy_run, various
from vision_reasoner import Task, VisionReasoner
from vision_reasoner.data.sources import open_source
from vision_reasoner.errors import CheckpointError, UsageError, VisionReasonerError
from vision_reasoner.files import parse_jsonl_line
from vision_reasoner.models.reasoner import Reply

ROOT = Path(__file__).resolve().parents[2]
ALL = ("segmentation", "detection", "counting", "vqa")


@pytest.fixture
def data(tmp_path):
    """Ten rows to count in."""
    return make_data(tmp_path / "data", "counting")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def records(folder):
    lines = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    found = {record["index"]: record for record in lines}
    assert len(found) == len(lines), "one line for each sample"
    return [found[i] for i in sorted(found)]


def figure(metrics, name, protocol="official"):
    (found,) = [f for f in metrics["figures"] if (f["name"], f["protocol"]) == (name, protocol)]
    return found


# --- what is asked ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suite", ALL)
def test_every_sample_is_asked_once_in_batches_with_the_suite_s_task(tmp_path, folder, suite):
    model = toy_model()
    metrics = toy_run(make_data(tmp_path / "data", suite), suite, folder, model)
    asked = model.reasoner.batches
    assert sorted(itertools.chain(*asked)) == list(range(10))
    assert [len(batch) for batch in asked] == [3, 3, 3, 1]
    assert {record["task"] for record in records(folder)} == {SUITES[suite].task}
    assert (metrics["n"], metrics["errors"]) == (10, 0)
    assert sum(metrics["status"].values()) == 10
    assert (folder / PAGE).is_file()


def test_long_requests_go_first_and_together(tmp_path):
    texts = ["x" * (1 + 5 * i % 7) for i in range(7)]
    rows = [{"image": "a.png", "text": text, "count": 1} for text in texts]
    noise(20, 20).save(tmp_path / "a.png")
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    batches = plan(Samples(SUITES["counting"], open_source(tmp_path)), 7, 3)
    assert [[len(texts[i]) for i in batch] for batch in batches] == [[7, 6, 5], [4, 3, 2], [1]]


def test_questions_go_by_the_size_of_their_pictures(tmp_path):
    sizes = [(40, 30), (200, 100), (20, 20), (100, 90)]
    for i, size in enumerate(sizes):
        noise(*size).save(tmp_path / f"{i}.png")
    rows = [{"image": f"{i}.png", "question": "what?" + "x" * i, "answers": ["a"]} for i in range(4)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert plan(Samples(SUITES["vqa"], open_source(tmp_path)), 4, 2) == [[1, 3], [0, 2]]


def test_limit_takes_the_first_samples(data, folder):
    metrics = toy_run(data, "counting", folder, limit=4)
    assert [record["index"] for record in records(folder)] == [0, 1, 2, 3]
    assert (metrics["n"], figure(metrics, "accuracy")["n"]) == (4, 4)


# --- failures ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "error", [VisionReasonerError("out of memory with a single request"), RuntimeError("a kernel failed"), KeyError(3)]
)
def test_what_fails_is_an_error_and_costs_no_other_sample_and_no_figure(data, folder, error):
    model = toy_model(lambda i: error if i == 4 else objects(*[(0, k, 9, k + 9) for k in range(i % 4)]))
    metrics = toy_run(data, "counting", folder, model)
    found = records(folder)
    assert [record["index"] for record in found if record["error"]] == [4]
    assert type(error).__name__ in found[4]["error"] or str(error) == found[4]["error"]
    assert "instances" not in found[4], "never scored"
    assert metrics["errors"] == 1
    assert (figure(metrics, "accuracy")["value"], figure(metrics, "accuracy")["n"]) == (1.0, 9)


def test_failed_samples_are_tried_again_and_their_batch_is_asked_in_the_same_company(data, folder):
    toy_run(data, "counting", folder, toy_model(lambda i: RuntimeError("busy") if i == 4 else various(i)))
    second = toy_model()
    metrics = toy_run(data, "counting", folder, second)
    assert metrics["errors"] == 0
    assert second.reasoner.batches == [[3, 4, 5]]
    assert len(records(folder)) == 10
    assert metrics == toy_run(data, "counting", folder.with_name("other"))


@pytest.mark.parametrize("error", [CheckpointError("torn"), RuntimeError("no kernel image")])
def test_what_meets_every_sample_ends_the_run_and_is_no_result(data, folder, error):
    with pytest.raises(type(error)):
        toy_run(data, "counting", folder, toy_model(lambda _: error))
    assert (folder / SAMPLES).read_bytes() == b""
    assert not (folder / METRICS).exists()


def test_a_damaged_picture_is_an_error_of_its_own_sample(data, folder):
    (data.parent / "7.png").write_bytes((data.parent / "7.png").read_bytes()[:60])
    (data.parent / "8.png").unlink()
    assert toy_run(data, "counting", folder)["errors"] == 2
    errors = {record["index"]: record["error"] for record in records(folder) if record["error"]}
    assert "damaged" in errors[7]
    assert "no such file" in errors[8]


def test_a_row_that_cannot_be_used_is_an_error_of_its_own(tmp_path, folder):
    data = make_data(tmp_path / "data", "counting", 5)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[1]["count"] = "many"
    rows[2]["text"] = " "
    del rows[3]["count"]
    data.write_text("\n".join(map(json.dumps, rows)))
    model = toy_model()
    assert toy_run(data, "counting", folder, model)["errors"] == 3
    assert sorted(itertools.chain(*model.reasoner.batches)) == [0, 4]
    assert "row 1" in records(folder)[1]["error"]


@pytest.mark.parametrize("line", ['{"text": "cut', "[1, 2]", "null", "x" * 9, "[" * 100_000])
@pytest.mark.parametrize("suite", ["counting", "vqa"])
def test_a_line_that_is_no_object_is_an_error_of_its_row_and_costs_no_other(tmp_path, folder, suite, line):
    data = make_data(tmp_path / "data", suite, 5)
    rows = data.read_text().splitlines()
    rows[3] = line
    data.write_text("\n".join(rows))
    model = toy_model()
    assert toy_run(data, suite, folder, model)["errors"] == 1
    assert sorted(itertools.chain(*model.reasoner.batches)) == [0, 1, 2, 4]
    assert "line 4 is no JSON object" in records(folder)[3]["error"]


@pytest.mark.parametrize("counts", ["0", "", [96 * 64 - 1], "b'0'"])
def test_run_lengths_that_do_not_add_up_are_an_error_of_their_row_before_it_is_asked(tmp_path, folder, counts):
    data = make_data(tmp_path / "data", "segmentation", 4)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[2]["mask"]["counts"] = counts
    data.write_text("\n".join(map(json.dumps, rows)))
    model = toy_model()
    assert toy_run(data, "segmentation", folder, model)["errors"] == 1
    assert 2 not in itertools.chain(*model.reasoner.batches)
    assert "row 2" in records(folder)[2]["error"]
    assert "run lengths" in records(folder)[2]["error"]


def test_a_mask_of_another_shape_than_its_picture_is_said_and_not_scored(tmp_path, folder):
    data = make_data(tmp_path / "data", "segmentation", 4)
    from PIL import Image

    with Image.open(data.parent / "2.png") as picture:
        exif = Image.Exif()
        exif[274] = 6  # turned by a quarter
        picture.convert("RGB").save(data.parent / "2.png", exif=exif)
    assert toy_run(data, "segmentation", folder)["errors"] == 1
    assert "mask is 96x64 and its image 64x96 (turned by its EXIF orientation?)" in records(folder)[2]["error"]


# --- replies ----------------------------------------------------------------------------------------------------------
def test_boxes_without_points_have_masks_that_count(tmp_path, folder):
    data = make_data(tmp_path / "data", "segmentation", 3)
    truth = [json.loads(line)["mask"] for line in data.read_text().splitlines()]
    from pycocotools import mask as coco_mask

    boxes = [coco_mask.toBbox(one) for one in truth]
    reply = [objects((int(x), int(y), int(x + w), int(y + h)), point=False) for x, y, w, h in boxes]
    metrics = toy_run(data, "segmentation", folder, toy_model(lambda i: reply[i]))
    assert figure(metrics, "gIoU")["value"] > 0.7
    assert figure(metrics, "gIoU")["value"] == figure(metrics, "gIoU", "upstream")["value"]


def test_one_broken_or_pointless_object_costs_no_other(data, folder):
    other = '{"bbox_2d": [5, 5, 99, 99], "point_2d": [9, 9]}'
    good, pointless = '{"bbox_2d": [0, 0, 90, 90], "point_2d": [9, 9]}', '{"bbox_2d": [90, 90, 200, 200]}'
    reply = f'<think>if a < b</think><answer>[{good}, {pointless}, {{"bbox_2d": [1, 2]}}, {other}]</answer>'
    toy_run(data, "counting", folder, toy_model(lambda _: reply), limit=1)
    (record,) = records(folder)
    assert (len(record["instances"]), record["status"], record["thinking"]) == (3, "partial", "if a < b")


def test_a_reply_that_was_cut_off_counts_what_was_complete(data, folder):
    cut = Reply(objects((0, 0, 9, 9), (9, 9, 20, 20), (30, 30, 40, 40))[:-40], FRAME, finished=False)
    metrics = toy_run(data, "counting", folder, toy_model(lambda _: cut), limit=3)
    assert metrics["status"]["truncated"] == 3
    assert {len(record["instances"]) for record in records(folder)} == {2}


def test_parse_failures_are_told_apart_from_none_and_are_official_never_right(data, folder):
    metrics = toy_run(data, "counting", folder, toy_model(lambda i: "well" if i < 8 else objects()), limit=9)
    assert (metrics["status"]["no_answer"], metrics["status"]["none"]) == (8, 1)
    right = {i for i in range(9) if i % 4 == 0}  # the truth is i % 4
    assert figure(metrics, "accuracy", "upstream")["value"] == pytest.approx(len(right) / 9)
    assert figure(metrics, "accuracy")["value"] == pytest.approx(1 / 9)


def test_a_counting_request_is_counted_whatever_it_sounds_like_and_no_router_is_asked(tmp_path, folder):
    data = make_data(tmp_path / "data", "counting", 2)
    rows = [
        json.loads(line) | {"text": f"segment {i} and edit 3"} for i, line in enumerate(data.read_text().splitlines())
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    toy_run(data, "counting", folder)
    assert {record["task"] for record in records(folder)} == {Task.COUNTING}


def test_a_question_reaches_the_model_as_it_is_with_the_suite_s_instruction(tmp_path, folder):
    data = make_data(tmp_path / "data", "vqa", 2)
    rows = [
        json.loads(line) | {"question": f"What is No. {i} CALLED?"}
        for i, line in enumerate(data.read_text().splitlines())
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    model = toy_model(lambda i: f"answer {i}")
    metrics = toy_run(data, "vqa", folder, model)
    assert sorted(model.reasoner.queries) == ["What is No. 0 CALLED?", "What is No. 1 CALLED?"]
    assert figure(metrics, "exact match")["value"] == 1.0
    other = toy_model()
    toy_run(data, "docvqa", folder.with_name("doc"), other)
    assert all(
        query.endswith("CALLED?\nAnswer the question using a single word or phrase.")
        for query in other.reasoner.queries
    )


# --- interruptions ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suite", ALL)
def test_wherever_a_run_is_cut_its_figures_are_those_of_one_that_was_not(tmp_path, folder, suite):
    data = make_data(tmp_path / "data", suite)
    toy_run(data, suite, tmp_path / "whole")
    whole, expected = (tmp_path / "whole" / SAMPLES).read_bytes(), (tmp_path / "whole" / METRICS).read_bytes()
    toy_run(data, suite, folder)
    for cut in random.Random(0).sample(range(len(whole)), 6):
        (folder / SAMPLES).write_bytes(whole[:cut])
        (folder / METRICS).unlink()
        model = toy_model()
        toy_run(data, suite, folder, model)
        assert (folder / METRICS).read_bytes() == expected
        kept = sum(parse_jsonl_line(line) is not None for line in whole[:cut].splitlines())
        assert len(model.reasoner.batches) == 4 - kept // 3 - (kept == 10), "only what is missing is done"
        assert len(records(folder)) == 10


def test_a_finished_run_needs_no_model_and_only_reports(data, folder):
    toy_run(data, "counting", folder)
    before = {name: (folder / name).read_bytes() for name in (SAMPLES, METRICS)}
    model = toy_model(lambda _: CheckpointError("not wanted"))
    toy_run(data, "counting", folder, model)
    assert model.reasoner.batches == []
    assert before == {name: (folder / name).read_bytes() for name in (SAMPLES, METRICS)}


def test_batch_size_may_change_between_interruptions(data, folder):
    expected = toy_run(data, "counting", folder.with_name("other"), batch_size=4)
    toy_run(data, "counting", folder, batch_size=4)
    whole = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES).write_bytes(b"".join(whole[:5]))
    assert toy_run(data, "counting", folder, batch_size=2) == expected


def killed_until_done(data: Path, suite: str, folder: Path, kills: int, seconds: float, seed: int) -> int:
    """Start a slow run and kill it, `kills` times, then let it end; how many of the kills hit it in the middle."""
    chance = random.Random(seed)
    command = [sys.executable, "-m", "tests.support.toys", str(data), suite, str(folder), str(seconds)]
    hit = 0
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        before = (folder / SAMPLES).stat().st_size if (folder / SAMPLES).exists() else -1
        while process.poll() is None and (
            not (folder / SAMPLES).exists() or (folder / SAMPLES).stat().st_size <= before
        ):
            time.sleep(0.005)  # until it has begun to write
        time.sleep(chance.uniform(0, 4 * seconds))
        process.send_signal(signal.SIGKILL)
        hit += process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return hit


def test_killed_twice_it_ends_with_the_same_bytes(tmp_path, folder):
    data = make_data(tmp_path / "data", "segmentation", 24)
    toy_run(data, "segmentation", tmp_path / "whole")
    assert killed_until_done(data, "segmentation", folder, kills=2, seconds=0.05, seed=1) >= 1
    assert (folder / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
    assert len(records(folder)) == 24


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["segmentation", "detection"])
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(tmp_path, folder, suite):
    data = make_data(tmp_path / "data", suite, 200)
    toy_run(data, suite, tmp_path / "whole")
    assert killed_until_done(data, suite, folder, kills=10, seconds=0.05, seed=2) >= 8
    assert (folder / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
    assert len(records(folder)) == 200


def test_a_second_writer_is_kept_out_and_a_dead_one_is_not(data, folder):
    folder.mkdir()
    holder = (
        "import sys, time; from pathlib import Path; from vision_reasoner.files import locked\n"
        f"with locked(Path({str(folder)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(UsageError, match="another process is writing"):
        toy_run(data, "counting", folder)
    process.kill()
    process.wait()
    toy_run(data, "counting", folder)


# --- stale and foreign results ----------------------------------------------------------------------------------------
def test_a_run_of_something_else_is_not_mixed_with_and_overwrite_starts_anew(data, folder):
    toy_run(data, "counting", folder)
    changed = {"checkpoint": {"reasoner": {"name": "Toy", "digest": "1" * 64}}}
    with pytest.raises(UsageError, match=r"checkpoint.reasoner.digest was 0+ and is 1+.*--overwrite"):
        toy_run(data, "counting", folder, manifest=changed)
    with pytest.raises(UsageError, match="n was 10 and is 3"):
        toy_run(data, "counting", folder, limit=3)
    model = toy_model()
    toy_run(data, "counting", folder, model, manifest=changed, overwrite=True)
    assert len(model.reasoner.batches) == 4
    assert len(records(folder)) == 10


def test_changed_data_is_something_else(data, folder):
    toy_run(data, "counting", folder)
    noise(96, 64, 5).save(data.parent / "3.png")
    with pytest.raises(UsageError, match=r"data\.fingerprint"):
        toy_run(data, "counting", folder)


def test_files_that_lie_about_are_not_scored(data, folder):
    expected = toy_run(data, "counting", folder.with_name("other"))
    folder.mkdir()
    for name in ("output_0.json", "samples.jsonl.bak", ".samples.jsonl.part", "old.jsonl"):
        (folder / name).write_bytes((folder.with_name("other") / SAMPLES).read_bytes())
    assert toy_run(data, "counting", folder) == expected


def test_samples_without_a_manifest_are_not_taken_for_ours(data, folder):
    toy_run(data, "counting", folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UsageError, match="without a manifest"):
        toy_run(data, "counting", folder)


def test_numpy_numbers_in_a_data_set_are_no_trouble(tmp_path, folder):
    from datasets import Dataset

    data = make_data(tmp_path / "data", "counting", 4)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    table: dict = {key: [row[key] for row in rows] for key in ("text", "image_id", "ann_id")}
    table |= {"count": np.array([row["count"] for row in rows], dtype=np.int64)}
    table |= {"image": [{"bytes": (data.parent / row["image"]).read_bytes(), "path": None} for row in rows]}
    Dataset.from_dict(table).to_parquet(tmp_path / "p" / "test.parquet")
    assert toy_run(tmp_path / "p", "counting", folder)["errors"] == 0
    assert [record["truth"]["count"] for record in records(folder)] == [0, 1, 2, 3]


# --- the command line -------------------------------------------------------------------------------------------------
@pytest.fixture
def command(monkeypatch, bundle, tmp_path):
    """The command line with a model that needs no weights, though the checkpoint's folder is looked at."""
    monkeypatch.chdir(tmp_path)
    given: list[dict] = []

    def run(*arguments, says=various):
        def from_settings(checkpoints, settings):
            given.append({**asdict(checkpoints), **asdict(settings)})
            return VisionReasoner(Knows(says), None, toy_model().segmenter)

        monkeypatch.setattr(VisionReasoner, "from_settings", from_settings)
        return main(["--model_path", str(bundle), "--device", "cpu", "-q", *map(str, arguments)]), given

    return run


def test_the_command_line_runs_and_prints_the_table(command, data, folder, capsys):
    code, given = command("--suite", "counting", data, "--output_path", folder, "--batch_size", "4")
    assert code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "counting on data (test" in out
    assert "upstream" in out
    assert given[0]["batch_size"] == 4
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["checkpoint"]["reasoner"]["name"] == "bundle"
    assert manifest["settings"]["dtype"] == "float32"
    assert manifest["versions"]["torch"]
    assert set(manifest["checkpoint"]) == {"reasoner"}, "no other part is used"
    command("--suite", "counting", data, "--output_path", folder, "--protocol", "official")
    assert "upstream" not in capsys.readouterr().out


def test_the_same_command_continues_in_a_folder_of_its_own(command, data, tmp_path):
    assert command("--suite", "counting", data)[0] == 0
    (folder,) = {path.parent for path in tmp_path.rglob(METRICS)}
    assert folder == tmp_path / "results/counting/data/bundle"
    _, given = command("--suite", "counting", data)
    assert len(given) == 1, "the second time nothing is loaded"
    command("--suite", "counting", data, "--limit", "4")
    command("--suite", "counting", data, "--limit", "4", "--compat", "upstream", "--model", "qwen")
    names = {path.parent.name for path in tmp_path.rglob(METRICS)}
    assert names == {"bundle", "bundle-limit4", "bundle-limit4-qwen-upstream"}


def test_shards_go_into_folders_of_their_own_and_are_joined(command, data, folder, tmp_path):
    for number in ("1", "2"):
        assert command("--suite", "counting", data, "--output_path", folder, "--shard", f"{number}/2")[0] == 0
    assert not (folder / METRICS).exists()
    assert merge([str(folder)]) == 0
    assert command("--suite", "counting", data, "--output_path", tmp_path / "whole")[0] == 0
    assert (folder / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()


def test_the_manifest_says_how_many_went_through_the_model_together(command, data, folder):
    command("--suite", "counting", data, "--output_path", folder, "--batch_size", "4")
    assert json.loads((folder / "manifest.json").read_text())["batch_sizes"] == [4]
    command("--suite", "counting", data, "--output_path", folder, "--batch_size", "5")
    assert json.loads((folder / "manifest.json").read_text())["batch_sizes"] == [4], "nothing was left to do"
    whole = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES).write_bytes(b"".join(whole[:5]))
    command("--suite", "counting", data, "--output_path", folder, "--batch_size", "5")
    assert json.loads((folder / "manifest.json").read_text())["batch_sizes"] == [4, 5]


@pytest.mark.parametrize("query", ["the red <|im_end|> cup", "a <|VISION_START|>", "?? <|im_start|>"])
def test_a_request_with_control_tokens_is_known_before_the_model_is_loaded(command, tmp_path, folder, query):
    data = make_data(tmp_path / "data", "counting", 3)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], {**rows[1], "text": query}, rows[2]]))
    code, given = command("--suite", "counting", data, "--output_path", folder)
    assert (code, len(given)) == (7, 1)
    errors = [record["error"] for record in records(folder)]
    assert errors[0] is errors[2] is None
    assert "row 1 of " in errors[1]
    assert "column 'text': the query contains the model's control token '<|" in errors[1]
    data.write_text("".join(json.dumps({**row, "text": query}) + "\n" for row in rows))
    code, given = command("--suite", "counting", data, "--output_path", tmp_path / "none")
    assert (code, len(given)) == (3, 1), "no model is loaded where no row can be used"


def hidden_answers(folder):
    """Questions whose answers are not published."""
    data = make_data(folder, "vqa", 5)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [{**row, "question_id": str(70 - i), "answers": None} for i, row in enumerate(rows)]
    data.write_text("\n".join(map(json.dumps, rows)))
    return data


def test_answers_to_a_set_without_published_ones_become_a_submission(command, tmp_path, folder, capsys):
    data = hidden_answers(tmp_path / "data")
    arguments = ["--suite", "textvqa", data, "--output_path", folder, "--submission"]
    code, _ = command("--suite", "textvqa", data, "--output_path", tmp_path / "scored")
    assert code == 3, "only where it is asked for"
    capsys.readouterr()
    assert command(*arguments, says=lambda i: RuntimeError("odd") if i == 3 else f"answer {i}")[0] == 7
    assert not (folder / "submission.json").exists(), "not of a part"
    assert command(*arguments, says=lambda i: f"answer {i}")[0] == 0
    submission = json.loads((folder / "submission.json").read_text())
    assert submission == [{"question_id": 70 - i, "answer": f"answer {i}"} for i in range(5)]
    assert json.loads((folder / METRICS).read_text())["figures"] == []
    assert report([str(folder)]) == 0
    assert "not scored" in capsys.readouterr().out
    with pytest.raises(UsageError, match="submission was True and is None"):
        toy_run(data, "textvqa", folder)


def test_shards_of_a_submission_are_joined_to_one(command, tmp_path, folder):
    data = hidden_answers(tmp_path / "data")
    for number in ("1", "2"):
        flags = ["--submission", "--batch_size", "2", "--shard", f"{number}/2"]
        command("--suite", "textvqa", data, "--output_path", folder, *flags, says=lambda i: f"answer {i}")
    assert merge([str(folder)]) == 0
    assert [one["answer"] for one in json.loads((folder / "submission.json").read_text())] == [
        f"answer {i}" for i in range(5)
    ]


def test_a_submission_needs_ids_of_the_questions(command, tmp_path, folder, capsys):
    data = hidden_answers(tmp_path / "data")
    flags = ["--output_path", folder, "--submission"]
    assert command("--suite", "docvqa", data, *flags)[0] == 2
    assert "has no column 'questionId' of the questions' ids; --columns ann_id=" in capsys.readouterr().err
    columns = ["--columns", "ann_id=answers", "--overwrite"]
    assert command("--suite", "textvqa", data, *flags, *columns, says=lambda _: "x")[0] == 3
    assert "has no 'answers' of its own" in capsys.readouterr().err


SUITE_FILE = """
from evaluation.suites.vqa import questions
SUITE = questions("mine", "contains", "ANLS", columns={"answers": "solutions"}, instruction="!")
"""


def test_a_suite_from_a_file_runs_and_is_reported_and_compared(command, tmp_path, folder, monkeypatch, capsys):
    data = make_data(tmp_path / "data", "vqa", 4)
    data.write_text(data.read_text().replace('"answers"', '"solutions"'))
    file = tmp_path / "my_suite.py"
    file.write_text(SUITE_FILE)
    assert command("--suite", file, data, "--output_path", folder, says=lambda i: f"answer {i}!")[0] == 0
    assert figure(json.loads((folder / METRICS).read_text()), "contains")["value"] == 1
    assert all(record["query"].endswith("!") for record in records(folder))
    monkeypatch.delitem(SUITES, "mine")  # as in another process
    capsys.readouterr()
    assert report([str(folder)]) == 3
    assert "give the file of its suite (--suite FILE.py)" in capsys.readouterr().err
    assert report([str(folder), "--suite", str(file)]) == 0
    monkeypatch.delitem(SUITES, "mine")
    assert compare([str(folder), str(folder), "--suite", str(file)]) == 0
    file.write_text(SUITE_FILE + "\n")
    assert command("--suite", file, data, "--output_path", folder)[0] == 2
    assert "suite_file was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0", "cannot be executed (ZeroDivisionError"),
        ("def", "cannot be executed (SyntaxError"),
        ("", "has no SUITE"),
        ("SUITE = 3", "has no SUITE"),
        (SUITE_FILE.replace('"mine"', '"vqa"'), "is called vqa as one of ours"),
    ],
)
def test_what_is_no_suite_is_one_line(command, data, tmp_path, capsys, content, message):
    (tmp_path / "bad.py").write_text(content)
    assert command("--suite", tmp_path / "bad.py", data)[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_too_many_errors_make_the_exit_code_seven(command, data, folder, capsys):
    def says(i):
        return RuntimeError("odd") if i in (2, 9) else objects()

    arguments = ("--suite", "counting", data, "--output_path", folder)
    assert command(*arguments, "--max_errors", "1", says=says)[0] == 7
    assert "2 samples failed" in capsys.readouterr().err
    assert command(*arguments, "--max_errors", "2", says=says)[0] == 0
    assert command(*arguments)[0] == 0, "tried again, they work"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.jsonl"], 3, "missing.jsonl: there is no such data set"),
        (["~nosuchuser/a.jsonl"], 3, "~nosuchuser/a.jsonl: there is no such user"),
        (["{data}", "--columns", "text"], 2, "give field=column pairs"),
        (["{data}", "--columns", "question=q"], 2, "has no field question"),
        (["{data}", "--columns", "text=words"], 3, "has no column 'words'"),
        (["{data}", "--limit", "0"], 2, "at least 1"),
        (["{data}", "--batch_size", "0"], 2, "at least 1"),
        (["{data}", "--by", "kind"], 2, "--by kind: "),
        (["{data}", "--by", "image"], 2, "--by image: there is no such column"),
        (["{data}", "--submission"], 2, "asks no questions"),
        (["{data}", "--suite", "nothing"], 2, "there is no such suite; give one of"),
        (["{data}", "--suite", "nothing.py"], 2, "nothing.py: cannot be executed (FileNotFoundError"),
        (["{data}", "--shard", "0/4"], 2, "give I/N"),
        (["{data}", "--shard", "5/4"], 2, "give I/N"),
        (["{data}", "--device", "cuda:99"], 2, "cannot be used here"),
        (["{data}", "--output_path", "{data}"], 2, "cannot be written to"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(command, data, capsys, arguments, code, message):
    assert command("--suite", "counting", *(argument.format(data=data) for argument in arguments))[0] == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_likelihoods_are_asked_for_where_the_suite_ranks_boxes(command, tmp_path):
    for suite, wanted in (("detection", True), ("segmentation", False)):
        data = make_data(tmp_path / suite, suite, 3)
        assert command("--suite", suite, data, "--output_path", tmp_path / f"run-{suite}")[1][-1]["logprobs"] is wanted


def test_an_instances_file_of_other_pictures_is_refused_before_anything_is_asked(command, tmp_path, capsys):
    data = make_data(tmp_path / "data", "detection", 3)
    instances = {"images": [{"id": 1}], "annotations": [], "categories": []}
    (data.parent / "instances.json").write_text(json.dumps(instances))
    code, given = command("--suite", "detection", data, "--output_path", tmp_path / "run")
    assert (code, given) == (3, [])
    assert "has not 2 of the images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "suite"),
    [("segmentation", "segmentation"), ("coco", "detection"), ("count", "counting"), ("vqa", "vqa")],
)
def test_the_shell_scripts_pass_everything_on(tmp_path, script, suite):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    flags = ["some/data", "--model_path", "/models/my reasoner", "--segmentation_model_path=x", "--limit", "3"]
    result = subprocess.run(
        ["bash", str(ROOT / f"evaluation/eval_{script}.sh"), *flags],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    path, *arguments = result.stdout.splitlines()
    assert path == str(ROOT)
    assert arguments == ["-P", "-m", "evaluation.run", "--suite", suite, *flags]


def test_nothing_is_left_in_the_folder_but_what_is_named(data, folder):
    toy_run(data, "counting", folder)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", SAMPLES, METRICS, PAGE, ".lock"}


# --- with weights -----------------------------------------------------------------------------------------------------
BUNDLED = ROOT / "pretrained_models/VisionReasoner-Tiny/reasoner"


def test_with_random_weights_all_parts_work_and_short_memory_is_no_error(tmp_path, bundle, folder, monkeypatch, capsys):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    data = make_data(tmp_path / "data", "segmentation", 5)
    real = Qwen2_5_VLForConditionalGeneration.generate
    sizes = []

    def generate(self, **given):
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, **given)

    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "generate", generate)
    arguments = [
        "--suite",
        "segmentation",
        str(data),
        "--model_path",
        str(bundle),
        "--device",
        "cpu",
        "--batch_size",
        "4",
    ]
    assert main([*arguments, "--output_path", str(folder), "--max_new_tokens", "6"]) == 0
    assert sizes == [4, 2, 2, 1]
    out, err = capsys.readouterr()
    assert "0 errors; replies: 5 no_answer" in out
    assert "5/5" in err, "the progress bar"
    assert set(json.loads((folder / "manifest.json").read_text())["checkpoint"]) == {"reasoner", "segmenter"}


def test_the_bundled_checkpoint_says_how_likely_its_boxes_are(folder):
    arguments = ["--suite", "detection", "--model_path", str(BUNDLED), "--device", "cpu", "--limit", "2", "-q"]
    assert main([*arguments, "--output_path", str(folder), "--max_new_tokens", "120"]) == 0
    found = [instance for record in records(folder) for instance in record["instances"]]
    assert found
    assert all(-5 < instance["likelihood"] <= 0 for instance in found)
    metrics = json.loads((folder / METRICS).read_text())
    assert figure(metrics, "COCO AP")["value"] is not None
    assert metrics["data"]["name"] == "detection"
    assert metrics["data"]["annotations"], "the bundled instances file"


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["detection", "counting", "vqa"])
def test_the_bundled_sets_run_offline_by_their_scripts(tmp_path, suite):
    script = {"detection": "coco", "counting": "count"}.get(suite, suite)
    result = subprocess.run(
        ["bash", str(ROOT / f"evaluation/eval_{script}.sh"), "--limit", "32", "--offline", "--device", "cpu"]
        + ["--model_path", str(BUNDLED), "--max_new_tokens", "200"],
        env={**os.environ, "PYTHON": sys.executable, "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{suite} on {suite} (test" in result.stdout
    assert "32 of 2" in result.stdout


def test_the_scripts_run_nothing_of_the_working_folder_and_may_be_linked_to(tmp_path):
    (tmp_path / "datasets.py").write_text("raise SystemExit('the working folder ran')")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "count").symlink_to(ROOT / "evaluation/eval_count.sh")
    command = ["bash", "count", "--model_path", "nowhere/at/all"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr  # the bundled set was opened, and the checkpoint is missing
    assert "nowhere/at/all: no such folder" in done.stderr


def test_a_full_disk_ends_the_run_with_a_line_and_the_same_call_does_the_rest(tmp_path, folder):
    data = make_data(tmp_path / "data", "segmentation", 30)
    toy_run(data, "segmentation", tmp_path / "whole")
    half = (tmp_path / "whole" / SAMPLES).stat().st_size // 2
    with largest_file(half), pytest.raises(UsageError, match=r"samples.jsonl: cannot be written \(.*make room"):
        toy_run(data, "segmentation", folder)
    assert (folder / SAMPLES).stat().st_size == half
    toy_run(data, "segmentation", folder)
    assert (folder / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
