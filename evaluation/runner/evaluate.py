"""Evaluate: a model's answers to the samples that have none yet, as records in the run's folder, and the figures."""

import logging
import sys
from pathlib import Path

from evaluation.runner.figures import write_report
from evaluation.runner.ranking import read_annotations
from evaluation.runner.records import INSTANCES, SAMPLES, begin, finished, write_json
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Manifest, Metrics
from evaluation.runner.workers import Batch, Load, Pool, in_process
from vision_reasoner.files import append_jsonl, locked
from vision_reasoner.results import Task

logger = logging.getLogger(__name__)


def evaluate(
    samples: Samples,
    load: Load,
    folder: Path,
    manifest: Manifest,
    *,
    annotations: Path | None = None,
    batch_size: int = 16,
    overwrite: bool = False,
    pool: Pool = in_process,
    quiet: bool = False,
) -> Metrics:
    """Begin a run, or continue it, and report on it.

    Args:
        samples: of the data set.
        load: gives the model; not called where nothing is left to do.
        folder: of the run; made if need be.
        manifest: what the run is of, see `manifest.describe`.
        annotations: for average precision the instances file; None takes the rows' own boxes.
        batch_size: how many samples go through the model together.
        overwrite: whether an earlier run in the folder is thrown away.
        pool: who works on the batches.
        quiet: no progress bar.

    Returns:
        What metrics.json holds.

    Raises:
        UsageError: the folder holds a run of something else, or another process writes there.
    """
    with locked(folder):
        begin(folder, manifest, overwrite=overwrite)
        if samples.suite.ranked and not (folder / INSTANCES).is_file():
            write_json(folder / INSTANCES, read_annotations(annotations, samples).to_json())
        _work(samples, load, folder, n=manifest["n"], batch_size=batch_size, pool=pool, quiet=quiet)
        return write_report(folder)


def _work(samples: Samples, load: Load, folder: Path, *, n: int, batch_size: int, pool: Pool, quiet: bool) -> None:
    """Add a record for each of the first `n` samples that has none yet."""
    from tqdm import tqdm

    suite, done = samples.suite, finished(folder)
    # A batch of which something is missing is done whole, so that every sample is asked in the same company always.
    batches = [batch for batch in plan(samples, n, batch_size) if not done.issuperset(batch)]
    bar = tqdm(total=n, initial=len(done), unit="sample", disable=quiet, file=sys.stderr)
    with (folder / SAMPLES).open("ab") as lines, bar:
        made = (Batch([samples[i] for i in batch], suite.task, prompted=suite.prompted) for batch in batches)
        for records in pool(load, made):
            new = [record for record in records if record["index"] not in done]
            append_jsonl(lines, new)
            bar.update(len(new))
            for record in new:
                if record["error"]:
                    with tqdm.external_write_mode(file=sys.stderr):
                        logger.warning("sample %s failed: %s", record["id"], record["error"])


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
