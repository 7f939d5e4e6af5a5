"""From a data set's rows to samples: a request, its image as it is stored, and the truth that scoring needs."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.runner.schema import Truth
from evaluation.suite import Suite
from vision_reasoner.data.sources import Source, stored_size
from vision_reasoner.errors import DataError, one_line
from vision_reasoner.geometry import Size


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
        size: (width, height) of the image as far as it is known before it is decoded, else (0, 0).
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


class Samples:
    """The samples of a data set, made when they are asked for.

    Attributes:
        columns: field to column, for those that are there.
        queries: every row's request.
        image_ids: every row's image; None where the data set does not say.
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
        self.queries = ["" if query is None else str(query) for query in source.column(suite.column(suite.query))]
        self.image_ids = self._column("image_id")
        self._ids = self._unique_ids()

    def _column(self, name: str) -> list[str] | None:
        if name not in self.columns:
            return None
        values = self.source.column(self.columns[name])
        return None if any(value is None for value in values) else [str(value) for value in values]

    def _unique_ids(self) -> list[str]:
        """The image's and the annotation's id where there are any, numbered where several rows share them."""
        annotations = self._column("ann_id")
        if self.image_ids is None or annotations is None:
            return [str(i) for i in range(self.source.n)]
        ids, seen = [], Counter[str]()
        for pair in zip(self.image_ids, annotations, strict=True):
            name = "/".join(pair)
            seen[name] += 1
            ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        return ids

    def __getitem__(self, index: int) -> Sample:
        """The sample of a row. A row that cannot be used gives one with a `problem`."""
        sample = Sample(index, self._ids[index], self._ids[index], b"", self.queries[index], {}, (0, 0))
        if self.image_ids is not None:
            sample = replace(sample, image_id=self.image_ids[index])
        try:
            stored = self.source.row(index)
            row = {name: stored[column] for name, column in self.columns.items()}
            stored_image = row["image"]
            data = stored_image["bytes"] or Path(stored_image["path"])
            if self.image_ids is None:
                sample = replace(sample, image_id=digest_of(data if isinstance(data, bytes) else str(data))[:16])
            sample = replace(sample, image=data, size=stored_size(stored_image) or (0, 0))
            if not self.queries[index].strip():
                raise ValueError(f"its {self.columns[self.suite.query]} is empty")
            return replace(sample, query=sample.query + self.suite.instruction, truth=self.suite.truth(row))
        except Exception as error:  # noqa: BLE001 - rows of others may hold anything; recorded, never scored
            return replace(sample, problem=f"row {index} of {self.source.path} cannot be used ({one_line(error)})")

    def pixels(self, index: int) -> int:
        """How many pixels the image has, by its header; 0 where that does not say."""
        width, height = stored_size(self.source.row(index)[self.columns["image"]]) or (0, 0)
        return width * height


def digest_of(value: Any) -> str:
    """The SHA-256 of bytes, or of a plain value as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
