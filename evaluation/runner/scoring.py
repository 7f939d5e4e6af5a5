"""Replies that were made elsewhere become records, read and checked as those of a run; a segmenter may make masks."""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.runner import upstream
from evaluation.runner.replies import Given, by_id, of_log, read_rows
from evaluation.runner.samples import Sample, Samples
from evaluation.runner.schema import Record
from evaluation.runner.workers import Batch, Load, record_of
from vision_reasoner.data.sources import upright_sizes
from vision_reasoner.errors import DataError, UsageError, VisionReasonerError
from vision_reasoner.files import sha256
from vision_reasoner.geometry import Box, Point, Size
from vision_reasoner.images import load_image
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.reasoner import NORMALIZED_SIZE, Reply
from vision_reasoner.parsing import parse_reply
from vision_reasoner.prompts import DIALECTS
from vision_reasoner.reading import read_reply
from vision_reasoner.results import Instance, Prediction, Task
from vision_reasoner.settings import RunSettings

logger = logging.getLogger(__name__)

MOST_LIKELY = 0.01  # of log-probabilities: rounding leaves some above 0
PROCESSED = {"factor": 28, "min_pixels": 56 * 56, "max_pixels": 28 * 28 * 16384}  # of the released Qwen2.5-VL


class Replies(NamedTuple):
    """What was read: by the sample's number, and the files' digest."""

    given: Mapping[int, Given]
    digest: str


def read_replies(paths: Sequence[Path], samples: Samples, n: int, *, id_column: str | None = None) -> Replies:
    """Read files of replies to the first `n` samples; those to others are passed over.

    A sample without a reply counts as failed, which is said.

    Raises:
        DataError: a file, row or id cannot be used; see `replies` and `upstream`.
        UsageError: the data set has no such column.
    """
    files, rows = read_rows(paths)
    if upstream.is_measured(rows[0][1]):
        found = upstream.measured(rows, samples)
    elif "doc_id" in rows[0][1]:
        found = of_log(rows, samples)
    else:
        found = by_id(rows, samples, id_column)
    missing = [index for index in range(n) if index not in found]
    if len(missing) == n:
        raise DataError(f"{paths[0]}: none of the {n} samples has a reply; give other files")
    if missing:
        first = samples.ids[missing[0]]
        logger.warning("%d of %d samples have no reply and count as failed (first: %s)", len(missing), n, first)
    digest = hashlib.sha256("\n".join(map(sha256, files)).encode()).hexdigest()
    return Replies({index: given for index, given in found.items() if index < n}, digest)


def check_masks(replies: Replies, task: Task, settings: RunSettings) -> None:
    """Raise a UsageError where masks are scored and some reply has objects without masks."""
    if task is not Task.SEGMENTATION:
        return
    without = sum(_lacks_masks(given, settings) for given in replies.given.values())
    if without:
        raise UsageError(
            f"{without} of {len(replies.given)} replies have boxes without masks, and this suite scores masks: give "
            "masks in the rows, or a SAM2 that makes them (--segmentation_model_path); boxes alone are scored by "
            "--suite grounding"
        )


def _lacks_masks(given: Given, settings: RunSettings) -> bool:
    if given.instances is not None:
        return any(not (isinstance(one, Mapping) and one.get("mask")) for one in given.instances)
    if given.masks is not None:
        return not all(given.masks)
    if given.error is not None or given.measured is not None:
        return False
    frame = given.frame or NORMALIZED_SIZE  # whether there are objects does not depend on it
    found = parse_reply(given.text, model_size=frame, image_size=frame, grammar=DIALECTS[settings.model].grammar)
    return bool(found.instances)


def from_replies(
    replies: Replies, settings: RunSettings, frame_side: int, load: Load, batches: Iterable[Batch]
) -> Iterator[list[Record]]:
    """A pool (see `workers`) that asks nothing: records of given replies.

    Args:
        replies: by the sample's number.
        settings: `model` and limits say how replies are read.
        frame_side: of the frame of "square" dialects.
        load: gives a model with a segmenter; called where masks have to be made.
        batches: of samples.
    """
    model: VisionReasoner | None = None
    for batch in batches:
        records = []
        for sample in batch.samples:
            given = replies.given.get(sample.index, Given(error="there is no reply to it"))
            outcome = None if sample.problem else read_given(sample, given, batch.task, settings, frame_side)
            if isinstance(outcome, Prediction) and batch.task is Task.SEGMENTATION and _wants_masks(outcome):
                model = model or load()
                outcome = _segmented(model, sample, outcome)
            records.append(_record(sample, given, batch.task, outcome))
        yield records


