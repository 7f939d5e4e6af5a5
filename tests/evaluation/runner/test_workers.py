"""Several workers: the figures of one, whoever dies; one line where it cannot work."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from evaluation.run import main
from evaluation.runner import workers
from evaluation.runner.records import METRICS, SAMPLES
from evaluation.runner.workers import cores_each, load_model, on_ray
from tests.support.runs import make_data
from tests.support.toys import toy_model, toy_run, various
from vision_reasoner.errors import CheckpointError, UsageError, VisionReasonerError
from vision_reasoner.models.checkpoints import Part, digest
from vision_reasoner.settings import Checkpoints, RunSettings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", "segmentation", 24)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def expected(data, tmp_path):
    """metrics.json of a single process."""
    toy_run(data, "segmentation", tmp_path / "whole")
    return (tmp_path / "whole" / METRICS).read_bytes()


def indices(folder):
    return sorted(json.loads(line)["index"] for line in (folder / SAMPLES).read_text().splitlines())


# --- without Ray ------------------------------------------------------------------------------------------------------
class DeadError(Exception):
    """What Ray raises for a call to a worker that is no more."""


class FailedError(Exception):
    """What Ray raises for a call that raised."""

    def __init__(self, cause):
        super().__init__(cause)
        self.cause = cause


class FakeRay:
    """As much of Ray as the pool uses, in this process: a call is done when it is waited for, the oldest first.

    `fate(worker, name)` says before each call of the worker with that number whether it dies of it.
    """

    exceptions = SimpleNamespace(RayTaskError=FailedError, RayError=DeadError)

    def __init__(self, fate=lambda _worker, _name: False, cores=4):
        self.fate, self.cores = fate, cores
        self.hired, self.most_waiting, self.running = 0, 0, False

    def init(self, _address, **_options):
        self.running = True

    def shutdown(self):
        self.running = False

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.cores}}, {"Alive": False, "Resources": {"CPU": 99}}]

    def remote(self, **options):
        self.options = options

        def hire(kind, *arguments):
            number, self.hired = self.hired, self.hired + 1
            worker = kind(*arguments)

            def call(name):
                def later(*given):
                    def now():
                        if self.fate(number, name):
                            raise DeadError(f"worker {number} died\nand left a traceback")
                        try:
                            return getattr(worker, name)(*given)
                        except Exception as error:
                            raise FailedError(error) from error

                    return now

                return SimpleNamespace(remote=later)

            return SimpleNamespace(start=call("start"), answer=call("answer"))

        return lambda kind: SimpleNamespace(remote=partial(hire, kind))

    def wait(self, calls, **_options):
        self.most_waiting = max(self.most_waiting, len(calls))
        return calls[:1], calls[1:]

    def get(self, call):
        return call()

    def kill(self, worker):
        pass


@pytest.fixture
def spread(monkeypatch, data, folder):
    """A run by workers of a `FakeRay`."""

    def run(ray, says=various, **options):
        monkeypatch.setattr(workers, "import_ray", lambda: ray)
        model = toy_model(says)
        return toy_run(data, "segmentation", folder, model, pool=partial(on_ray, **{"num_workers": 3, **options}))

    return run


def test_workers_give_what_one_process_gives_with_a_batch_each_at_a_time(spread, folder, expected):
    ray = FakeRay()
    spread(ray)
    assert (folder / METRICS).read_bytes() == expected
    assert indices(folder) == list(range(24))
    assert (ray.hired, ray.most_waiting, ray.running) == (3, 3, False)


@pytest.mark.parametrize("name", ["start", "answer"])
def test_the_batch_of_a_dead_worker_is_done_by_another_and_the_worker_replaced(spread, folder, expected, caplog, name):
    ray = FakeRay(lambda worker, call: call == name and worker < 3)
    spread(ray)
    assert (folder / METRICS).read_bytes() == expected
    assert indices(folder) == list(range(24))
    assert ray.hired == 6
    assert "A worker died" in caplog.text


def test_a_worker_may_have_several_batches_under_way_and_all_are_done_again_where_it_dies(spread, folder, expected):
    died = set()

    def fate(worker, call):
        if worker == 1 and call == "answer":
            died.add(worker)
        return worker in died

    ray = FakeRay(fate)
    spread(ray, at_once=4)
    assert (folder / METRICS).read_bytes() == expected
    assert indices(folder) == list(range(24))
    assert (ray.hired, ray.options["max_concurrency"]) == (4, 4)
    assert ray.most_waiting > 4


@pytest.mark.parametrize("name", ["start", "answer"])
def test_after_a_few_deaths_it_gives_up_with_one_line_and_what_is_finished_is_kept(spread, folder, expected, name):
    dies = [False]
    ray = FakeRay(lambda _, call: call == name and dies[0])

    def says(i):
        dies[0] = True  # from the first answer on
        return various(i)

    if name == "start":
        dies[0] = True
    with pytest.raises(VisionReasonerError, match=r"^4 workers died, one after the other.*what is finished is kept$"):
        spread(ray, says)
    assert not ray.running
    assert len(indices(folder)) == (3 if name == "answer" else 0)
    spread(FakeRay())
    assert (folder / METRICS).read_bytes() == expected


@pytest.mark.parametrize("error", [CheckpointError("torn"), RuntimeError("no kernel image")])
def test_what_meets_every_sample_ends_the_run_as_it_does_in_process(spread, folder, error):
    with pytest.raises(type(error), match=str(error)):
        spread(FakeRay(), lambda _: error)
    assert indices(folder) == []


def test_where_nothing_is_left_to_do_nothing_is_started(spread):
    spread(FakeRay())
    again = FakeRay()
    spread(again)
    assert again.hired == 0


@pytest.mark.parametrize(("options", "hired"), [({"num_workers": None}, 1), ({"num_workers": 2}, 2)])
def test_without_a_number_there_is_a_worker_for_each_machine(spread, options, hired):
    ray = FakeRay()
    spread(ray, **options)
    assert ray.hired == hired
    assert ray.options["num_cpus"] == 4 // hired


def test_a_cluster_without_room_is_one_line(spread):
    with pytest.raises(UsageError, match="has not 5 cores for as many workers; give fewer --num_workers"):
        spread(FakeRay(), num_workers=5)
    with pytest.raises(UsageError, match="has not 1 GPUs"):
        spread(FakeRay(), num_workers=None, gpu=True)


@pytest.mark.parametrize(
    ("machines", "workers", "gpu", "cores"),
    [
        ([{"CPU": 2}], 2, False, 1),
        ([{"CPU": 16}], 2, False, 8),
        ([{"CPU": 3}, {"CPU": 1}], 2, False, 1),  # half of all, 2, would leave one without a place
        ([{"CPU": 5}, {"CPU": 5}], 3, False, 2),
        ([{"CPU": 2}], 3, False, 0),
        ([{"CPU": 64, "GPU": 4}, {"CPU": 32, "GPU": 4}], 8, True, 8),
        ([{"CPU": 64}, {"CPU": 32, "GPU": 2}], 2, True, 16),
        ([{"CPU": 64, "GPU": 4}], 5, True, 0),
        ([{"GPU": 4}], 4, True, 0),
        ([], 1, False, 0),
    ],
)
def test_cores_are_shared_out_as_far_as_machines_have_them(machines, workers, gpu, cores):
    assert cores_each(machines, workers, gpu=gpu) == cores


def test_a_worker_refuses_another_checkpoint_than_the_run_s(bundle, tmp_path):
    folder = bundle / "reasoner"
    checkpoints, settings = Checkpoints(str(folder)), RunSettings(device="cpu")
    right: dict[Part, str] = {"reasoner": digest(folder, "reasoner")}
    assert load_model(checkpoints, settings, right).sources["reasoner"] == str(folder)
    with pytest.raises(CheckpointError, match=r"is another reasoner here \(.*than the run's \(000000000000\)"):
        load_model(checkpoints, settings, {"reasoner": "0" * 64})
    with pytest.raises(CheckpointError, match="no such folder here"):
        load_model(Checkpoints(str(tmp_path / "none")), settings, right)
    with pytest.raises(CheckpointError, match=r"another calibration\.json here"):
        load_model(checkpoints, settings, right, {"calibration": "0" * 64})
    assert load_model(checkpoints, settings, right, {"calibration": None}).settings == settings


# --- the command line -------------------------------------------------------------------------------------------------
COMMAND = ["--suite", "segmentation", "--device", "cpu", "--max_new_tokens", "6", "--batch_size", "2", "-q"]


@pytest.fixture
def no_ray(monkeypatch):
    """As if Ray were not installed."""
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("flag", [["--num_workers", "2"], ["--ray_address", "auto"]])
def test_without_ray_one_line_says_how_to_install_it(data, capsys, flag):
    assert main([*COMMAND, str(data), *flag]) == 2
    assert (
        'error: --num_workers and --ray_address need Ray; install it: pip install -e ".[ray]"'
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_workers", "0"], "--num_workers must be at least 1"),
        (["--num_workers", "2", "--device", "cuda:1"], "--device cuda:1: with workers Ray says which; give cuda"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(data, capsys, flags, message):
    assert main([*COMMAND, str(data), *flags]) == 2
    assert message in capsys.readouterr().err


def test_without_the_flags_ray_is_not_imported(data, bundle, folder):
    arguments = [*COMMAND, str(data), "--model_path", str(bundle), "--limit", "2", "--output_path", str(folder)]
    code = f"import sys; from evaluation.run import main; main({arguments!r}); sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_workers_get_what_means_the_same_on_every_machine(data, bundle, folder, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed")
    given = []

    def pool(load, batches, **options):
        given.append((load, options))
        return workers.in_process(load, batches)

    monkeypatch.setattr("evaluation.run.on_ray", pool)
    monkeypatch.chdir(bundle.parent)
    arguments = [*COMMAND, str(data), "--model_path", bundle.name, "--limit", "2", "--output_path", str(folder)]
    assert main([*arguments, "--num_workers", "2"]) == 0
    ((load, options),) = given
    checkpoints, settings, digests, views = load.args
    assert checkpoints.reasoner == str(bundle / "reasoner")
    assert checkpoints.segmenter == str(bundle / "segmenter")
    assert (settings.device, settings.dtype, settings.attn_implementation) == ("cpu", "float32", "sdpa")
    assert digests["segmenter"] == digest(bundle / "segmenter", "segmenter")
    assert views is None
    assert options == {"num_workers": 2, "address": None, "at_once": 1, "gpu": False, "silent": True}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "num_workers" not in json.dumps(manifest)
    assert main(arguments) == 0, "continues in process"


# --- with Ray ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster():
    """Two machines of one core each, on this one."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # A busy machine takes longer than Ray waits. Ports that are given need no waiting for those who choose them.
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_agent_register_timeout_ms", "300000")
        patch.setenv("RAY_worker_register_timeout_seconds", "300")
        cluster = Cluster()
        for _ in range(2):
            names = (
                "metrics_agent_port",
                "metrics_export_port",
                "dashboard_agent_listen_port",
                "runtime_env_agent_port",
            )
            cluster.add_node(num_cpus=1, include_dashboard=False, **dict(zip(names, free_ports(4), strict=True)))
        yield cluster
        cluster.shutdown()


