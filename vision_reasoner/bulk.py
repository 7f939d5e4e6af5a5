"""One query for many pictures: true batches, and a folder of results that an interruption cannot spoil.

The folder gets `results.jsonl` (one line for each picture), a picture of each result, and `masks/<name>/` with a PNG of
each object's mask. A line is written when everything else of its picture is on disk; the same command again does only
what has no line yet, what failed, and pictures that have changed.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from PIL import Image

from vision_reasoner.errors import ExitCode, ImageError, UsageError, one_line, printable
from vision_reasoner.files import append_jsonl, atomic_write, check_writable, filter_jsonl, locked, sha256, unique_stem
from vision_reasoner.formats.export import export
from vision_reasoner.images import load_image
from vision_reasoner.model import VisionReasoner
from vision_reasoner.results import Prediction, Task, is_picture_of_result, record_of, report

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

RESULTS = "results.jsonl"


def run_many(
    model: VisionReasoner,
    files: Sequence[Path],
    query: str,
    task: str | None,
    *,
    output_dir: Path,
    settings: Mapping[str, Any],
    formats: Sequence[str] = (),
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Answer `query` for every picture of `files`, going on where an earlier run into `output_dir` stopped.

    A picture that cannot be worked on gets a line with its `error`, and the others go on.

    Args:
        model: answers, several pictures at a time.
        files: the pictures.
        query: what to find, count or answer.
        task: None lets the router decide, once for all.
        output_dir: made if need be.
        settings: whatever else results depend on, as plain values; earlier results with others are not mixed with.
        formats: also written, each into a folder of its name in `output_dir`; see `formats.export`.
        as_json: print each line of results.jsonl instead of text.
        quiet: no progress bar.

    Returns:
        The exit code: 0, or that for some failed where a picture failed or a reply could not be used.

    Raises:
        UsageError: `output_dir` holds the results of something else.
        QueryError: the query cannot be used, or asks for editing.
        CheckpointError: a part does not load.
        EngineError: the server that is to run the reasoner does not say which models it has.
        DataError: there is nothing to write in a format.
    """
    settings = {"query": query, "task": task or "auto", **settings}
    with locked(output_dir):
        check_writable(output_dir / RESULTS)
        digests = {file: _digest(file) for file in files}
        done = resume(output_dir / RESULTS, settings, {str(file): digest for file, digest in digests.items()})
        todo = {file: digests[file] for file in files if str(file) not in done}
        failed = sum(not done[str(file)]["usable"] for file in files if str(file) in done)
        if todo and task is None:
            task = _task(model, query)  # once for all images
        if todo:
            model.load("reasoner")  # if it cannot be loaded, that is said once, and not of each picture
        names = _names(files, done, output_dir)
        records = _answer(model, todo, query, task, settings, names, output_dir)
        with _progress(len(files), len(files) - len(todo), quiet=quiet) as bar:
            for record, text in records:
                failed += not record["usable"]
                with bar.external_write_mode(file=sys.stdout):
                    if as_json or text is not None:
                        print(json.dumps(record) if as_json else text, flush=True)
                    else:
                        logger.error("error: %s", record["error"])
                bar.update()
        if formats:
            export([output_dir / RESULTS], formats, output_dir)
    logger.info("%d images, %d of them earlier, %d failed: %s", len(files), len(files) - len(todo), failed, output_dir)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _task(model: VisionReasoner, query: str) -> Task:
    route = model.route([query])[0]
    task = route.require_task()
    if route.warning:
        logger.warning("warning: %s", route.warning)
    return task


def _progress(total: int, done: int, *, quiet: bool) -> "tqdm[NoReturn]":
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="image", disable=quiet, file=sys.stderr)


def _answer(
    model: VisionReasoner,
    todo: Mapping[Path, str],
    query: str,
    task: str | None,
    settings: Mapping[str, Any],
    names: Mapping[Path, str],
    output_dir: Path,
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Each file's record once it is on disk, and what is printed for people; None where the image failed."""
    files = list(todo)
    with (output_dir / RESULTS).open("ab") as lines:
        for i, outcome in model.predict_as_done(((file, query) for file in files), task):
            file = files[i]
            record: dict[str, Any] = {"sha256": todo[file], "settings": settings}
            text = None
            if isinstance(outcome, Prediction):
                try:
                    image = load_image(file, max_pixels=model.settings.max_image_pixels)
                    saved = _save(output_dir, names[file], outcome, image)
                except (ImageError, ValueError) as error:  # it is gone, or another, since it was looked at
                    outcome = error
                else:
                    record |= record_of(file, outcome) | {"usable": outcome.usable} | saved
                    text = f"Image: {printable(str(file), one_line=True)}\n{report(outcome)}\n"
            if isinstance(outcome, Exception):
                record |= {"image": str(file), "query": query, "usable": False, "error": one_line(outcome)}
            append_jsonl(lines, [record])
            yield record, text


def resume(results: Path, settings: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The finished records of an earlier run by image; the file is left with these alone, whole and ready to grow.

    Truncated lines, and images that failed or whose digest is another now, are taken out, to be done again.

    Raises:
        UsageError: a record was made with other settings.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, dict[str, Any]] = {}

    def keep(record: dict[str, Any]) -> bool:
        kinds = {"image": str, "settings": dict, "sha256": str, "usable": bool, "picture": str}
        if "error" in record or not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
            return False
        earlier = record["settings"]
        if differing := sorted(key for key in {*earlier, *settings} if earlier.get(key) != settings.get(key)):
            raise UsageError(
                f"{results}: holds results of something else ({', '.join(differing)} differ); give another --output_dir"
            )
        image = record["image"]
        if image in kept or digests.get(image, record["sha256"]) != record["sha256"]:
            return False
        kept[image] = record
        return True

    filter_jsonl(results, keep)
    return kept


def _digest(file: Path) -> str:
    """Of a file's bytes; empty where they cannot be read, which is said when the image is loaded."""
    try:
        return sha256(file) if file.is_file() else ""
    except OSError:
        return ""


def _save(output_dir: Path, name: str, prediction: Prediction, image: Image.Image) -> dict[str, Any]:
    """Write the picture of a result and its masks; returns where they are, relative to the folder."""
    prediction.save(output_dir / f"{name}.png", image)
    masks = []
    for number, instance in enumerate(prediction.instances, start=1):
        mask = instance.mask
        if mask is not None:
            file = output_dir / "masks" / name / f"{number}.png"
            drawn = Image.fromarray(mask.astype(np.uint8) * 255)
            atomic_write(file, partial(drawn.save, format="PNG"))
            masks.append(str(file.relative_to(output_dir)))
    return {"picture": f"{name}.png", "masks": masks}


def _names(files: Sequence[Path], done: Mapping[str, Mapping[str, Any]], output_dir: Path) -> dict[Path, str]:
    """A name for each picture's results: the earlier one, else its own without ending, numbered where it is taken.

    It is taken by that of another picture, and by a file in `output_dir` that is no result, as the pictures themselves.
    """
    inputs = {os.path.realpath(file) for file in files}

    def is_there(name: str) -> bool:
        path = output_dir / f"{name}.png"
        return os.path.lexists(path) and (os.path.realpath(path) in inputs or not is_picture_of_result(path))

    names = {file: str(done[str(file)]["picture"]).removesuffix(".png") for file in files if str(file) in done}
    taken = {str(record["picture"]).removesuffix(".png").lower() for record in done.values()}
    for file in files:
        if file not in names:
            names[file] = unique_stem(file.stem, taken)
            while is_there(names[file]):
                names[file] = unique_stem(file.stem, taken)
    return names
