"""What people corrected, in a folder: pictures, and a JSONL for each task, a line for each picture and query.

A line is a result as a run over many pictures writes it, so that `vision-reasoner export` reads it, and it is a row of
truth as evaluation reads it: `python -m evaluation.run --suite segmentation corrections/segmentation.jsonl`.
`python -m vision_reasoner.training.prepare corrections` makes rows to train on of it.
"""

import io
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vision_reasoner.errors import UsageError
from vision_reasoner.files import append_jsonl, atomic_write, filter_jsonl, locked
from vision_reasoner.formats.labeled import keeps_as_it_is
from vision_reasoner.masks import encode_mask
from vision_reasoner.results import Prediction, Task, record_of
from vision_reasoner.serving.pictures import Picture

IMAGES = "images"


class Corrections:
    """A folder of corrections, made when the first one is saved."""

    def __init__(self, folder: Path) -> None:
        """Save into `folder`."""
        self.folder = folder
        self._lock = threading.Lock()

    def save(self, picture: Picture, prediction: Prediction) -> int:
        """Add a correction; an earlier one of the same picture and query is replaced.

        Args:
            picture: what was asked about.
            prediction: what is right.

        Returns:
            How many lines its file has.

        Raises:
            UsageError: there is a count without objects, an object of a segmentation has no mask, or the folder cannot
                be written to.
        """
        if prediction.task is Task.VQA:
            raise UsageError("answers to questions cannot be corrected; only objects can")
        if prediction.is_count_alone:
            raise UsageError("a count without objects cannot be saved; add a box for each")
        if prediction.task is Task.SEGMENTATION and any(i.mask_shape is None for i in prediction.instances):
            raise UsageError("an object has no mask; segment it first")
        with self._lock, locked(self.folder):
            file = self._save_picture(picture)
            record = record_of(Path(IMAGES, file), prediction) | _truth(picture, prediction)
            lines = self.folder / f"{prediction.task}.jsonl"
            kept = 0

            def keep(earlier: Mapping[str, Any]) -> bool:
                nonlocal kept
                same = all(earlier.get(name) == record[name] for name in ("image", "query"))
                kept += not same
                return not same

            filter_jsonl(lines, keep)
            with lines.open("ab") as stream:
                append_jsonl(stream, [record])
            return kept + 1

    def _save_picture(self, picture: Picture) -> str:
        """Put the picture into the folder, as it came where every program shows it upright; gives its name."""
        with Image.open(io.BytesIO(picture.data)) as opened:
            ending = keeps_as_it_is(opened)
        name = f"{picture.id[:16]}{ending or '.png'}"
        path = self.folder / IMAGES / name
        if not path.exists():
            if ending:
                atomic_write(path, lambda part: part.write_bytes(picture.data))
            else:
                atomic_write(path, lambda part: picture.image.save(part, format="PNG"))
        return name


def _truth(picture: Picture, prediction: Prediction) -> dict[str, Any]:
    """The columns that evaluation reads."""
    mask = prediction.mask
    width, height = prediction.image_size
    return {
        "text": prediction.query,
        "mask": None if mask is None else encode_mask(mask),
        "image_id": picture.id[:16],
        "ann_id": "1",
        "img_height": height,
        "img_width": width,
        "corrected": True,
    }


def count_lines(folder: Path) -> int:
    """How many corrections a folder holds."""
    return sum(len(file.read_bytes().splitlines()) for file in folder.glob("*.jsonl")) if folder.is_dir() else 0
