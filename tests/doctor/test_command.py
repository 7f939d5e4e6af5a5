"""`vision-reasoner doctor` as it is called: what is printed, exit codes, and real engines."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.doctor.test_checks import ROUTER, Exact, Routes
from tests.support.known import Knows, fence, known
from tests.support.server import Says, serving, transformers_serve
from vision_reasoner import VisionReasoner
from vision_reasoner.doctor.checks import examine
from vision_reasoner.doctor.command import report_of, text_of
from vision_reasoner.doctor.scenes import SIZES
from vision_reasoner.errors import ExitCode
from vision_reasoner.inference import main
from vision_reasoner.models.checkpoints import BUNDLED as BUNDLED_NAME
from vision_reasoner.models.checkpoints import in_pretrained
from vision_reasoner.models.reasoner import Reasoner

BUNDLED = Path(in_pretrained(BUNDLED_NAME) or "")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def reported(engine, router=ROUTER):
    model = VisionReasoner(Reasoner(engine), router, Exact())
    return report_of(examine(model), model)


def doctor(url, bundle, *flags):
    return main(["doctor", "--engine", url, "--model_path", str(bundle), "--device", "cpu", "-q", *flags])


def test_the_report_of_a_model_that_is_right():
    report = reported(Knows())
    assert report["exit_code"] == ExitCode.OK
    lines = text_of(report).splitlines()
    assert lines[0] == "Reasoner  one of your own, asked as --model vision_reasoner"
    assert "[ok]     Frame        confirmed: 840x840, error 0 px (0.0 %)" in lines
    assert "         large   1600x1200  840x840      840x840                  0 px     6/6" in lines
    assert lines[-1] == "All is well."


def test_the_report_of_a_wrong_frame_says_what_to_do():
    report = reported(Knows(lambda boxes, *_: boxes * 1000))
    assert report["exit_code"] == ExitCode.SOME_FAILED
    text = text_of(report)
    assert "[FAILED] Frame        answers are in 0 to 1000, not in 840x840\n" + 22 * " " + "-> use --model " in text
    assert text.splitlines()[-1] == "Failed: frame (exit code 7)."


def test_the_report_where_nothing_is_found():
    report = reported(Knows(lambda *_: []))
    assert report["exit_code"] == ExitCode.REPLY
    assert "[?]      Frame        undecided: no boxes were written" in text_of(report)
    assert text_of(report).splitlines()[-1] == "Undecided: frame (exit code 6)."


def test_no_line_is_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    report = reported(Knows(form=lambda _: "a word and another " * 50), Routes(*["no number"] * 5))
    assert max(map(len, text_of(report).splitlines())) <= 100


def test_the_json_has_every_reply_and_what_was_drawn():
    report = json.loads(json.dumps(reported(Knows(lambda boxes, *_: boxes * 1000))))
    assert {check["name"]: check["state"] for check in report["checks"]} == {
        "Frame": "failed",
        "Replies": "ok",
        "Likelihoods": "note",
        "Router": "ok",
        "Masks": "ok",
    }
    pictures = {picture["name"]: picture for picture in report["pictures"]}
    assert {name: tuple(picture["size"]) for name, picture in pictures.items()} == SIZES
    wide = pictures["wide"]
    assert (wide["frame"], wide["measured_frame"], wide["off"], wide["found"]) == ([840, 840], "1000x1000", True, 6)
    assert np.array(wide["written"]) == pytest.approx(
        1000 * np.array(wide["objects"]) / np.tile(wide["size"], 2), abs=0.01
    )
    assert wide["reply"].startswith("<think>")
    assert report["versions"]["torch"]


# --- over HTTP --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flags", "says", "frame", "told"),
    [
        (["--frame_side", "420"], known(), "ok", "confirmed: 420x420"),
        (
            ["--model", "qwen"],
            known(lambda boxes, _, seen: boxes * np.tile(seen, 2) * min(1, 1400 / max(seen)), fence),
            "failed",
            "on large pictures",
        ),
    ],
)
def test_a_server_is_asked_as_always(bundle, capsys, flags, says, frame, told):
    with serving(says) as server:
        code = doctor(server.url, bundle, "--json", *flags)
    report = json.loads(capsys.readouterr().out)
    assert (report["reasoner"], report["engine"]) == ("some/model", server.url)
    assert report["checks"][0]["state"] == frame
    assert told in report["checks"][0]["summary"]
    assert code == report["exit_code"] == ExitCode.SOME_FAILED, "the router of random weights fails in any case"


def test_a_server_that_is_not_there(bundle, capsys):
    with serving(known()) as server:
        pass
    assert doctor(server.url, bundle) == ExitCode.ENGINE
    assert "cannot be reached" in capsys.readouterr().err


def test_a_server_that_takes_no_images(bundle, capsys):
    says = Says(status=400, body='{"error": {"message": "this model does not support images"}}')
    with serving(lambda *_: says) as server:
        assert doctor(server.url, bundle) == ExitCode.USAGE
    assert "takes no images" in capsys.readouterr().err


# --- real ones --------------------------------------------------------------------------------------------------------
def test_the_bundled_checkpoint_is_confirmed(capsys):
    assert main(["doctor", "--model_path", str(BUNDLED), "--device", "cpu", "-q", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert [check["state"] for check in report["checks"]] == ["ok"] * 5
    assert "confirmed: 280x280" in report["checks"][0]["summary"]
    assert sum(picture["found"] for picture in report["pictures"]) >= 25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frame_side", "state", "told"), [(280, "ok", "confirmed: 280x280"), (420, "failed", "in a frame of")]
)
def test_transformers_serve_is_confirmed_and_a_wrong_frame_is_found(tmp_path, capsys, frame_side, state, told):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with transformers_serve(BUNDLED / "reasoner", tmp_path / "log.txt") as address:
        doctor(address, BUNDLED, "--json", "--frame_side", str(frame_side))
    report = json.loads(capsys.readouterr().out)
    assert report["checks"][0]["state"] == state
    assert told in report["checks"][0]["summary"]
