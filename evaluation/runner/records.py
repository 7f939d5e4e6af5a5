"""A run's folder: what it is of (manifest.json), a line for each finished sample (samples.jsonl), one writer at a time.

What the files hold is in `schema`. Lines are added when all of a batch is finished. A run that is killed at any moment
continues with those it has.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from evaluation.runner.schema import Manifest, Record
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.files import atomic_write, filter_jsonl, parse_jsonl_line
from vision_reasoner.images import MAX_PIXELS
from vision_reasoner.results import Status

MANIFEST = "manifest.json"
SAMPLES = "samples.jsonl"
INSTANCES = "instances.json"
METRICS = "metrics.json"
PAGE = "report.html"
SUBMISSION = "submission.json"

PLACES: Final = "places"  # where things lie
MAY_DIFFER = (PLACES, "batch_sizes")  # the parts of a manifest that may differ when a run continues


def begin(folder: Path, manifest: Mapping[str, object], *, overwrite: bool = False) -> None:
    """Make sure that a folder is of this run: write the manifest into a new one, compare with an earlier one.

    Args:
        folder: locked.
        manifest: what the run is of, plain values; under `MAY_DIFFER` what may differ.
        overwrite: whether an earlier run is taken away.

    Raises:
        UsageError: it is of another run.
    """
    if overwrite:
        for name in (SAMPLES, INSTANCES, METRICS, PAGE, SUBMISSION, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    if (folder / MANIFEST).is_file():
        earlier = read_json(folder / MANIFEST)
        if unlike := differences(earlier, manifest):
            raise UsageError(
                f"{folder}: holds a run of something else ({'; '.join(unlike)}); give another --output_path, or "
                "--overwrite to start anew"
            )
        manifest = {**manifest, "batch_sizes": earlier.get("batch_sizes", [])}
    elif (folder / SAMPLES).is_file():
        raise UsageError(f"{folder}: holds samples without a manifest; give another --output_path, or --overwrite")
    write_json(folder / MANIFEST, manifest)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what two manifests are of different runs."""
    first, second = (_flat({k: v for k, v in one.items() if k not in MAY_DIFFER}) for one in (earlier, now))
    return [
        f"{key} was {first.get(key)} and is {second.get(key)}"
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


def add_batch_size(folder: Path, size: int) -> None:
    """Note in a run's manifest that batches of this size are made."""
    manifest = read_json(folder / MANIFEST)
    if size not in (sizes := manifest.get("batch_sizes", [])):
        write_json(folder / MANIFEST, {**manifest, "batch_sizes": [*sizes, size]})


def finished(folder: Path) -> set[int]:
    """The numbers of the samples that are finished; samples.jsonl is left with these alone, whole and ready to grow.

    A line that a crash tore, and samples that failed, are taken out, to be done again.
    """
    done: set[int] = set()

    def keep(record: dict[str, Any]) -> bool:
        index = record.get("index")
        if not isinstance(index, int) or index in done or record.get("error", "") is not None:
            return False
        done.add(index)
        return True

    filter_jsonl(folder / SAMPLES, keep)
    return done


def read_records(folder: Path) -> Iterator[Record]:
    """The records of a finished run, one after the other as they were written.

    Raises:
        DataError: a sample is missing, damaged, there twice, or there is no run at all.
    """
    manifest = read_manifest(folder)
    if "shard" in manifest:
        raise DataError(f"{folder}: is a shard of a run; python -m evaluation.merge joins all of them")
    seen: set[int] = set()
    for _, record in read_lines(folder, seen):
        yield record
    check_complete(folder, seen, manifest["n"], "give the command of the run again, it does the rest")


def read_lines(folder: Path, seen: set[int]) -> Iterator[tuple[bytes, Record]]:
    """The whole lines of a run that may not be finished, with their records.

    Args:
        folder: of the run.
        seen: the numbers of samples that are known already; gets those of the records.

    Raises:
        DataError: a sample is damaged or there twice.
    """
    most_pixels = max(MAX_PIXELS, int(read_manifest(folder)["settings"].get("max_image_pixels", 0)))
    file = folder / SAMPLES
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for line in lines:
            record = parse_jsonl_line(line)
            if record is None or not isinstance(record.get("index"), int):
                continue  # torn: its sample is missing
            if record["index"] in seen:
                raise DataError(f"{file}: sample {record['index']} is there twice; run with --overwrite")
            seen.add(record["index"])
            try:
                _check_record(record, most_pixels)
            except ValueError as error:
                raise DataError(
                    f"{file}: sample {record['index']} is damaged ({error}); run with --overwrite"
                ) from error
            yield line.rstrip(b"\n") + b"\n", cast("Record", record)


def check_complete(folder: Path, seen: Collection[int], n: int, advice: str) -> None:
    """Raise a DataError unless all of a run's `n` samples were seen, and no others."""
    if stray := sorted(index for index in seen if not 0 <= index < n):
        raise DataError(f"{folder / SAMPLES}: sample {stray[0]} is none of this run's {n}; --overwrite")
    if len(seen) < n:
        missing = next(index for index in range(n) if index not in seen)
        raise DataError(f"{folder}: {n - len(seen)} of {n} samples are missing (first: {missing}); {advice}")


def _check_record(record: Mapping[str, Any], most_pixels: int) -> None:
    """Refuse a record that lacks what every record has, or is of an image that is larger than any.

    Raises:
        ValueError: it is one of these.
    """
    _check_kinds(record, {"id": str, "image_id": str, "query": str, "size": list})
    if "error" not in record or not isinstance(record["error"], str | None):
        raise ValueError('its "error" is missing or of another kind')
    if not isinstance(record.get("columns", {}), dict):
        raise ValueError('its "columns" are of another kind')
    size = record["size"]
    if len(size) != 2 or not all(type(side) is int and side >= 0 for side in size) or size[0] * size[1] > most_pixels:
        raise ValueError(f'its "size" is {str(size)[:60]}')
    if record["error"] is not None:
        return
    if not all(size):
        raise ValueError('its "size" is 0')
    _check_kinds(record, {"status": str, "truth": dict, "instances": list, "truth_digest": str})
    if record["status"] not in tuple(Status):
        raise ValueError(f"its status is {record['status'][:60]!r}")
    scores = record.get("scores", {})
    if not isinstance(scores, dict) or not all(
        type(one) in (int, float) and math.isfinite(one) for one in scores.values()
    ):
        raise ValueError('its "scores" are no numbers')
    masks = [record["truth"].get(name) for name in ("mask", "ignore")]
    for instance in record["instances"]:
        if not isinstance(instance, dict) or not isinstance(instance.get("box"), list):
            raise ValueError("one of its objects has no box")
        masks.append(instance.get("mask"))
    for mask in masks:
        if mask is not None and (not isinstance(mask, dict) or mask.get("size") != size[::-1]):
            raise ValueError(f"one of its masks is not of the image's size, {size[0]}x{size[1]}")


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(values.get(key), kind) or isinstance(values[key], bool):
            raise ValueError(f'its "{key}" is missing or of another kind')


def read_manifest(folder: Path) -> Manifest:
    """What a folder's run is of.

    Raises:
        DataError: there is none, or it is damaged.
    """
    file = folder / MANIFEST
    manifest = read_json(file)
    try:
        _check_kinds(
            manifest, {"suite": str, "n": int, "data": dict, "checkpoint": dict, "settings": dict, PLACES: dict}
        )
        _check_kinds(manifest["data"], {"name": str, "split": str, "fingerprint": str, "rows": int, "columns": dict})
        _check_kinds(manifest["checkpoint"], {"reasoner": dict})
        reasoner = manifest["checkpoint"]["reasoner"]
        kind = next((key for key in ("served_as", "replies") if key in reasoner), "digest")
        _check_kinds(reasoner, {"name": str, kind: str})
        _check_kinds(manifest["settings"], {"compat": str})
        if "shard" in manifest:
            _check_kinds(manifest, {"shard": dict})
            _check_kinds(manifest["shard"], {"number": int, "of": int, "batch_size": int})
    except ValueError as error:
        raise DataError(f"{file}: is damaged ({error}); run with --overwrite") from error
    return cast("Manifest", manifest)


def read_json(file: Path) -> dict[str, Any]:
    """One of a run's JSON files.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: is no regular file; give the folder of a run")
        data = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{file}: there is no such file; give the folder of a run") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read; run with --overwrite") from error
    if not isinstance(data, dict):
        raise DataError(f"{file}: cannot be read; run with --overwrite")
    return data


def write_json(file: Path, data: object) -> None:
    """Plain values as JSON, the same bytes for the same values."""
    text = json.dumps(data, allow_nan=False, sort_keys=True, indent=2) + "\n"
    atomic_write(file, lambda part: part.write_text(text, encoding="ascii"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
