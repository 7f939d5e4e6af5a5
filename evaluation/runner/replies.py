"""Files of replies that were made elsewhere, read strictly, and which sample each reply is of.

- Rows with an `id` and what was said: `reply` (a model's raw text), `answer`, `count`, or `instances` as samples.jsonl
  of a run has them; as JSON lines, or as a JSON list.
- lmms-eval's sample logs: a line for each row of the data set (`doc_id`), with `filtered_resps` or `resps`.

What the original repository leaves is read by `upstream`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.runner.samples import Samples
from evaluation.truth import FieldError, count_of, id_text
from vision_reasoner.data.sources import check_json_size
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.results import Status, Task

Row = Mapping[str, Any]
Numbered = Sequence[tuple[str, Row]]
"""Rows, each with the place where it stands."""

SHOWN = 3  # ids in a message


@dataclass(frozen=True)
class Given:
    """What there is of one sample.

    Attributes:
        text: a model's raw reply, or in a question's answer.
        frame: (width, height) that the text's coordinates are in, where the row says so.
        masks: run lengths for each object of the text, where the row has some.
        instances: objects as samples.jsonl has them, instead of those that the text would give.
        status: of the instances, or of what was measured.
        count: a number of objects, instead of objects.
        measured: what the original repository measured, by its names.
        thinking: the reasoning, where it is not in the text.
        warning: what is odd about it.
        error: why there is none of these.
    """

    text: str = ""
    frame: Size | None = None
    masks: Sequence[Any] | None = None
    instances: Sequence[Any] | None = None
    status: Status = Status.OK
    count: int | None = None
    measured: Mapping[str, Any] | None = None
    thinking: str = ""
    warning: str | None = None
    error: str | None = None


def read_rows(paths: Sequence[Path]) -> tuple[list[Path], Numbered]:
    """The rows of files of replies, and the files.

    Args:
        paths: files, or a folder of the original's `output_*.json`.

    Raises:
        DataError: one cannot be read or holds no rows, or a folder lacks one.
    """
    files = [file for path in paths for file in _files(path)]
    rows = [row for file in files for row in _rows(file)]
    if not rows:
        raise DataError(f"{paths[0]}: holds no replies; give another file")
    return files, rows


def _files(path: Path) -> list[Path]:
    """The file, or the original's files of a folder by number."""
    if not path.is_dir():
        return [path]
    found = {
        int(match[1]): file for file in path.iterdir() if (match := re.fullmatch(r"output_(\d+)\.json", file.name))
    }
    if not found:
        raise DataError(f"{path}: is a folder without output_*.json; give files of replies")
    if missing := [number for number in range(max(found)) if number not in found]:
        raise DataError(
            f"{path}: output_{missing[0]}.json is missing, and what that part found; run it again, or name the "
            "files that there are"
        )
    return [found[number] for number in sorted(found)]


def _rows(file: Path) -> list[tuple[str, Row]]:
    """The objects of a JSON list, or of JSON lines."""
    check_json_size(file)
    if file.suffix == ".json":
        try:
            entries = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: is no JSON; JSON lines are called .jsonl") from error
        if not isinstance(entries, list):
            raise DataError(f"{file}: is no JSON list of replies; give another file")
        places = [f"{file}: entry {number}" for number in range(1, len(entries) + 1)]
        return [(place, _object(place, entry)) for place, entry in zip(places, entries, strict=True)]
    rows = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            rows.append((f"{file}: line {number}", _object(f"{file}: line {number}", entry)))
    return rows


def _object(place: str, entry: Any) -> Row:
    if not isinstance(entry, dict):
        raise DataError(f"{place}: is no JSON object; put it right")
    return entry


# --- rows with ids ----------------------------------------------------------------------------------------------------
def by_id(rows: Numbered, samples: Samples, id_column: str | None = None) -> dict[int, Given]:
    """What rows with ids say, by the sample's number.

    Args:
        rows: of a file.
        samples: of the data set.
        id_column: the data set's column that has the rows' ids; None takes the samples' own.

    Raises:
        DataError: a row has no id or nothing that was said, an id is there twice or is none of the data set's, or a row
            says that it answers another request.
        UsageError: the data set has no such column.
    """
    ids = samples.ids if id_column is None else _column_ids(samples, id_column)
    numbers = {name: index for index, name in enumerate(ids)}
    keys = ("id",) if id_column is None else ("id", id_column)
    found: dict[int, Given] = {}
    unknown: list[str] = []
    for place, row in rows:
        name = next((id_text(row[key]) for key in keys if key in row), None)
        if name is None:
            raise DataError(f'{place}: has no "{keys[-1]}" that is text or a whole number; put it right')
        if (index := numbers.get(name)) is None:
            unknown.append(name)
        elif index in found:
            raise DataError(f"{place}: a second reply with the id {name[:60]!r}; leave one")
        elif isinstance(query := row.get("query"), str) and not query.startswith(samples.queries[index]):
            raise DataError(
                f"{place}: this reply is to {query[:60]!r}, and its id {name[:60]!r} is that of "
                f"{samples.queries[index][:60]!r} in {samples.source.path}; give the replies to this set"
            )
        else:
            found[index] = _said(place, row, samples.suite.task)
    if unknown:
        shown = ", ".join(repr(name[:60]) for name in unknown[:SHOWN])
        raise DataError(
            f"{len(unknown)} ids are none of {samples.source.path} ({shown}), whose ids are like {ids[0][:60]!r}; "
            f"--id_column takes those of another column: {', '.join(samples.source.columns)}"
        )
    return found


