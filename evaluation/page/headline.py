"""The one number that stands for a sample, by which the page sorts and two runs are compared sample by sample."""

from collections.abc import Mapping
from typing import NamedTuple

from evaluation.suites import Record


class Headline(NamedTuple):
    """A sample's number.

    Attributes:
        name: what it is; empty where `shown` says so itself.
        quality: from 0, the worst, to 1.
        shown: as people read it.
    """

    name: str
    quality: float
    shown: str


def headline(record: Record, scores: Mapping[str, float]) -> Headline:
    """The headline of a record, by the scores that it has: IoU, distance in count, F1 at IoU 0.5, or the first one."""
    if "iou" in scores:
        return Headline("IoU", scores["iou"], f"{scores['iou']:.2f}")
    if "off_by_one" in scores:
        off = len(record["instances"]) - record["truth"]["count"]
        if not scores["counted"]:
            return Headline("", 0.0, "no count")
        return Headline("off" if off else "", 1 / (1 + abs(off)), f"{off:+d}".replace("-", "−") if off else "exact")
    if "matched" in scores:
        boxes = scores["predicted"] + scores["true"]
        f1 = 2 * scores["matched"] / boxes if boxes else 1.0
        return Headline("F1", f1, f"{f1:.2f}")
    name, value = next(iter(scores.items()))
    return Headline(name, value, f"{value:.2f}")
