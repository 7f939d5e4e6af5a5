"""What a fit of the frame means, in words: confirmed, wrong and what to do about it, or undecided and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vision_reasoner.doctor.frame import (
    EXPECTED_ORDER,
    MIN_MATCHED_NEAR,
    ORDERS,
    Fit,
    Floats,
    Sighting,
    fit_all,
    fit_near,
    fit_one,
    n_hit,
)
from vision_reasoner.prompts import DIALECTS, Dialect, Frame

State = Literal["confirmed", "wrong", "undecided"]

TOLERANCE = 0.03  # of the frame: multiples of 28 around 840 are further apart
SIGMAS = 4.0  # what is within so many standard errors may be chance, in one of 20 numbers that are looked at
MAX_UNSURE = 0.12  # of the frame: where chance may do more, one picture says nothing
GRIDS = (28, 32)  # pixels: frames of models are multiples of these, as a rule

_RESIZED = "something between here and the model resizes: look for that option of the server"
_LOOK = "look at the replies, which --json shows"
_OWN_WAY = "check that --model fits the checkpoint, and that the chat template is the checkpoint's own"
_DIFFERING = "each picture has a frame of its own", f"{_RESIZED}, or send pictures of one size"


@dataclass(frozen=True, eq=False)
class Judged:
    """One picture.

    Attributes:
        sighting: what was asked and written.
        fit: in units of the frame; None where too few objects were found.
        n_found: how many objects were found: in the frame of all pictures, or else in its own.
        apart: whether the fit is the picture's own, and not near that of all pictures.
    """

    sighting: Sighting
    fit: Fit | None
    n_found: int
    apart: bool = False

    @property
    def off(self) -> bool | None:
        """Whether its boxes are elsewhere than in the frame; None where that cannot be said."""
        if self.fit is None:
            return None
        shifts, chance = np.abs(self.fit.shifts), SIGMAS * self.fit.uncertainty
        if (shifts > np.maximum(TOLERANCE, chance)).any():
            return True
        return None if (chance > MAX_UNSURE).any() else False

    @property
    def astray(self) -> bool:
        """Whether boxes were written and hardly one lies on anything."""
        return self.fit is None and len(self.sighting.written) >= MIN_MATCHED_NEAR and self.n_found <= 1

    @property
    def measured(self) -> str:
        """The frame that was measured, and where the picture begins in it: `840x840`, `840x630 at 0,105`."""
        if self.fit is None:
            return ""
        frame = self.sighting.frame
        size = "{:.0f}x{:.0f}".format(*(self.fit.scale * frame))
        moved = (np.abs(self.fit.offset) > np.maximum(TOLERANCE, SIGMAS * self.fit.uncertainty[:, 0])).any()
        return f"{size} at {{:.0f}},{{:.0f}}".format(*(self.fit.offset * frame)) if moved else size

    @property
    def error(self) -> float | None:
        """How far an edge is from the true one, in pixels of the frame's longer side; the median."""
        return None if self.fit is None else self.fit.error * max(self.sighting.frame)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What can be said about the frame.

    Attributes:
        state: see `State`.
        summary: one line.
        advice: what to do about it, one line; empty where there is nothing to do.
        pictures: each one.
    """

    state: State
    summary: str
    advice: str
    pictures: tuple[Judged, ...]


def diagnose(sightings: Sequence[Sighting], dialect: Dialect, *, served: bool) -> Verdict:
    """Say whether the boxes are in the frame that the library takes them to be in.

    Args:
        sightings: what was written about pictures that are known.
        dialect: by which the model was asked.
        served: whether a server runs the model.
    """
    common = fit_all(sightings)
    if common is None:
        return _without_common_frame(sightings)
    pictures = tuple(_judge(sighting, common) for sighting in sightings)
    expected = _frame_name(sightings, dialect)
    found, advice = _explanation(common, sightings, dialect, served)
    if found and any(picture.apart for picture in pictures):
        found, advice = _DIFFERING
    if common.order != EXPECTED_ORDER:
        found = f"boxes are written as {common.order}, not as {EXPECTED_ORDER}" + (f"; {found}" if found else "")
        advice = advice or _OWN_WAY
    elif not found and any(picture.off for picture in pictures):
        found, advice = _exceptions(pictures)
    if found:
        return Verdict("wrong", found, advice, pictures)
    return _right_frame(common, pictures, expected)


def _right_frame(common: Fit, pictures: tuple[Judged, ...], expected: str) -> Verdict:
    """The verdict where nothing speaks against the frame that is expected."""
    astray = [picture.sighting.name for picture in pictures if picture.astray]
    if astray:
        summary = f"undecided: {expected} but for {_listed(astray)} pictures, where boxes lie on nothing"
        return Verdict("undecided", summary, _LOOK, pictures)
    error = float(np.median([picture.error for picture in pictures if picture.error is not None] or [0.0]))
    summary = f"confirmed: {expected}, error {error:.0f} px ({100 * common.error:.1f} %)"
    if unknown := [picture.sighting.name for picture in pictures if picture.off is None]:
        summary += f"; too few objects were found to say it of {_listed(unknown)} pictures"
    return Verdict("confirmed", summary, "", pictures)


def _judge(sighting: Sighting, common: Fit) -> Judged:
    near = fit_near(sighting, common)
    fit = near or fit_one(sighting, common.order)
    if fit is not None and common.unit == "frame":  # a few boxes may agree by chance: the spread is that of all
        fit = replace(fit, spread=np.maximum(fit.spread, common.spread))
    n_found = n_hit(sighting, common) if near is not None or fit is None else fit.matched
    return Judged(sighting, fit, n_found, apart=near is None and fit is not None)


def _without_common_frame(sightings: Sequence[Sighting]) -> Verdict:
    """The verdict where no one frame explains all pictures."""
    alone = {order: [fit_one(sighting, order) for sighting in sightings] for order in ORDERS}
    order = max(alone, key=lambda order: sum(fit.matched for fit in alone[order] if fit is not None))
    pictures = tuple(
        Judged(sighting, fit, 0 if fit is None else fit.matched)
        for sighting, fit in zip(sightings, alone[order], strict=True)
    )
    if sum(picture.fit is not None for picture in pictures) > 1:
        return Verdict("wrong", *_DIFFERING, pictures)
    n_written = sum(len(sighting.written) for sighting in sightings)
    wanted = sum(len(sighting.truth) for sighting in sightings)
    if not n_written:
        summary, advice = "no boxes were written", _LOOK
    elif n_written < wanted / 2:
        summary = f"too few objects were found: {n_written} boxes for {wanted} objects"
        advice = f"a model that finds more can be judged; {_LOOK}"
    else:
        summary = f"{n_written} boxes were written for {wanted} objects, and in no frame lie on them"
        advice = f"does the model get the pictures? A server that leaves them out looks like this; {_LOOK}"
    return Verdict("undecided", f"undecided: {summary}", advice, pictures)


def _explanation(fit: Fit, sightings: Sequence[Sighting], dialect: Dialect, served: bool) -> tuple[str, str]:
    """What the numbers are relative to, where it is not what they are taken for, and what to do; else empty texts."""
    chance = SIGMAS * fit.uncertainty
    expected = _frame_name(sightings, dialect)
    if fit.unit == "frame" and not (np.abs(fit.shifts) > np.maximum(TOLERANCE, chance)).any():
        return "", ""
    if fit.unit == "image":
        return f"answers are in pixels of the picture, not in {expected}", _models("processed") or _OWN_WAY
    if fit.unit == "turned":
        return (
            "width and height of the frame are exchanged",
            "look for (height, width) where (width, height) is meant, in the server or its image processor",
        )
    frames = {sighting.frame for sighting in sightings}
    frame = (1, 1) if fit.unit == "constant" else frames.pop() if len(frames) == 1 else None
    shifted = (np.abs(fit.offset) > np.maximum(TOLERANCE * fit.scale, chance[:, 0])).any()
    stretched = (np.abs(fit.scale - 1) > np.maximum(TOLERANCE, chance.max(axis=1))).any()
    if frame is None or shifted or not stretched:
        return f"every picture is off: {_shift(fit)}", _RESIZED
    sides = fit.scale * frame
    return _another_side(sides, float(np.max(chance / fit.scale[:, None])), expected, dialect, served)


def _another_side(sides: Floats, chance: float, expected: str, dialect: Dialect, served: bool) -> tuple[str, str]:
    """The same for a frame with these sides for all pictures, which are known up to a share of `chance`."""
    near = max(TOLERANCE / 2, chance)
    if (np.abs(sides / 1000 - 1) < near).all():
        return f"answers are in 0 to 1000, not in {expected}", _models("normalized_1000") or _OWN_WAY
    for side in (1, 100):
        if (np.abs(sides / side - 1) < near).all():
            return f"answers are in 0 to {side}, not in {expected}", _OWN_WAY
    if abs(sides[0] / sides[1] - 1) > near:
        return f"answers are in a frame of {sides[0]:.0f}x{sides[1]:.0f}, not in {expected}", _RESIZED
    multiples = [grid * round(float(sides.mean()) / grid) for grid in GRIDS]
    nearest = min(multiples, key=lambda multiple: abs(float(sides.mean()) - multiple))
    side = nearest if abs(sides.mean() / max(nearest, 1) - 1) < TOLERANCE / 2 else round(float(sides.mean()))
    advice = f"{_RESIZED}; if {side} is the model's own frame, say --frame_side {side}"
    if dialect.frame != "square":
        advice = f"{_RESIZED}, or {_models('square')}" if dialect.frame == "normalized_1000" else _RESIZED
    elif not served:
        advice = f'is "frame_side" in the checkpoint\'s config right? By this it is {side}'
    return f"answers are in a frame of {side}x{side}, not in {expected}", advice


def _models(frame: Frame) -> str:
    """Which --model reads numbers in a frame; the latest first."""
    names = [dialect.name for dialect in reversed(DIALECTS.values()) if dialect.frame == frame]
    return f"use --model {' or '.join(names)}" if names else ""


def _exceptions(pictures: Sequence[Judged]) -> tuple[str, str]:
    """What is wrong with some of the pictures, and what to do about it."""
    off = {picture.sighting.name: picture for picture in pictures if picture.off}
    right = {picture.sighting.name for picture in pictures if picture.off is False}
    told = [f"{_shift(picture.fit)} on {name} pictures" for name, picture in off.items() if picture.fit is not None]
    advice = _RESIZED
    if "square" in right and off.keys() <= {"wide", "tall"}:
        advice = "it resizes: send square pictures, or look for the option of the server that does it"
    elif off.keys() == {"large"}:
        advice = "it makes large pictures smaller: raise the server's limit of pixels, or send smaller ones"
    elif off.keys() == {"small"}:
        advice = "it makes small pictures larger: lower the server's least number of pixels, or send larger ones"
    return f"boxes are off: {_listed(told)}", advice


def _shift(fit: Fit) -> str:
    """How far off a fit is, for example `y by +6 %` or `x by a factor of 0.75`."""
    told: dict[str, list[str]] = {}
    scale = fit.scale
    if abs(scale[0] - scale[1]) < TOLERANCE * scale.mean():
        scale = np.full(2, scale.mean())
    for axis, name in enumerate("xy"):
        first, last = fit.shifts[axis]
        limits = np.maximum(TOLERANCE, SIGMAS * fit.uncertainty[axis])
        if abs(first) <= limits[0] and abs(last) <= limits[1]:
            continue
        if abs(last - first) < limits.max():
            how = f"by {100 * (first + last) / 2:+.0f} %"
        elif abs(first) <= limits[0]:
            how = f"by a factor of {scale[axis]:.2f}"
        else:
            how = f"by {100 * first:+.0f} % and a factor of {scale[axis]:.2f}"
        told.setdefault(how, []).append(name)
    return ", ".join(f"{' and '.join(names)} {how}" for how, names in told.items())


def _frame_name(sightings: Sequence[Sighting], dialect: Dialect) -> str:
    """What the library takes numbers to be in."""
    if dialect.frame == "normalized_1000":
        return "0 to 1000"
    frames = {sighting.frame for sighting in sightings}
    return "{:d}x{:d}".format(*frames.pop()) if len(frames) == 1 else "pixels of the picture as the model gets it"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))