def _column_ids(samples: Samples, column: str) -> list[str]:
    """A column's values as ids."""
    if column not in samples.source.columns:
        raise UsageError(f"--id_column {column}: there is no such column (but {', '.join(samples.source.columns)})")
    ids = [id_text(value) for value in samples.source.column(column)]
    kept = [name for name in ids if name is not None]
    if len(kept) < len(ids) or len(set(kept)) < len(kept):
        raise UsageError(f"--id_column {column}: its values are no ids, or not each row has one of its own")
    return kept


def _said(place: str, row: Row, task: Task) -> Given:
    """What a row says about its sample."""
    if isinstance(error := row.get("error"), str):
        return Given(error=error[:500])
    objects = task is not Task.VQA
    if objects and isinstance(instances := row.get("instances"), list):
        status = row.get("status", Status.OK if instances else Status.NONE)
        if status not in tuple(Status):
            raise DataError(f'{place}: its "status" is {str(status)[:60]!r}; give one of {", ".join(Status)}')
        return Given(_text(row.get("reply")) or "", instances=instances, status=Status(status))
    if task is Task.COUNTING and "count" in row:
        try:
            return Given(count=count_of(row, "count"))
        except FieldError as error:
            raise DataError(f"{place}: {error}") from error
    text = _text(row.get("reply"))
    if text is None and not objects:
        text = _text(row.get("answer"))
    if text is None:
        wanted = '"reply" or "answer"' if not objects else '"reply" or "instances"'
        if task is Task.COUNTING:
            wanted = '"reply", "instances" or "count"'
        raise DataError(f"{place}: has no {wanted}, which the suite needs; put it right")
    return Given(text, frame=_frame(place, row.get("frame")), masks=_masks(place, row.get("masks")))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _frame(place: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int and side > 0 for side in value):
        raise DataError(f'{place}: its "frame" is {str(value)[:60]}; give [width, height]')
    return value[0], value[1]


def _masks(place: str, value: Any) -> Sequence[Any] | None:
    if value is not None and not isinstance(value, list):
        raise DataError(f'{place}: its "masks" are no list; give run lengths for each object of the reply')
    return value


# --- lmms-eval's logs -------------------------------------------------------------------------------------------------
def of_log(rows: Numbered, samples: Samples) -> dict[int, Given]:
    """The replies of lmms-eval's sample log, by the sample's number.

    Raises:
        DataError: a `doc_id` is no row's or there twice, its question is another one, or there is not one reply.
    """
    found: dict[int, Given] = {}
    for place, row in rows:
        index = row.get("doc_id")
        if type(index) is not int or not 0 <= index < samples.source.n:
            raise DataError(
                f"{place}: its doc_id {str(index)[:20]} is none of the {samples.source.n} rows; is it their log?"
            )
        if index in found:
            raise DataError(f"{place}: a second reply to doc_id {index}; leave one (a log of several filters?)")
        _check_question(place, row, samples.queries[index])
        found[index] = Given(_response(place, row))
    return found


def _response(place: str, row: Row) -> str:
    """The one reply of a log's row: what lmms-eval scored."""
    value = row.get("filtered_resps", row.get("resps"))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        what = f"{len(value)} replies" if isinstance(value, list) else "no reply"
        raise DataError(f"{place}: has {what} in filtered_resps or resps; one is scored")
    return value


def _check_question(place: str, row: Row, question: str) -> None:
    """Raise a DataError where a log's prompt is there and does not hold the row's question."""
    asked = row.get("input")
    if isinstance(asked, list):
        asked = next((one for one in asked if isinstance(one, str)), None)
    if isinstance(asked, str) and _plain(question) not in _plain(asked):
        raise DataError(
            f"{place}: was asked {asked[:60]!r}, and the row's question is {question[:60]!r}: another data set"
        )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
