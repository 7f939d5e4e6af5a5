"""A result as a file to take away: a picture, its masks, JSON, or the format of a tool."""

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from vision_reasoner.errors import UsageError
from vision_reasoner.formats import FORMATS
from vision_reasoner.formats.export import check_formats, write
from vision_reasoner.formats.labeled import Labeled
from vision_reasoner.results import Prediction, Task
from vision_reasoner.serving.pictures import Picture

KINDS = ("picture", "masks", "json", *FORMATS)


def download_of(picture: Picture, prediction: Prediction, kind: str) -> tuple[str, str, bytes]:
    """The name of a file, its media type, and its bytes.

    Args:
        picture: what was asked about.
        prediction: what was found.
        kind: one of KINDS.

    Raises:
        UsageError: there is no such kind, it needs a library, or a result of text has no objects to write.
    """
    stem = re.sub(r"\W+", "-", prediction.query.lower()).strip("-")[:60] or "result"
    if kind == "json":
        return f"{stem}.json", "application/json", json.dumps(prediction.to_json(), indent=2).encode()
    if kind == "picture":
        data = io.BytesIO()
        prediction.plot(picture.image).save(data, "PNG")
        return f"{stem}.png", "image/png", data.getvalue()
    if kind == "masks":
        return f"{stem}-masks.zip", "application/zip", _masks(prediction)
    if kind not in KINDS:
        raise UsageError(f"no format {kind!r}: give one of {', '.join(KINDS)}")
    if prediction.task is Task.VQA and kind != "csv":
        raise UsageError(f"an answer to a question has no objects for {kind}; take json or csv")
    check_formats(kind)
    return f"{stem}-{kind}.zip", "application/zip", _format(picture, prediction, kind, stem)


def _masks(prediction: Prediction) -> bytes:
    """A PNG for each object's mask, white inside."""
    files: dict[str, bytes] = {}
    for number, instance in enumerate(prediction.instances, start=1):
        mask = instance.mask
        if mask is not None:
            data = io.BytesIO()
            Image.fromarray(mask.astype(np.uint8) * 255).save(data, "PNG")
            files[f"{number}.png"] = data.getvalue()
    if not files:
        raise UsageError("there are no masks; ask for a segmentation")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def _format(picture: Picture, prediction: Prediction, kind: str, stem: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, f"{stem}.png")
        picture.image.save(file, compress_level=1)
        folder = Path(scratch, kind)
        write([Labeled(file, stem, prediction.image_size, (prediction,))], kind, folder)
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(scratch))
        return data.getvalue()
