"""Pictures that were uploaded and what the segmenter made of them, kept for a while, within bounds.

A picture is called by the SHA-256 of its file, so that only who has it can name it. Uploads are untrusted: their size
is known before they are read, and their number of pixels before they are decoded.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vision_reasoner.images import load_image
from vision_reasoner.masks import Mask
from vision_reasoner.model import SegmenterLike

MAX_KEPT_BYTES = 256 << 20  # of uploaded files and their pixels
MAX_FEATURES = 8  # pictures; those of SAM2's released size have 16 MB each


@dataclass(frozen=True, eq=False)
class Picture:
    """An uploaded picture.

    Attributes:
        id: the SHA-256 of the file.
        data: the file.
        image: its pixels, upright RGB.
        notes: what is to be said about how it was taken.
    """

    id: str
    data: bytes
    image: Image.Image
    notes: tuple[str, ...]

    @property
    def n_pixels(self) -> int:
        """Width times height."""
        return self.image.width * self.image.height

    @property
    def n_bytes(self) -> int:
        """In memory."""
        return len(self.data) + 3 * self.n_pixels


class Pictures:
    """The pictures that were uploaded last; from several threads."""

    def __init__(self, max_pixels: int, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        """`max_pixels`: of a picture, larger ones are refused. `max_kept_bytes`: of all together."""
        self.max_pixels, self.max_kept_bytes = max_pixels, max_kept_bytes
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> Picture:
        """The picture in a file; one that is kept is not decoded again.

        Raises:
            ImageError: it is none, damaged or too large.
        """
        name = hashlib.sha256(data).hexdigest()
        if (kept := self.get(name)) is not None:
            return kept
        notes: list[str] = []
        image = load_image(data, max_pixels=self.max_pixels, notes=notes)
        picture = Picture(name, data, image, tuple(notes))
        with self._lock:
            self._kept[name] = picture
            while len(self._kept) > 1 and sum(p.n_bytes for p in self._kept.values()) > self.max_kept_bytes:
                self._kept.popitem(last=False)
        return picture

    def get(self, name: str) -> Picture | None:
        """The picture of that id, if it is still kept."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)


class CachedSegmenter:
    """A segmenter that encodes a picture once, as long as it is among the last ones.

    Attributes:
        hits, misses: how often a picture was known already, and how often it was not.
    """

    def __init__(self, segmenter: SegmenterLike, max_features: int = MAX_FEATURES) -> None:
        """Wrap `segmenter`; `max_features` pictures are kept."""
        self.segmenter, self.max_features = segmenter, max_features
        self.hits = self.misses = 0
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._encoding = threading.Lock()  # one picture at a time, so that two who want the same one encode it once

    def encode(self, image: Image.Image) -> Any:
        """The features of an RGB picture; see `SegmenterLike`."""
        key = hashlib.sha256(b"%d " % image.width + image.tobytes()).digest()
        with self._encoding:
            with self._lock:
                if key in self._kept:
                    self.hits += 1
                    self._kept.move_to_end(key)
                    return self._kept[key]
            features = self.segmenter.encode(image)
            with self._lock:
                self.misses += 1
                self._kept[key] = features
                while len(self._kept) > self.max_features:
                    self._kept.popitem(last=False)
            return features

    def masks(
        self, features: Any, boxes: Sequence[Sequence[float]], points: Sequence[Sequence[float] | None] | None = None
    ) -> Iterable[tuple[Mask, float]]:
        """See `SegmenterLike`."""
        return self.segmenter.masks(features, boxes, points)
