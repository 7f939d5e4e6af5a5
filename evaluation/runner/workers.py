"""Batches of samples in, batches of records out: the part of a run that needs a model, and how it is spread.

A pool is a function from a way to load the model and batches to finished batches, in whatever order they finish;
`in_process` is the one for a single device, `on_ray` the one for several devices and machines. Whoever drives it is the
only one to write.
"""

import logging
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from evaluation.runner.samples import Sample, digest_of
from evaluation.runner.schema import Record, Truth
from vision_reasoner.cli import silence_transformers
from vision_reasoner.errors import CheckpointError, UsageError, VisionReasonerError, one_line
from vision_reasoner.geometry import Box, Point
from vision_reasoner.images import load_image
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.checkpoints import CALIBRATION, Part, calibration_digest, digest
from vision_reasoner.parallel import in_threads
from vision_reasoner.results import Instance, Prediction, Status, Task
from vision_reasoner.settings import Checkpoints, RunSettings

logger = logging.getLogger(__name__)

WARN_AFTER_SECONDS = 60.0  # without any worker
MAX_WORKER_FAILURES = 3  # workers that may die over the same batch, or while loading, before it is taken for the cause

Load = Callable[[], VisionReasoner]


@dataclass(frozen=True)
class Batch:
    """Samples that go through the model together; `prompted` as `Suite` has it."""

    samples: Sequence[Sample]
    task: Task
    prompted: bool = False


Pool = Callable[[Load, Iterable[Batch]], Iterator[list[Record]]]


def load_model(
    checkpoints: Checkpoints,
    settings: RunSettings,
    digests: Mapping[Part, str] | None = None,
    views: Mapping[str, Any] | None = None,
    *,
    silent: bool = True,
) -> VisionReasoner:
    """The model of a run.

    Args:
        checkpoints, settings: as `VisionReasoner.from_settings` takes them.
        digests: what the parts' folders must hold, where this may be another machine; see `checkpoints.digest`.
        views: of the manifest's settings, with the digest of the calibration that must be there, too.
        silent: without what transformers has to say.

    Raises:
        CheckpointError: a checkpoint is missing, or another than the run's.
    """
    if silent:
        silence_transformers()
    for part, wanted in (digests or {}).items():
        folder = Path(getattr(checkpoints, part) or "")
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: there is no such folder here; every machine needs the {part} in this place"
            )
        if (found := digest(folder, part)) != wanted:
            raise CheckpointError(
                f"{folder}: is another {part} here ({found[:12]}) than the run's ({wanted[:12]}); copy that one here"
            )
    if views and calibration_digest(Path(checkpoints.reasoner or "")) != views["calibration"]:
        raise CheckpointError(
            f"{checkpoints.reasoner}: has another {CALIBRATION} here than the run; copy that one here"
        )
    return VisionReasoner.from_settings(checkpoints, settings)


def in_process(load: Load, batches: Iterable[Batch], *, at_once: int = 1) -> Iterator[list[Record]]:
    """Work here on so many batches at a time. The model is loaded if there is any batch."""
    todo = iter(batches)
    if (first := next(todo, None)) is not None:
        yield from in_threads(partial(answer, load()), chain([first], todo), at_once)


def on_ray(
    load: Load,
    batches: Iterable[Batch],
    *,
    num_workers: int | None = None,
    address: str | None = None,
    at_once: int = 1,
    gpu: bool = False,
    silent: bool = True,
) -> Iterator[list[Record]]:
    """Work on the batches by Ray: each worker has a model and so many batches at a time.

    The batches of a worker that dies are done again by others, and the worker is replaced.

    Args:
        load: called once by each worker; must mean the same on every machine.
        batches: taken as workers become free. Where there is none, nothing is started.
        num_workers: None is one for each GPU of the cluster, on CPUs one for each machine.
        address: of a cluster, as `ray.init` takes it; None starts Ray on this machine, for as long as it is needed.
        at_once: how many batches a worker has under way.
        gpu: whether each worker gets a GPU. Cores are shared out evenly.
        silent: without what Ray and the workers have to say.

    Raises:
        UsageError: Ray is not installed or does not start, or the cluster has not enough for so many workers.
        VisionReasonerError: one worker after the other dies.
        Exception: what `load` and `answer` raise on a worker.
    """
    numbered = enumerate(batches)
    if (first := next(numbered, None)) is None:
        return
    with _cluster(address, num_workers, silent) as ray:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers = num_workers or (int(sum(m.get("GPU", 0) for m in machines)) if gpu else len(machines))
        cores = cores_each(machines, workers, gpu=gpu)
        if not cores:
            raise UsageError(
                f"the cluster has not {max(workers, 1)} {'GPUs' if gpu else 'cores'} for as many workers; give fewer "
                "--num_workers, or start Ray on more machines"
            )
        # Ray sets OMP_NUM_THREADS to an actor's cores.
        worker = ray.remote(num_cpus=cores, num_gpus=int(gpu), scheduling_strategy="SPREAD", max_concurrency=at_once)(
            _Worker
        )
        yield from _share_out(ray, lambda: worker.remote(load), workers, at_once, chain([first], numbered))


