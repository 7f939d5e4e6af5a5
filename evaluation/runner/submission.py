"""The answers of a run as test servers take them, where the truth is not published.

A JSON list with an object for each question: its id, under the name that the data set has for it, and the answer. So it
is for DocVQA and InfographicVQA (`questionId`), for VQAv2 and TextVQA (`question_id`).
"""

import logging
import re
from pathlib import Path
from typing import Any

from evaluation.runner.records import SUBMISSION, read_manifest, read_records, write_json
from vision_reasoner.errors import DataError

logger = logging.getLogger(__name__)


def write_submission(folder: Path) -> Path:
    """Write a finished run's submission.json; gives the file. What failed has an empty answer, which is said.

    Raises:
        DataError: the run is not finished, or questions have no ids of their own.
    """
    data = read_manifest(folder)["data"]
    column = data["columns"].get("ann_id", "")
    answers: dict[Any, str] = {}
    failed = 0
    for record in sorted(read_records(folder), key=lambda one: one["index"]):
        name = _id(record.get("columns", {}).get(column))
        if name is None or name in answers:
            raise DataError(
                f"{folder}: sample {record['id']} has no {column!r} of its own; --columns ann_id=... names it"
            )
        failed += record["error"] is not None
        answers[name] = record.get("answer") or ""
    if failed:
        logger.warning("%d of %d samples failed; their answers are empty in %s", failed, len(answers), SUBMISSION)
    if len(answers) < data["rows"]:
        logger.warning("%s has %d of the %d questions: the run was limited", SUBMISSION, len(answers), data["rows"])
    write_json(folder / SUBMISSION, [{column: name, "answer": answer} for name, answer in answers.items()])
    return folder / SUBMISSION


def _id(value: Any) -> int | str | None:
    """A question's id as servers have it: a number where it is one."""
    if isinstance(value, str):
        return int(value) if re.fullmatch("[0-9]{1,18}", value) else value
    return value if type(value) is int else None
