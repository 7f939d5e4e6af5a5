"""Batches of samples in, batches of records out: the part of a run that needs a model, and how it is spread.

A pool is a function from a way to load the model and batches to finished batches, in whatever order they finish;
`in_process` is the one for a single device. Whoever drives it is the only one to write.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.samples import Sample, digest_of
from vision_reasoner.errors import one_line
from vision_reasoner.inference import hush_transformers
from vision_reasoner.model import VisionReasoner
from vision_reasoner.results import Prediction, Task

Load = Callable[[], VisionReasoner]


@dataclass(frozen=True)
class Batch:
    """Samples that go through the model together."""

    samples: Sequence[Sample]
    task: Task


Pool = Callable[[Load, Iterable[Batch]], Iterator[list[dict[str, Any]]]]


def load_model(settings: Mapping[str, Any], *, quietly: bool = True) -> VisionReasoner:
    """The model of a run; `settings` are the arguments of `VisionReasoner.from_pretrained`."""
    if quietly:
        hush_transformers()
    return VisionReasoner.from_pretrained(**settings)


def in_process(load: Load, batches: Iterable[Batch]) -> Iterator[list[dict[str, Any]]]:
    """Work on the batches here, one after the other. The model is loaded if there is any."""
    model = None
    for batch in batches:
        model = model or load()
        yield answer(model, batch)


def answer(model: VisionReasoner, batch: Batch) -> list[dict[str, Any]]:
    """A record for each sample. One that fails by itself gets a record with its error, and the others go on.

    Raises:
        VisionReasonerError: nothing works with this model.
    """
    usable = [sample for sample in batch.samples if sample.problem is None]
    outcomes = model.predict_each([(sample.image, sample.query) for sample in usable], batch.task) if usable else []
    by_index = {sample.index: outcome for sample, outcome in zip(usable, outcomes, strict=True)}
    return [record_of(sample, batch.task, by_index.get(sample.index)) for sample in batch.samples]


def record_of(sample: Sample, task: Task, outcome: Prediction | Exception | None) -> dict[str, Any]:
    """The record of a sample (see `records`); `outcome` is None where it was not asked about."""
    record: dict[str, Any] = {
        "index": sample.index,
        "id": sample.id,
        "image_id": sample.image_id,
        "query": sample.query,
        "task": task.value,
        "size": list(sample.size),
        "error": sample.problem,
    }
    if isinstance(outcome, Exception):
        return {**record, "error": one_line(outcome)}
    if outcome is None:
        return record
    found = outcome.to_json()
    record["size"] = found["image_size"]
    if problem := _mask_problem(sample.truth, outcome):
        return {**record, "error": problem}
    kept = ("status", "warnings", "thinking", "reply", "answer", "instances", "timings")
    return {
        **record,
        **{key: found[key] for key in kept},
        "truth": sample.truth,
        "truth_digest": digest_of(sample.truth),
    }


def _mask_problem(truth: Mapping[str, Any], outcome: Prediction) -> str | None:
    """A mask of another shape than its picture was made for another picture, or for this one before it was turned."""
    width, height = outcome.image_size
    for name in ("mask", "ignore"):
        if name in truth and truth[name]["size"] != [height, width]:
            rows, columns = truth[name]["size"]
            turned = " (turned by its EXIF orientation?)" if [rows, columns] == [width, height] else ""
            return f"its {name} is {columns}x{rows} and its picture {width}x{height}{turned}; prepare the data set anew"
    return None
