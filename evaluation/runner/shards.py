"""A run in parts, each by a command of its own, and the parts made into one run again.

A shard has whole batches of the run, every so many, so that each sample is asked in the company that it would have in a
run without shards: the joined records are those of such a run.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from evaluation.runner.records import (
    INSTANCES,
    MANIFEST,
    SAMPLES,
    begin,
    check_complete,
    differences,
    read_json,
    read_lines,
    read_manifest,
    write_json,
)
from evaluation.runner.schema import Manifest, Shard
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.files import atomic_write, locked


class Part(NamedTuple):
    """The `number`-th of `of` parts, from 1."""

    number: int
    of: int


def parse_shard(text: str) -> Part:
    """What "3/8" says.

    Raises:
        UsageError: it is no such text, or there is no such part.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text}: give I/N with I from 1 to N, such as 3/8")
    return Part(int(found[1]), int(found[2]))


def shard_folder(folder: Path, part: Part) -> Path:
    """Where a shard of the run in `folder` goes."""
    return folder / f"shard-{part.number}-of-{part.of}"


def find_shards(folder: Path) -> list[Path]:
    """The folders of all shards of the run in `folder`.

    Raises:
        DataError: there is none.
    """
    if found := sorted(path for path in folder.glob("shard-*-of-*") if path.is_dir()):
        return found
    raise DataError(f"{folder}: holds no shards (shard-1-of-N, ...); give the --output_path of the shards, or each one")


def merge(folder: Path, shards: Sequence[Path], *, overwrite: bool = False) -> None:
    """Write the run of which `shards` are all parts into `folder`, without its figures.

    Args:
        folder: of the run; made if need be.
        shards: their folders, in any order.
        overwrite: whether an earlier run in the folder is thrown away.

    Raises:
        UsageError: a shard is missing, there twice or of another run, or the folder holds a run.
        DataError: a folder holds no shard, or one that is not finished.
    """
    by_number = _ordered(shards)
    ordered = [folder for folder, _ in by_number]
    first = by_number[0][1]
    merged = cast("Manifest", {key: value for key, value in first.items() if key != "shard"})
    merged["batch_sizes"] = sorted({size for _, manifest in by_number for size in manifest.get("batch_sizes", [])})
    _check_samples(ordered, merged)
    with locked(folder):
        if (folder / SAMPLES).is_file() and not overwrite:
            raise UsageError(f"{folder}: holds a run; give another folder, or --overwrite to put these shards there")
        begin(folder, merged, overwrite=overwrite)
        write_json(folder / MANIFEST, merged)
        if (ordered[0] / INSTANCES).is_file():
            write_json(folder / INSTANCES, read_json(ordered[0] / INSTANCES))
        atomic_write(folder / SAMPLES, lambda file: _concatenate(ordered, file))


def _ordered(folders: Sequence[Path]) -> list[tuple[Path, Manifest]]:
    """The shards of one run by number, with their manifests.

    Raises:
        UsageError: one is missing, there twice or of another run.
    """
    found: dict[int, tuple[Path, Manifest]] = {}
    first: tuple[Path, Manifest] | None = None
    for folder in folders:
        manifest = read_manifest(folder)
        if (shard := manifest.get("shard")) is None:
            raise UsageError(f"{folder}: holds a whole run, no shard; give shards only")
        first = first or (folder, manifest)
        if unlike := differences(*map(_alike, (first[1], manifest))):
            raise UsageError(f"{folder} is no shard of the same run as {first[0]} ({'; '.join(unlike)})")
        if (number := shard["number"]) in found:
            raise UsageError(f"{folder} and {found[number][0]} are both shard {number} of {shard['of']}; give one")
        found[number] = folder, manifest
    if first is None:
        raise UsageError("there are no shards to join")
    of = _shard(first[1])["of"]
    if missing := [number for number in range(1, of + 1) if number not in found]:
        raise UsageError(f"of the {of} shards {', '.join(map(str, missing[:10]))} are missing; run these, too")
    return [found[number] for number in sorted(found)]


def _alike(manifest: Manifest) -> dict[str, object]:
    """What the manifests of a run's shards have in common."""
    shard = _shard(manifest)
    return {**manifest, "shard": {key: value for key, value in shard.items() if key != "number"}}


def _shard(manifest: Manifest) -> Shard:
    return manifest["shard"]


def _check_samples(folders: Sequence[Path], merged: Manifest) -> None:
    """Raise a DataError unless the shards have every sample of the run once."""
    seen: set[int] = set()
    for folder in folders:
        for _ in read_lines(folder, seen):
            pass
    check_complete(folders[0].parent, seen, merged["n"], "give the commands of the shards again, they do the rest")


def _concatenate(folders: Sequence[Path], file: Path) -> None:
    with file.open("wb") as lines:
        for folder in folders:
            lines.writelines(line for line, _ in read_lines(folder, set()))