def _share_out(
    ray: Any, spawn_worker: Callable[[], Any], workers: int, at_once: int, todo: Iterator[tuple[int, Batch]]
) -> Iterator[list[Record]]:
    """Keep so many workers busy with `at_once` batches each until all are done; `spawn_worker` gives a new one."""
    busy: dict[Any, tuple[Any, tuple[int, Batch] | None]] = {}  # by what is waited for; without a batch: loading
    idle: list[Any] = []  # a worker as often as it can take one more
    alive: list[Any] = []
    again: list[tuple[int, Batch]] = []
    failures: Counter[int | None] = Counter()  # by batch; None: while loading
    finished: list[Record] = []

    def start() -> None:
        worker = spawn_worker()
        alive.append(worker)
        busy[worker.start.remote()] = (worker, None)

    for _ in range(workers):
        start()
    while True:
        while idle and (job := again.pop() if again else next(todo, None)):
            worker = idle.pop()
            busy[worker.answer.remote(job[1])] = (worker, job)
        if finished:  # its worker has the next batch already
            yield finished
            finished = []
        working = any(job for _, job in busy.values())
        if idle and not working:
            return
        done, _ = ray.wait(list(busy), timeout=WARN_AFTER_SECONDS)
        if not done:
            if not working:
                logger.warning(
                    "No worker is ready yet: they load the checkpoint, or the cluster is busy (`ray status`)"
                )
            continue
        worker, job = busy.pop(done[0])
        number = job and job[0]
        try:
            result = ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            what = f"over the batch of sample {job[1].samples[0].id}" if job else "before it was ready"
            failures[number] += 1
            if failures[number] > MAX_WORKER_FAILURES:
                raise VisionReasonerError(
                    f"{failures[number]} workers died, one after the other, {what} ({one_line(error)}); does memory "
                    "suffice? Try a smaller --batch_size or fewer --num_workers; what is finished is kept"
                ) from error
            again += [job] if job else []
            if any(worker is one for one in alive):  # of its batches the first to say so
                logger.warning("A worker died %s; another one does its work (%s)", what, one_line(error))
                alive[:] = [one for one in alive if one is not worker]
                idle[:] = [one for one in idle if one is not worker]
                ray.kill(worker)
                start()
            continue
        failures.pop(number, None)
        idle += [worker] if job else [worker] * at_once
        finished = result if job else []


def import_ray() -> Any:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    try:
        import ray
    except ImportError as error:
        raise UsageError('--num_workers and --ray_address need Ray; install it: pip install -e ".[ray]"') from error
    return ray