def _wants_masks(outcome: Prediction) -> bool:
    return any(instance.mask_shape is None for instance in outcome.instances)


def _segmented(model: VisionReasoner, sample: Sample, outcome: Prediction) -> Prediction | Exception:
    try:
        return replace(outcome, instances=model.segment(sample.image, outcome.instances))
    except VisionReasonerError as error:
        return error


def _record(sample: Sample, given: Given, task: Task, outcome: Prediction | Exception | None) -> Record:
    record = record_of(sample, task, outcome)
    if record["error"] is None and given.measured is not None:
        try:
            record["scores"] = upstream.scores_of(given.measured, sample.truth)
        except DataError as error:
            return record_of(sample, task, error)
    return record


def read_given(
    sample: Sample, given: Given, task: Task, settings: RunSettings, frame_side: int
) -> Prediction | Exception:
    """What a sample's reply says, or why it cannot be used."""
    if given.error is not None:
        return DataError(given.error)
    try:
        size = _size_of(sample, settings)
        warnings = [given.warning] if given.warning else []
        if given.count is not None or given.measured is not None:
            count = given.count if given.measured is None else given.measured.get("pred_count")
            answer = None if count is None else str(count)
            return Prediction(size, sample.query, task, given.thinking, answer=answer)
        if given.instances is not None:
            found = [_instance(one) for one in given.instances]
            return Prediction(
                size, sample.query, task, given.thinking, given.text, given.status, warnings, instances=found
            )
        frame = given.frame or frame_of(size, settings.model, frame_side)
        dialect = DIALECTS[settings.model]
        prediction = read_reply(Reply(given.text, frame), size, sample.query, task, dialect=dialect, settings=settings)
        return prediction if given.masks is None else _with_masks(prediction, given.masks)
    except (VisionReasonerError, ValueError, TypeError, KeyError, OverflowError) as error:
        return error


def _size_of(sample: Sample, settings: RunSettings) -> Size:
    """(width, height) of the upright image, by its header where that tells."""
    sizes = upright_sizes({"bytes": sample.image})
    return sizes[0] if len(sizes) == 1 else load_image(sample.image, max_pixels=settings.max_image_pixels).size


def frame_of(size: Size, model: str, side: int) -> Size:
    """(width, height) of the frame that a model's coordinates are in, for an image of `size`."""
    frame = DIALECTS[model].frame
    if frame == "normalized_1000":
        return NORMALIZED_SIZE
    if frame == "processed":
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        height, width = smart_resize(size[1], size[0], **PROCESSED)
        return width, height
    return side, side


def _instance(value: Any) -> Instance:
    """An object of a row, as samples.jsonl has it; fractions of its box and point are rounded."""
    if not isinstance(value, Mapping) or not isinstance(value.get("box"), list) or len(value["box"]) != 4:
        raise DataError(f'an object is {str(value)[:60]}; expected {{"box": [x1, y1, x2, y2], ...}} in pixels')
    point, likelihood = value.get("point"), value.get("likelihood")
    return Instance(
        box=Box(*map(_whole, value["box"])),
        point=None if point is None else Point(*map(_whole, point)),
        mask=value.get("mask"),
        likelihood=None if likelihood is None else _log_probability(likelihood),
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"a coordinate is {str(value)[:40]!r}; expected a number of pixels")
    return int(value + 0.5)


def _log_probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= MOST_LIKELY:
        raise DataError(f"a likelihood is {str(value)[:40]}; expected a log-probability, a finite number of 0 at most")
    return float(value)


def _with_masks(prediction: Prediction, masks: Sequence[Any]) -> Prediction:
    if len(masks) != len(prediction.instances):
        raise DataError(f"it has {len(masks)} masks for the {len(prediction.instances)} objects of its reply")
    found = [replace(one, mask=mask) for one, mask in zip(prediction.instances, masks, strict=True)]
    return replace(prediction, instances=found)
