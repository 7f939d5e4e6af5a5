"""Masks against masks: gIoU, cIoU, and how well "there is no such thing" is recognised (N-acc, T-acc).

gIoU is the mean of the samples' IoU and cIoU the sum of intersections over the sum of unions (LISA, arXiv 2308.00692;
GRES, arXiv 2306.00968). N-acc is the share of samples without a target for which nothing was painted, T-acc the share
of samples with a target for which something was (GRES's paper and GREC's code; GRES's own code prints another
quotient under the name T-acc).

The protocols differ where both masks are empty (official: IoU 1; upstream: 0) and where the truth has an ignore
region, as ReasonSeg does (official: its pixels count neither in the intersection nor in the union, as in LISA's code;
upstream: they were painted as foreground when the data was prepared).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from vision_reasoner.masks import Mask, RunLengths, check_run_lengths, encode_mask

AnyMask = Mask | Mapping[str, Any]
"""(H, W) bool, or COCO's compressed run lengths `{"size": [H, W], "counts": str or bytes}`; both in image pixels."""


LEAST_IMAGES = 250
"""cIoU is decided by the largest objects: its interval holds where that many images of equal areas would vary as much
(`intervals.interval`)."""


class Overlap(NamedTuple):
    """Areas in pixels."""

    predicted: int
    truth: int
    intersection: int

    @property
    def union(self) -> int:
        return self.predicted + self.truth - self.intersection


def overlap(predicted: Sequence[AnyMask], truth: Sequence[AnyMask], *, ignore: Sequence[AnyMask] = ()) -> Overlap:
    """How two areas overlap, without the pixels of a third.

    Each is a list of masks, of which the union counts; an empty list is an empty area. Run lengths are never unpacked.

    Args:
        predicted: the objects' masks.
        truth: those of the target.
        ignore: pixels that do not count, as if the image did not have them.

    Raises:
        ValueError: a mask is neither an (H, W) bool array nor run lengths, or two differ in size.
        DataError: run lengths are damaged.
    """
    sizes: set[tuple[int, int]] = set()
    paint, target, left_out = (_union(masks, sizes) for masks in (predicted, truth, ignore))
    if len(sizes) > 1:
        raise ValueError(f"masks of one image must have one (H, W), got {sorted(sizes)}")

    def area(*parts: Mapping[str, Any] | None) -> int:
        return _shared(*parts) - (0 if left_out is None else _shared(*parts, left_out))

    return Overlap(area(paint), area(target), area(paint, target))


def iou(intersection: float, union: float, *, empty: float) -> float:
    """Intersection over union; `empty` where both areas are empty (official 1, upstream 0)."""
    return intersection / union if union else empty


def score(
    predicted: Sequence[AnyMask], truth: Sequence[AnyMask], *, ignore: Sequence[AnyMask] = ()
) -> dict[str, float]:
    """A sample's columns in both protocols; arguments and errors are those of `overlap`.

    Returns:
        Pixels: intersection, union, upstream_intersection, upstream_union. Fractions: iou, upstream_iou. 0 or 1:
        no_target, no_target_right, target, target_right.
    """
    official = overlap(predicted, truth, ignore=ignore)
    upstream = overlap(predicted, [*truth, *ignore]) if ignore else official
    no_target, painted = official.truth == 0, official.predicted > 0
    return {
        "intersection": official.intersection,
        "union": official.union,
        "iou": iou(official.intersection, official.union, empty=1.0),
        "upstream_intersection": upstream.intersection,
        "upstream_union": upstream.union,
        "upstream_iou": iou(upstream.intersection, upstream.union, empty=0.0),
        "no_target": float(no_target),
        "no_target_right": float(no_target and not painted),
        "target": float(not no_target),
        "target_right": float(not no_target and painted),
    }


def _union(masks: Sequence[AnyMask], sizes: set[tuple[int, int]]) -> Mapping[str, Any] | None:
    """One mask's run lengths, None for no masks; the masks' (H, W) go into `sizes`."""
    encoded = [_encoded(mask) for mask in masks]
    sizes.update((int(one["size"][0]), int(one["size"][1])) for one in encoded)
    return coco_mask.merge(encoded) if len(encoded) > 1 else next(iter(encoded), None)


def _encoded(mask: AnyMask) -> RunLengths:
    if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.dtype == np.bool_:
        return encode_mask(mask)
    if isinstance(mask, Mapping) and {"size", "counts"} <= mask.keys():
        return check_run_lengths(mask)
    raise ValueError(f"a mask must be (H, W) bool or COCO run lengths, got {_described(mask)}; give masks as a list")


def _described(value: object) -> str:
    return f"{value.dtype} array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _shared(*parts: Mapping[str, Any] | None) -> int:
    """The pixels that are in all of the masks; None is an empty one."""
    masks = [part for part in parts if part is not None]
    if len(masks) < len(parts):
        return 0
    return int(coco_mask.area(masks[0] if len(masks) == 1 else coco_mask.merge(masks, intersect=True)))
