"""Evaluate: a model's answers to the samples that have none yet, as records in the run's folder, and the figures."""

import logging
import sys
from collections.abc import Container, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from evaluation.runner.figures import write_report
from evaluation.runner.ranking import read_annotations
from evaluation.runner.records import INSTANCES, MANIFEST, SAMPLES, add_batch_size, begin, finished, write_json
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Manifest, Metrics
from evaluation.runner.workers import Batch, Load, Pool, in_process
from vision_reasoner.errors import DataError
from vision_reasoner.files import append_jsonl, locked
from vision_reasoner.results import Task

logger = logging.getLogger(__name__)

SHOWN = 5  # rows that cannot be used, before the run begins


def evaluate(
    samples: Samples, load: Load, folder: Path, manifest: Manifest, *, by: Sequence[str] = (), **options: Any
) -> Metrics:
    """Begin a run, or continue it, and report on it, `by` columns; other arguments and errors are those of `collect`.

    Returns:
        What metrics.json holds.
    """
    with locked(folder):
        _collect(samples, load, folder, manifest, **options)
        return write_report(folder, by)


def collect(samples: Samples, load: Load, folder: Path, manifest: Manifest, **options: Any) -> int:
    """Begin a run or a shard of one, or continue it, without a report.

    Args:
        samples: of the data set.
        load: gives the model; not called where nothing is left to do.
        folder: of the run; made if need be.
        manifest: what the run is of, see `manifest.describe`.
        options: those of `_collect`.

    Returns:
        How many samples failed.

    Raises:
        UsageError: the folder holds a run of something else, or another process writes there.
        DataError: no row can be used, or the instances file is not this set's.
    """
    with locked(folder):
        return _collect(samples, load, folder, manifest, **options)


def _collect(
    samples: Samples,
    load: Load,
    folder: Path,
    manifest: Manifest,
    *,
    annotations: Path | None = None,
    batch_size: int = 16,
    overwrite: bool = False,
    pool: Pool = in_process,
    told: Set[int] = frozenset(),
    quiet: bool = False,
) -> int:
    """`collect` in a folder that is locked.

    Args:
        annotations: for average precision the instances file; None takes the rows' own boxes.
        batch_size: how many samples go through the model together.
        overwrite: whether an earlier run in the folder is thrown away.
        pool: who works on the batches.
        told: samples whose failure has been told already.
        quiet: no progress bar.
    """
    begin(folder, manifest, overwrite=overwrite)
    n, done = manifest["n"], finished(folder)
    try:
        problems = _check(samples, n, quiet=quiet) if len(done) < n else {}
        if samples.suite.ranked and not (folder / INSTANCES).is_file():
            write_json(folder / INSTANCES, read_annotations(annotations, samples).to_json())
    except DataError:
        if not (folder / SAMPLES).exists():
            (folder / MANIFEST).unlink()  # the same command begins anew when the data is put right
        raise
    batches = plan(samples, n, batch_size) if len(done) < n else []
    if (shard := manifest.get("shard")) is not None:
        batches = batches[shard["number"] - 1 :: shard["of"]]
    # A batch of which something is missing is done whole, so that every sample is asked in the same company always.
    batches = [batch for batch in batches if not done >= set(batch)]
    if batches:
        add_batch_size(folder, batch_size)
    return _work(samples, load, folder, batches, done, problems.keys() | told, pool=pool, quiet=quiet)


def _check(samples: Samples, n: int, *, quiet: bool) -> Mapping[int, str]:
    """The problems of those of the first `n` rows that cannot be used, said before anything is asked.

    Raises:
        DataError: no row can be used.
    """
    problems = samples.check(n, quiet=quiet)
    if not problems:
        return problems
    shown = list(problems.values())[:SHOWN]
    if len(problems) == n:
        raise DataError(f"none of the {n} rows can be used; the first: {shown[0]}")
    logger.warning("%d of %d rows cannot be used; they count as failed and are in no figure:", len(problems), n)
    for problem in shown:
        logger.warning("  %s", problem)
    if len(problems) > SHOWN:
        logger.warning("  and %d more; %s of the run will have all", len(problems) - SHOWN, SAMPLES)
    return problems


def _work(
    samples: Samples,
    load: Load,
    folder: Path,
    batches: Sequence[Sequence[int]],
    done: Set[int],
    problems: Container[int],
    *,
    pool: Pool,
    quiet: bool,
) -> int:
    """Add a record for each sample of the batches that is not `done`; of `problems` is not warned again.

    Returns:
        How many of them failed.
    """
    from tqdm import tqdm

    suite, failed = samples.suite, 0
    todo = {index for batch in batches for index in batch} - done
    bar = tqdm(total=len(todo) + len(done), initial=len(done), unit="sample", disable=quiet, file=sys.stderr)
    with (folder / SAMPLES).open("ab") as lines, bar:
        made = (Batch([samples[i] for i in batch], suite.task, prompted=suite.prompted) for batch in batches)
        for records in pool(load, made):
            new = [record for record in records if record["index"] not in done]
            append_jsonl(lines, new)
            bar.update(len(new))
            for record in new:
                failed += record["error"] is not None
                if record["error"] and record["index"] not in problems:
                    with tqdm.external_write_mode(file=sys.stderr):
                        logger.warning("sample %s failed: %s", record["id"], record["error"])
    return failed


def plan(samples: Samples, n: int, batch_size: int) -> list[list[int]]:
    """The first `n` samples' numbers in batches: the longest first, those of about the same length together.

    Always the same for the same samples and sizes. Length is the image's size where that decides it (questions), and
    the request's. Where the segmenter alone is asked, the order is the data set's: its rows of one image come together.
    """
    if samples.suite.prompted:
        return [list(range(start, min(start + batch_size, n))) for start in range(0, n, batch_size)]
    by_size = samples.suite.task is Task.VQA
    pixels = [samples.pixels(i) if by_size else 0 for i in range(n)]
    order = sorted(range(n), key=lambda i: (-pixels[i], -len(samples.queries[i]), i))
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]