@contextmanager
def _cluster(address: str | None, num_workers: int | None, silent: bool) -> Iterator[Any]:
    """Ray, connected."""
    ray = import_ray()
    options: dict[str, Any] = {"log_to_driver": not silent}
    if silent:
        options["logging_level"] = logging.ERROR
    if address is None:
        options |= {"num_cpus": max(num_workers or 1, os.cpu_count() or 1), "include_dashboard": False}
    else:  # the other machines work with this machine's code
        root = Path(__file__).resolve().parents[2]
        code = [str(root / package) for package in ("evaluation", "vision_reasoner")]
        options["runtime_env"] = {"py_modules": code, "excludes": ["/data"]}
    try:
        ray.init(address or "local", **options)
    except Exception as error:
        if address:
            raise UsageError(
                f"--ray_address {address}: cannot be joined ({one_line(error)}); `ray status` there tells about it"
            ) from error
        raise UsageError(f"Ray does not start here ({one_line(error)}); is the machine busy? Try again") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def cores_each(machines: Sequence[Mapping[str, float]], workers: int, *, gpu: bool) -> int:
    """How many cores each of `workers` can have, all the same, where `machines` have these resources; 0: too few."""

    def room(cores: int) -> int:
        by_cores = (int(machine.get("CPU", 0)) // cores for machine in machines)
        by_gpus = (int(machine.get("GPU", 0)) for machine in machines)
        return sum(map(min, by_cores, by_gpus)) if gpu else sum(by_cores)

    most = int(sum(machine.get("CPU", 0) for machine in machines)) // max(workers, 1)
    return next((cores for cores in range(most, 0, -1) if 0 < workers <= room(cores)), 0)


class _Worker:
    """What runs as Ray's actor: a model."""

    def __init__(self, load: Load) -> None:
        self.load = load

    def start(self) -> None:
        try:
            self.model = self.load()
        except VisionReasonerError as error:
            raise type(error)(f"on {platform.node()}: {error}") from error

    def answer(self, batch: Batch) -> list[Record]:
        return answer(self.model, batch)


def answer(model: VisionReasoner, batch: Batch) -> list[Record]:
    """A record for each sample. One that fails by itself gets a record with its error, and the others go on.

    Raises:
        VisionReasonerError: nothing works with this model.
    """
    usable = [sample for sample in batch.samples if sample.problem is None]
    if batch.prompted:
        outcomes = segment_prompted(model, usable)
    else:
        outcomes = model.predict_each([(sample.image, sample.query) for sample in usable], batch.task) if usable else []
    by_index = {sample.index: outcome for sample, outcome in zip(usable, outcomes, strict=True)}
    return [record_of(sample, batch.task, by_index.get(sample.index)) for sample in batch.samples]


def segment_prompted(model: VisionReasoner, samples: Sequence[Sample]) -> list[Prediction | Exception]:
    """The segmenter's masks of the truth's boxes and points; samples of one image in succession are encoded once."""
    outcomes: list[Prediction | Exception] = []
    for source, group in groupby(samples, key=lambda sample: sample.image):
        told = list(group)
        prompts = [
            Instance(Box(*s.truth["boxes"][0]), Point(*s.truth["point"]) if "point" in s.truth else None) for s in told
        ]
        try:
            image = load_image(source)
            found = model.segment(image, prompts)
        except VisionReasonerError as error:
            outcomes += [error] * len(told)
            continue
        outcomes += [
            Prediction(image.size, sample.query, Task.SEGMENTATION, status=Status.OK, instances=[instance])
            for sample, instance in zip(told, found, strict=True)
        ]
    return outcomes


def record_of(sample: Sample, task: Task, outcome: Prediction | Exception | None) -> Record:
    """The record of a sample (see `records`); `outcome` is None where it was not asked about."""
    record: Record = {
        "index": sample.index,
        "id": sample.id,
        "image_id": sample.image_id,
        "query": sample.query,
        "task": task.value,
        "size": list(sample.size),
        "columns": dict(sample.columns),
        "error": sample.problem,
    }
    if isinstance(outcome, Exception):
        record["error"] = one_line(outcome)
    if outcome is None or isinstance(outcome, Exception):
        return record
    found = outcome.to_json()
    record["size"] = found["image_size"]
    if problem := _mask_problem(sample.truth, outcome):
        record["error"] = problem
        return record
    return {
        **record,
        "status": found["status"],
        "warnings": found["warnings"],
        "thinking": found["thinking"],
        "reply": found["reply"],
        "answer": found["answer"],
        "instances": found["instances"],
        "timings": found["timings"],
        "truth": sample.truth,
        "truth_digest": digest_of(sample.truth),
    }


def _mask_problem(truth: Truth, outcome: Prediction) -> str | None:
    """A mask of another shape than its image was made for another image, or for this one before it was turned."""
    width, height = outcome.image_size
    for name in ("mask", "ignore"):
        if name in truth and truth[name]["size"] != [height, width]:
            rows, columns = truth[name]["size"]
            turned = " (turned by its EXIF orientation?)" if [rows, columns] == [width, height] else ""
            return f"its {name} is {columns}x{rows} and its image {width}x{height}{turned}; prepare the data set anew"
    return None
