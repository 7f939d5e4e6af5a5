"""Many pictures: one line each, true batches, failures apart, and re-runs that do only what is left."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import largest_file, noise
from tests.test_model import NONE, ONE, TWO, Fills, Routes
from vision_reasoner import Prediction, QueryError, ScriptedReasoner, Task, UsageError, VisionReasoner
from vision_reasoner.bulk import run_many
from vision_reasoner.errors import CheckpointError, EngineError, VisionReasonerError
from vision_reasoner.files import locked
from vision_reasoner.inference import expand, main
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.models.router import Route
from vision_reasoner.prompts import DIALECTS

SETTINGS = {"reasoner": "some/model", "revision": None}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four pictures, two of the same name."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png", "sub/a.jpg")]
    for i, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        noise(60 + i, 40, i).save(path)
    return paths


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def model(*replies: str | Reply, batch_size: int = 2, router: Routes | None = None) -> VisionReasoner:
    return VisionReasoner(ScriptedReasoner(replies), router, Fills(), batch_size=batch_size)


def run(reasoner, files, out, *, query="dogs", task="counting", **options):
    return run_many(reasoner, files, query, task, output_dir=out, settings=SETTINGS, quiet=True, **options)


def records(out: Path) -> dict[str, dict]:
    lines = (out / "results.jsonl").read_text().splitlines()
    found = {record["image"]: record for record in map(json.loads, lines)}
    assert len(found) == len(lines), "one line for each picture"
    return found


def asked(reasoner):
    return len(reasoner.reasoner.asked)


def test_every_picture_gets_a_line_and_a_picture_of_its_own_name(files, out, capsys):
    assert run(model(ONE, TWO, NONE, ONE), files, out) == 0
    found = records(out)
    assert [found[str(file)]["count"] for file in files] == [1, 2, 0, 1]
    names = [found[str(file)]["picture"] for file in files]
    assert names == ["a.png", "b.png", "c.png", "a-2.png"]
    assert all((out / name).is_file() for name in names)
    assert found[str(files[0])]["versions"]["torch"]
    blocks = capsys.readouterr().out.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [f"Image: {file}" for file in files]
    assert blocks[1].splitlines()[-1] == "Total number of interested objects is: 2"


def test_masks_are_in_the_line_and_on_disk(files, out):
    run(model(TWO), files[:1], out, task="segmentation")
    record = records(out)[str(files[0])]
    prediction = Prediction.from_json(record)
    assert record["masks"] == ["masks/a/1.png", "masks/a/2.png"]
    for name, instance in zip(record["masks"], prediction.instances, strict=True):
        assert instance.mask is not None
        assert np.array_equal(np.asarray(Image.open(out / name)) == 255, instance.mask)


def test_pictures_go_through_in_true_batches(files, out, monkeypatch):
    reasoner = model(ONE, ONE, ONE, ONE, batch_size=3)
    sizes = []
    real = reasoner.predict_each

    def predict_each(requests, task):
        sizes.append(len(requests))
        return real(requests, task)

    monkeypatch.setattr(reasoner, "predict_each", predict_each)
    run(reasoner, files, out)
    assert sizes == [3, 1]


def test_a_second_run_does_nothing_again(files, out):
    run(model(ONE, TWO, NONE, ONE), files, out)
    before = (out / "results.jsonl").read_bytes()
    second = model()
    assert run(second, files, out) == 0
    assert asked(second) == 0
    assert (out / "results.jsonl").read_bytes() == before


def test_an_interruption_loses_nothing_finished_and_a_rerun_does_the_rest(files, out, monkeypatch):
    first = model(ONE, TWO, NONE, ONE)
    real = first.predict_each
    calls = []

    def interrupted(requests, task):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(requests, task)

    monkeypatch.setattr(first, "predict_each", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(first, files, out)
    assert set(records(out)) == {str(file) for file in files[:2]}
    second = model(NONE, ONE)
    assert run(second, files, out) == 0
    assert asked(second) == 2
    assert [records(out)[str(file)]["count"] for file in files] == [1, 2, 0, 1]


@pytest.mark.parametrize("cut", [1, 30, "half", "newline"])
def test_a_torn_last_line_is_done_again_and_leaves_no_trace(files, out, cut):
    run(model(ONE, TWO), files[:2], out)
    whole = (out / "results.jsonl").read_bytes()
    first_line = whole.index(b"\n") + 1
    length = {"half": first_line + (len(whole) - first_line) // 2, "newline": len(whole) - 1}.get(str(cut))
    (out / "results.jsonl").write_bytes(whole[: length if length else first_line + int(cut)])
    second = model(TWO)
    assert run(second, files[:2], out) == 0
    assert asked(second) == (0 if cut == "newline" else 1)
    assert [records(out)[str(file)]["count"] for file in files[:2]] == [1, 2]


def test_a_bad_picture_fails_alone_and_is_tried_again(files, out):
    good = files[1].read_bytes()
    files[1].write_bytes(b"no picture")
    assert run(model(ONE, NONE, ONE), files, out) == 7
    found = records(out)
    assert len(found) == 4
    assert "b.png" in found[str(files[1])]["error"]
    assert not found[str(files[1])]["usable"]
    files[1].write_bytes(good)
    second = model(TWO)
    assert run(second, files, out) == 0
    assert asked(second) == 1
    assert records(out)[str(files[1])]["count"] == 2


def test_a_missing_picture_fails_alone(files, out):
    assert run(model(ONE), [files[0], Path("missing.png")], out) == 7
    assert "missing.png" in records(out)["missing.png"]["error"]


def test_an_unusable_reply_counts_as_failed_and_is_not_asked_again(files, out):
    assert run(model(ONE, "no idea"), files[:2], out) == 7
    record = records(out)[str(files[1])]
    assert (record["status"], record["usable"]) == ("no_answer", False)
    second = model()
    assert run(second, files[:2], out) == 7
    assert asked(second) == 0


def test_a_changed_picture_is_done_again(files, out):
    run(model(ONE, TWO), files[:2], out)
    noise(60, 40, 9).save(files[0])
    second = model(NONE)
    assert run(second, files[:2], out) == 0
    assert records(out)[str(files[0])]["count"] == 0


def test_new_pictures_join_and_keep_the_others_names(files, out):
    run(model(ONE), [files[3]], out)
    assert records(out)[str(files[3])]["picture"] == "a.png"
    run(model(TWO), [files[0], files[3]], out)
    assert records(out)[str(files[0])]["picture"] == "a-2.png"


@pytest.mark.parametrize("change", [{"query": "cats"}, {"task": "detection"}])
def test_results_of_something_else_are_not_mixed_with(files, out, change):
    run(model(ONE), files[:1], out)
    with pytest.raises(UsageError, match=f"{next(iter(change))} differ"):
        run(model(ONE), files[:1], out, **change)
    assert len(records(out)) == 1


def test_a_batch_that_fails_because_of_one_picture_is_done_without_it(files, out, monkeypatch):
    reasoner = model(ONE, TWO, ONE, batch_size=4)
    real = reasoner.reasoner.ask

    def ask(images, queries, **options):
        if any(image.width == 61 for image in images):
            raise VisionReasonerError("out of memory with a single request")
        return real(images, queries, **options)

    monkeypatch.setattr(reasoner.reasoner, "ask", ask)
    assert run(reasoner, files, out) == 7
    assert ["error" in records(out)[str(file)] for file in files] == [False, True, False, False]
    assert [records(out)[str(file)].get("count") for file in files] == [1, None, 2, 1]


def test_a_checkpoint_that_does_not_load_ends_the_run(files, out, monkeypatch):
    reasoner = model()

    def fail(*_, **__):
        raise CheckpointError("torn")

    monkeypatch.setattr(reasoner, "predict_each", fail)
    with pytest.raises(CheckpointError):
        run(reasoner, files, out)


def test_a_server_that_is_not_there_is_said_once(files, out, monkeypatch):
    reasoner = model()

    def fail(part):
        raise EngineError(f"no {part} there")

    monkeypatch.setattr(reasoner, "load", fail)
    with pytest.raises(EngineError, match="no reasoner there"):
        run(reasoner, files, out)
    assert not (out / "results.jsonl").exists()


def test_pictures_and_whatever_else_lies_in_the_folder_are_never_written_over(files, tmp_path):
    other = tmp_path / "d.png"
    noise(30, 20, 7).save(other)
    (tmp_path / "link.png").symlink_to(files[3])
    files = [*files, tmp_path / "sub" / "d.jpg", tmp_path / "link.png"]
    noise(31, 21, 8).save(files[4])
    before = {file: file.read_bytes() for file in (*files, other)}
    assert run(model(*[ONE] * 6), files, tmp_path) == 0
    assert {file: file.read_bytes() for file in before} == before
    pictures = [records(tmp_path)[str(file)]["picture"] for file in files]
    assert pictures == ["a-2.png", "b-2.png", "c-2.png", "a-3.png", "d-2.png", "link-2.png"]
    (tmp_path / "results.jsonl").unlink()
    found, many = expand([str(tmp_path), str(tmp_path / "*.png")], tmp_path)
    assert many
    assert {file.name for file in found} == {"a.png", "b.png", "c.png", "d.png", "link.png"}, "results are no inputs"
    assert run(model(*[ONE] * 6), files, tmp_path) == 0
    assert [records(tmp_path)[str(file)]["picture"] for file in files] == pictures, "results may be written over"


def test_a_picture_that_goes_away_while_it_is_asked_about_fails_alone(files, out, monkeypatch):
    reasoner = model(ONE, TWO, ONE, NONE)
    real = reasoner.predict_as_done

    def going(requests, task):
        for i, outcome in real(requests, task):
            if i == 1:
                files[1].unlink()
            if i == 2:
                noise(9, 9).save(files[2])
            yield i, outcome

    monkeypatch.setattr(reasoner, "predict_as_done", going)
    assert run(reasoner, files, out) == 7
    assert ["error" in records(out)[str(file)] for file in files] == [False, True, True, False]


def test_a_count_that_is_stated_alone_is_a_result(files, out):
    counted = VisionReasoner(ScriptedReasoner(["There are five dogs."], dialect=DIALECTS["qwen"]), batch_size=1)
    assert run(counted, files[:1], out) == 0
    assert records(out)[str(files[0])]["count"] == 5


def test_the_router_is_asked_once_for_all(files, out):
    router = Routes(Route(Task.COUNTING, ""))
    run(model(ONE, TWO, NONE, ONE, router=router), files, out, task=None)
    assert router.asked == [["dogs"]]
    assert {record["task"] for record in records(out).values()} == {"counting"}


def test_editing_is_refused_once(files, out):
    with pytest.raises(QueryError, match="no image-generation"):
        run(model(router=Routes(Route(None, "", "no image-generation model"))), files, out, task=None)


def test_json_prints_the_lines_of_the_file(files, out, capsys):
    run(model(ONE, TWO), files[:2], out, as_json=True)
    assert capsys.readouterr().out == (out / "results.jsonl").read_text()


def test_a_cut_off_answer_is_usable(files, out):
    assert run(model(Reply("long answ", (840, 840), finished=False)), files[:1], out, task="vqa") == 0


def test_from_the_command_line_with_weights(bundle, files, out, capsys):
    arguments = ["--image_path", str(files[0].parent), "--query", "what?", "--task", "vqa", "--model_path", str(bundle)]
    arguments += ["--output_dir", str(out), "--max_new_tokens", "4", "--batch_size", "2"]
    assert main(arguments) == 0
    assert len(records(out)) == 3
    assert "3/3" in capsys.readouterr().err, "the progress bar"
    assert main([*arguments, "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*arguments[:-2], "--max_new_tokens", "5", "-q"]) == 2


def test_a_second_run_into_the_same_folder_is_refused(files, out):
    with locked(out), pytest.raises(UsageError, match="another process is writing here"):
        run(model(), files, out)


def test_garbage_among_the_results_is_done_again(files, out):
    run(model(ONE, TWO, NONE, ONE), files, out)
    whole = (out / "results.jsonl").read_text().splitlines()
    odd: list[dict[str, object]] = [{"image": [1]}, {"settings": 5}, {"sha256": None}, {"usable": "x"}, {"picture": {}}]
    lines = [json.dumps({**json.loads(whole[1]), **change}) for change in odd]
    (out / "results.jsonl").write_text("\n".join([whole[0], "[" * 100_000, *lines, "\x00", whole[2], whole[3]]))
    second = model(TWO)
    assert run(second, files, out) == 0
    assert asked(second) == 1
    assert [records(out)[str(file)]["count"] for file in files] == [1, 2, 0, 1]


def test_a_full_disk_ends_the_run_with_a_line_and_the_rest_is_done_later(files, out):
    run(model(ONE), files[:1], out)
    with (
        largest_file((out / "results.jsonl").stat().st_size + 40),
        pytest.raises(UsageError, match="cannot be written"),
    ):
        run(model(TWO, NONE, ONE), files, out)
    assert set(records_of_whole_lines(out)) == {str(files[0])}
    assert run(model(TWO, NONE, ONE), files, out) == 0
    assert [records(out)[str(file)]["count"] for file in files] == [1, 2, 0, 1]


def records_of_whole_lines(out):
    lines = (out / "results.jsonl").read_bytes().splitlines(keepends=True)
    return [json.loads(line)["image"] for line in lines if line.endswith(b"\n")]
