"""Runs through a server: what the manifest says of it, and that a server that dies costs nothing but time."""

import json
import threading
import time

import pytest

from evaluation.run import main
from evaluation.runner.records import METRICS, SAMPLES
from tests.support.bundled_replies import BUNDLED
from tests.support.runs import make_data
from tests.support.server import MODEL, Says, serving, started, text_of, transformers_command
from tests.support.toys import objects
from vision_reasoner.errors import ExitCode


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path, bundle):
    data = make_data(tmp_path / "data", "counting", 10)

    def evaluate(url, *flags):
        given = ["--suite", "counting", str(data), "--engine", url, "--output_path", str(tmp_path / "run")]
        fixed = ["--segmentation_model_path", str(bundle), "--device", "cpu", "--concurrency", "2", "-q"]
        return main([*given, *fixed, "--batch_size", "3", *flags])

    return evaluate


def counts(_, request):
    """As many objects as the sample's number says, in the same words every time."""
    text = text_of(request)
    number = next(i for i in range(10) if f"sample {i} of them" in text)
    return Says(objects(*[(4 + 9 * k, 4, 30 + 9 * k, 50) for k in range(number % 4)]))


def read(folder, name):
    return json.loads((folder / "run" / name).read_text())


def test_the_manifest_says_which_model_the_server_runs_and_not_where_it_is(run, tmp_path, capsys):
    for _ in range(2):  # the second time at another address
        with serving(counts) as server:
            server.version = "1.2.3"
            assert run(server.url) == ExitCode.OK
            manifest = read(tmp_path, "manifest.json")
    assert manifest["checkpoint"] == {"reasoner": {"name": "model", "served_as": MODEL}}
    assert (manifest["settings"]["engine"], manifest["settings"]["frame_side"]) == ("server", 840)
    assert manifest["versions"]["server"] == "toys 1.2.3"
    assert not server.requests, "nothing was left to do"
    assert "checkpoint model (on a server)" in capsys.readouterr().out
    metrics = read(tmp_path, METRICS)
    assert metrics["errors"] == 0
    assert {figure["value"] for figure in metrics["figures"] if "accuracy" in figure["name"]} == {1.0}
    assert MODEL in (tmp_path / "run/report.html").read_text()
    with serving(counts) as server:
        server.models = ["another/model"]
        assert run(server.url) == ExitCode.USAGE, "another model is another run"
        assert "another" in capsys.readouterr().err


def test_a_slow_reply_holds_no_other_one_up(run, tmp_path):
    others = threading.Semaphore(0)

    def answer(i, request):
        if i > 0:
            others.release()
        elif not all(others.acquire(timeout=30) for _ in range(9)):
            return Says(status=400)
        return counts(i, request)

    with serving(answer) as server:
        assert run(server.url) == ExitCode.OK
    assert server.most_at_once == 2, "--concurrency"
    assert read(tmp_path, METRICS)["errors"] == 0
    assert sorted(json.loads(line)["index"] for line in (tmp_path / "run/samples.jsonl").open()) == list(range(10))


@pytest.mark.parametrize(
    "says",
    [
        Says("hm", cut=True),
        Says(status=429),
        Says(status=500),
        Says(body="<html>", content_type="text/html"),
        Says(body='{"choices": []}'),
    ],
    ids=["cut", "429", "500", "another kind of server", "garbage"],
)
def test_what_goes_wrong_on_the_way_leaves_errors_that_are_done_again(run, tmp_path, capsys, says):
    with serving(lambda i, request: counts(i, request) if i < 4 else says) as server:
        assert run(server.url) == ExitCode.SOME_FAILED
    assert "samples failed" in capsys.readouterr().err
    metrics = read(tmp_path, METRICS)
    assert 0 < metrics["errors"] < 10
    assert {figure["value"] for figure in metrics["figures"] if "accuracy" in figure["name"]} == {1.0}, "not scored"
    with serving(counts) as server:
        assert run(server.url) == ExitCode.OK
        assert len(server.requests) >= metrics["errors"]
    assert read(tmp_path, METRICS)["errors"] == 0


@pytest.mark.slow
def test_a_server_that_is_killed_costs_no_more_than_what_it_had_not_said(tmp_path):
    pytest.importorskip("uvicorn")
    lines = tmp_path / "killed" / SAMPLES

    def evaluate(address, folder):
        given = ["--suite", "counting", "--limit", "16", "--device", "cpu", "--concurrency", "2", "-q"]
        return main([*given, "--engine", address, "--output_path", str(tmp_path / folder)])

    def kill(process):
        while not lines.is_file() or len(lines.read_bytes().splitlines()) < 4:
            time.sleep(0.01)
        process.kill()

    command = transformers_command(BUNDLED / "reasoner")
    with started(command, tmp_path / "log.txt") as (address, process):
        killer = threading.Thread(target=kill, args=[process])
        killer.start()
        assert evaluate(address, "killed") == ExitCode.SOME_FAILED
        killer.join()
    records = [json.loads(line) for line in lines.open()]
    said = [record for record in records if record["error"] is None]
    assert 4 <= len(said) < 16
    with started(command, tmp_path / "log.txt") as (address, _):
        assert evaluate(address, "killed") == ExitCode.OK
        assert evaluate(address, "whole") == ExitCode.OK
    continued = {record["index"]: record for record in map(json.loads, lines.open())}
    assert all(continued[record["index"]] == record for record in said), "what was said is not asked again"
    assert (tmp_path / "killed" / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()


def test_a_server_that_is_not_there(run, capsys):
    with serving(counts) as server:
        pass
    assert run(server.url) == ExitCode.ENGINE
    assert "cannot be reached" in capsys.readouterr().err


def test_a_server_is_asked_by_one_process(run, capsys):
    with serving(counts) as server:
        assert run(server.url, "--num_workers", "2") == ExitCode.USAGE
    assert "--concurrency" in capsys.readouterr().err
