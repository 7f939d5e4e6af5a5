"""The application under Ray Serve: its options, and that every request is answered where a replica dies."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

pytest.importorskip("ray.serve", reason='pip install -e ".[serve,ray]"', exc_type=ImportError)

import ray
from ray import serve
from ray._private import state
from ray.exceptions import ActorDiedError

from tests.support import service
from tests.support.service import Client, form_of, wait_until
from vision_reasoner import EngineError, UsageError
from vision_reasoner.models.engine import Watch
from vision_reasoner.serving import ray_app
from vision_reasoner.serving.ray_app import TRIES, Arguments, RemoteModel, build

ROOT = Path(__file__).resolve().parents[2]
SETUP = yaml.safe_load((Path(ray_app.__file__).parent / "serve.yaml").read_text())


def test_the_setup_names_what_exists():
    [application] = SETUP["applications"]
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    build(Arguments(**application["args"]))


@pytest.mark.parametrize("options", [{"no_such": 1}, {"timeout": "long"}, {"project_dir": "corrections"}])
def test_options_that_cannot_be_are_said(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        build(Arguments(options=options))


def test_sizes_that_cannot_be_are_said():
    with pytest.raises(ValidationError, match="max_replicas"):
        Arguments(max_replicas=0)


class Replicas:
    """A handle of replicas, of which some die after a first text."""

    def __init__(self, deaths):
        self.deaths = deaths

    def options(self, **_):
        return self

    def remote(self, *_, **__):
        yield {0: "<think>"}, None
        self.deaths -= 1
        if self.deaths >= 0:
            raise ActorDiedError
        yield {0: "<think>I"}, None
        yield {}, ["found"]


@pytest.mark.parametrize(("deaths", "answered"), [(TRIES - 1, True), (TRIES, False)])
def test_a_batch_is_given_to_another_replica_a_few_times(monkeypatch, deaths, answered):
    monkeypatch.setattr(ray_app, "REST_SECONDS", 0)
    model: Any = RemoteModel()
    texts: list[str] = []
    model.replicas = Replicas(deaths)
    watch = Watch(on_text=lambda _, text: texts.append(text))
    if answered:
        assert model.predict_batch([("a.png", "dogs")], watch=watch) == ["found"]
        assert texts == ["<think>"] * TRIES + ["<think>I"]
    else:
        with pytest.raises(EngineError, match="replicas died"):
            model.predict_batch([("a.png", "dogs")], watch=watch)


@pytest.fixture
def cluster(monkeypatch):
    """Two replicas of the bundled checkpoint on the CPU, behind Ray's proxy."""
    monkeypatch.setattr(service, "WAIT_SECONDS", 300)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        options: Any = {
            "model_path": str(ROOT / "pretrained_models/VisionReasoner-Tiny"),
            "device": "cpu",
            "batch_size": 2,
        }
        arguments = Arguments(min_replicas=2, max_replicas=2, gpus=0, options=options)
        serve.run(build(arguments), name="vision_reasoner")
        unused: Any = None
        client = Client(port, unused, unused, unused)
        wait_until(lambda: client.ask("/readyz")[0] == 200)
        yield client
    finally:
        serve.shutdown()
        ray.shutdown()


def replica_processes():
    """The process ids of the model's replicas that live."""
    known = [a for a in state.actors().values() if a["ActorClassName"].startswith("ServeReplica:vision_reasoner:Model")]
    return {a["Pid"] for a in known if a["State"] == "ALIVE"}


@pytest.mark.slow
def test_every_request_is_answered_where_a_replica_is_killed(cluster):
    image = (ROOT / "assets/airplanes.png").read_bytes()
    form = {"query": "How many airplanes are there in this image?"}
    answers = []

    def ask(**options):
        answers.append(cluster.ask("/v1/predict", *form_of(image, **form, **options)))

    threads = [threading.Thread(target=ask) for _ in range(15)] + [
        threading.Thread(target=ask, kwargs={"stream": "true"})
    ]
    before = replica_processes()
    assert len(before) == 2
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) >= 2)  # both work on further batches by now
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    assert len(answers) < len(threads) - 2
    for thread in threads:
        thread.join()
    assert len(answers) == len(threads)
    assert {status for status, _, _ in answers} == {200}
    assert all(b'"count": 10' in body or b'"count":10' in body for _, _, body in answers)
    wait_until(lambda: len(replica_processes() - {killed}) == 2)
