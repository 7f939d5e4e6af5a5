"""From a data set's rows to samples: a request, its image as it is stored, and the truth that scoring needs."""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation.runner.schema import Truth
from evaluation.suite import Suite
from evaluation.truth import FieldError, check_fits, id_text, stored_image, text_of
from vision_reasoner.data.sources import Row, Source, upright_sizes
from vision_reasoner.errors import DataError, QueryError, one_line
from vision_reasoner.geometry import Size
from vision_reasoner.prompts import normalize_query
from vision_reasoner.results import Task

MAX_TEXT, MAX_VALUES = 200, 20  # of a value that is kept with a sample: characters, and texts in a list


@dataclass(frozen=True)
class Sample:
    """One request with its truth.

    Attributes:
        index: the row's number.
        id: unique in its set.
        image_id: the same for all samples of one image.
        image: the image as it is stored.
        query: the request.
        truth: what scoring needs, as plain values.
        columns: the row's short values, by the data set's names.
        size: (width, height) of the upright image as far as it is known before it is decoded, else (0, 0).
        problem: why the row cannot be used, one line; None where it can.
    """

    index: int
    id: str
    image_id: str
    image: bytes | Path
    query: str
    truth: Truth
    size: Size
    problem: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


class Samples:
    """The samples of a data set, made when they are asked for.

    Attributes:
        columns: field to column, for those that are there.
        ids: every row's id, unique in the set.
        queries: every row's request; empty for those without one.
        image_ids: every row's image; None where the data set does not say. Empty for rows that do not say in a set
            that must.
        check_query: raises a QueryError for a request that the model cannot be asked; None looks at none.
    """

    def __init__(self, suite: Suite, source: Source) -> None:
        """Look at the columns and ids.

        Raises:
            DataError: a column is missing.
        """
        missing = [name for name in ("image", suite.query, *suite.needs) if suite.column(name) not in source.columns]
        if missing:
            raise DataError(
                f"{source.path}: has no column {' and no '.join(map(repr, map(suite.column, missing)))} "
                f"(it has {', '.join(source.columns)}); is {suite.name} the right suite? --columns "
                f"{','.join(f'{name}=...' for name in missing)} takes others"
            )
        self.suite = suite
        self.source = source
        self.columns = {name: suite.column(name) for name in suite.fields if suite.column(name) in source.columns}
        queries = source.column(suite.column(suite.query))
        self.queries = [query if isinstance(query, str) else "" for query in queries]
        self.image_ids = self._ids_of("image_id")
        self.ids = self._unique_ids()
        self._conflicts: dict[int, FieldError] = {}
        self.check_query: Callable[[str], None] | None = None

    def _ids_of(self, field: str) -> list[str] | None:
        if field not in self.columns:
            return None
        ids = [id_text(value) for value in self.source.column(self.columns[field])]
        needed = field in self.suite.needs
        return None if None in ids and not needed else [one or "" for one in ids]

    def _unique_ids(self) -> list[str]:
        """The image's and the annotation's id where there are any, numbered where several rows share them."""
        annotations = self._ids_of("ann_id")
        if self.image_ids is None or annotations is None:
            return [str(i) for i in range(self.source.n)]
        return unique_ids(["/".join(pair) for pair in zip(self.image_ids, annotations, strict=True)])

    def __getitem__(self, index: int) -> Sample:
        """The sample of a row. A row that cannot be used gives one with a `problem`."""
        sample = Sample(index, self.ids[index], self.ids[index], b"", self.queries[index], {}, (0, 0))
        if self.image_ids is not None:
            sample = replace(sample, image_id=self.image_ids[index])
        try:
            stored = self.source.row(index)
            sample = replace(sample, columns={name: value for name, value in stored.items() if is_short(value)})
            row = {name: stored[column] for name, column in self.columns.items()}
            data = stored_image(row, "image")
            if self.image_ids is None:
                sample = replace(sample, image_id=digest_of(data if isinstance(data, bytes) else str(data))[:16])
            sizes = upright_sizes(row["image"])
            sample = replace(sample, image=data, size=sizes[0] if sizes else (0, 0))
            return replace(sample, query=self._query(row), truth=self._truth(index, row, sizes))
        except FieldError as error:
            column = self.columns.get(error.field, error.field)
            problem = f"column {column!r}: {error.what}"
        except Exception as error:  # noqa: BLE001 - rows of others may hold anything; recorded, never scored
            problem = one_line(error)
        return replace(sample, problem=f"row {index} of {self.source.path} cannot be used ({problem})")

    def _query(self, row: Row) -> str:
        query = text_of(row, self.suite.query)
        if self.suite.task is not Task.VQA and not normalize_query(query).strip():
            raise FieldError(
                self.suite.query, f"found {query[:60]!r}; expected text: its text is empty without the marks"
            )
        return query + self.suite.instruction

    def _truth(self, index: int, row: Row, sizes: tuple[Size, ...]) -> Truth:
        if "image_id" in self.suite.needs and not id_text(row["image_id"]):
            raise FieldError("image_id", f"found {row['image_id']!r:.60}; expected a number or text")
        truth = self.suite.truth(row)
        check_fits(truth, sizes)
        if index in self._conflicts:
            raise self._conflicts[index]
        return truth

    def check(self, n: int, *, quiet: bool = False) -> dict[int, str]:
        """Read the first `n` rows, so that every row that cannot be used is known before anything is asked.

        Of images the headers alone are read; requests are looked at by `check_query`. Where boxes are ranked, rows are
        also compared with each other: an image id must be of one image, and a category asked for once in it. Samples
        made afterwards have these problems, too.

        Args:
            n: how many rows.
            quiet: no progress bar.

        Returns:
            The problems by row.
        """
        from tqdm import tqdm

        problems: dict[int, str] = {}
        first: dict[Hashable, tuple[int, str]] = {}
        self._conflicts = {}
        for index in tqdm(range(n), "reading truth", disable=quiet, file=sys.stderr, unit="row", delay=2, leave=False):
            sample = self[index]
            if sample.problem is None and (conflict := self._refused(sample) or self._conflict(sample, first)):
                self._conflicts[index] = conflict
                sample = self[index]
            if sample.problem is not None:
                problems[index] = sample.problem
        return problems

    def _refused(self, sample: Sample) -> FieldError | None:
        """Why the model cannot be asked a sample's request."""
        try:
            if self.check_query is not None:
                self.check_query(sample.query)
        except QueryError as error:
            return FieldError(self.suite.query, one_line(error))
        return None

    def _conflict(self, sample: Sample, first: dict[Hashable, tuple[int, str]]) -> FieldError | None:
        """What is wrong with a sample beside those before it, of which `first` has the row of each id."""
        if not self.suite.ranked:
            return None
        image = sample.image if isinstance(sample.image, bytes) else str(sample.image)
        digest = digest_of(image)
        row, other = first.setdefault(sample.image_id, (sample.index, digest))
        if other != digest:
            return FieldError("image_id", f"found {sample.image_id[:60]!r}, which row {row} has for another image")
        asked = sample.image_id, sample.truth["category_id"]
        row, _ = first.setdefault(asked, (sample.index, ""))
        if row != sample.index:
            return FieldError("cat_id", f"found {asked[1]}, which row {row} asks for in the same image")
        return None

    def pixels(self, index: int) -> int:
        """How many pixels the image has, by its header; 0 where that does not say, or the row cannot be used."""
        try:
            sizes = upright_sizes(self.source.row(index)[self.columns["image"]])
        except Exception:  # noqa: BLE001 - as in `__getitem__`, which says what is wrong with the row
            return 0
        return sizes[0][0] * sizes[0][1] if sizes else 0


def unique_ids(names: Sequence[str]) -> list[str]:
    """The names, from its second time on each with a number behind it."""
    ids, seen = [], Counter[str]()
    for name in names:
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return ids


def is_short(value: Any) -> bool:
    """Whether a value of a row goes into its record: a number, a short text, or a few of these."""
    if isinstance(value, list):
        return 0 < len(value) <= MAX_VALUES and all(isinstance(one, str) and is_short(one) for one in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def digest_of(value: Any) -> str:
    """The SHA-256 of bytes, or of a plain value as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
