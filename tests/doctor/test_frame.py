"""The fit of the frame on boxes that are made up: what comes out is what was put in, whatever else is written."""

import numpy as np
import pytest

from vision_reasoner.doctor.frame import ORDERS, Sighting, fit_all, fit_one
from vision_reasoner.doctor.scenes import SIZES, draw_scenes

SCENES = {scene.name: np.array(scene.boxes, dtype=float) for scene in draw_scenes("airplanes")}


def sightings(writes, *, noise=0.0, invented=0, missed=0.0, frame=None, seed=0):
    """What is written if `writes` makes numbers of relative boxes, a picture's size and its frame."""
    rng = np.random.default_rng(seed)
    found = []
    for name, boxes in SCENES.items():
        size = SIZES[name]
        seen = frame(size) if frame else (840, 840)
        kept = boxes[rng.random(len(boxes)) >= missed] / np.tile(size, 2)
        told = kept + rng.normal(0, noise, kept.shape)
        more = np.sort(rng.random((invented, 2, 2)), axis=1).reshape(-1, 4)
        written = writes(np.concatenate([told, more]), size, seen).reshape(-1, 4)
        found.append(Sighting(name, size, seen, boxes, written))
    return found


def tiled(size):
    return np.tile(size, 2)


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_is_told(order):
    fit = fit_all(sightings(lambda boxes, _, seen: boxes * tiled(seen) @ np.linalg.inv(ORDERS[order]).T))
    assert fit is not None
    assert (fit.order, fit.unit, fit.matched) == (order, "frame", 30)
    assert np.abs(fit.shifts).max() < 1e-6


@pytest.mark.parametrize(
    ("unit", "writes"),
    [
        ("frame", lambda boxes, _, seen: boxes * tiled(seen)),
        ("image", lambda boxes, size, _: boxes * tiled(size) * 1.0),
        ("turned", lambda boxes, _, seen: boxes * tiled(seen[::-1])),
        ("constant", lambda boxes, *_: boxes * 1000),
        ("constant", lambda boxes, *_: boxes * 448),
        ("constant", lambda boxes, *_: boxes),
    ],
)
def test_what_numbers_are_relative_to_is_told(unit, writes):
    def frame(size):
        return (size[0] + 300, 2 * size[1])  # of no shape that the picture has

    fit = fit_all(sightings(writes, frame=frame))
    assert fit is not None
    assert (fit.unit, fit.matched) == (unit, 30)


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.3, 0.9), (2.0, 2.0)])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.1, -0.05)])
def test_scale_and_offset_of_each_axis_are_measured(scale, offset):
    def writes(boxes, _, seen):
        return (boxes * tiled(scale) + tiled(offset)) * tiled(seen)

    fit = fit_all(sightings(writes, noise=0.004))
    assert fit is not None
    assert fit.scale == pytest.approx(scale, rel=0.02)
    assert fit.offset == pytest.approx(offset, abs=0.015)
    assert (np.abs(fit.shifts - np.stack([offset, np.add(offset, scale) - 1], axis=1)) < 4 * fit.uncertainty).all()


@pytest.mark.parametrize("seed", range(4))
def test_boxes_that_a_model_misses_and_invents_have_no_say(seed):
    fit = fit_all(sightings(lambda boxes, *_: boxes * 1000, noise=0.01, invented=3, missed=0.3, seed=seed))
    assert fit is not None
    assert fit.scale * (840 if fit.unit == "frame" else 1) == pytest.approx([1000, 1000], rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_anywhere_fit_nothing(seed):
    def writes(boxes, _, seen):
        return np.sort(np.random.default_rng([seed, len(boxes)]).random((8, 2, 2)), axis=1).reshape(-1, 4) * tiled(seen)

    found = sightings(writes)
    assert fit_all(found) is None
    assert not any(fit_one(sighting, order) for sighting in found for order in ORDERS)


def test_one_picture_has_a_fit_of_its_own():
    wide = sightings(lambda boxes, _, seen: (boxes * [1, 0.375, 1, 0.375] + [0, 0.3, 0, 0.3]) * tiled(seen))[1]
    fit = fit_one(wide, "x1 y1 x2 y2")
    assert fit is not None
    assert fit.scale == pytest.approx([1, 0.375])
    assert fit.offset == pytest.approx([0, 0.3])


@pytest.mark.parametrize(
    "numbers", [[], [[0, 0, 0, 0]], [[5, 5, 5, 5]] * 12, [[1e308] * 4] * 3, [[-1, 2, -3, 4]] * 300]
)
def test_no_numbers_make_it_fail(numbers):
    assert fit_all(sightings(lambda *_: np.array(numbers, dtype=float))) is None