def free_ports(n):
    import socket

    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def slow_toy(log):
    """A model that notes its process and takes its time; loaded on the workers."""
    with Path(log).open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    return toy_model(seconds=0.3)


@pytest.mark.slow
def test_on_two_nodes_with_both_workers_killed_in_the_middle_the_figures_are_those_of_one_process(
    cluster, data, folder, expected, tmp_path, caplog
):
    log = tmp_path / "workers"

    def kill():
        size = 0
        for victim in range(2):
            while not (folder / SAMPLES).exists() or (folder / SAMPLES).stat().st_size == size:
                time.sleep(0.01)
            size = (folder / SAMPLES).stat().st_size
            while len(pids := log.read_text().split()) < 2:
                time.sleep(0.01)
            os.kill(int(pids[victim]), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    pool = partial(on_ray, num_workers=2, address=cluster.address)
    toy_run(data, "segmentation", folder, load=partial(slow_toy, str(log)), pool=pool)
    killer.join()
    assert (folder / METRICS).read_bytes() == expected
    assert indices(folder) == list(range(24))
    assert len(set(log.read_text().split())) > 2, "two, and who did the rest"
    assert "A worker died" in caplog.text


@pytest.mark.slow
def test_on_two_nodes_random_weights_give_the_figures_of_one_process(cluster, data, bundle, tmp_path):
    arguments = [*COMMAND, str(data), "--model_path", str(bundle), "--limit", "8"]
    assert main([*arguments, "--output_path", str(tmp_path / "one")]) == 0
    assert main([*arguments, "--output_path", str(tmp_path / "two"), "--ray_address", cluster.address]) == 0
    assert (tmp_path / "two" / METRICS).read_bytes() == (tmp_path / "one" / METRICS).read_bytes()
    for run in ("one", "two"):
        assert indices(tmp_path / run) == list(range(8))


@pytest.mark.slow
def test_an_address_without_a_cluster_is_one_line(data, bundle, folder, capsys):
    pytest.importorskip("ray", reason="Ray is not installed")
    arguments = [*COMMAND, str(data), "--model_path", str(bundle), "--output_path", str(folder)]
    assert main([*arguments, "--ray_address", "nowhere"]) == 2
    assert "error: --ray_address nowhere: cannot be joined" in capsys.readouterr().err
