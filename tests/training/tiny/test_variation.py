"""Varied drawings: other pixels, the same thing."""

from random import Random

import numpy as np

from tests.support.drawings import sprites
from vision_reasoner.scenes.art import SPRITE_SIDE
from vision_reasoner.scenes.scene import SOLID_ALPHA
from vision_reasoner.training.tiny.variation import varied


def test_a_varied_drawing_is_another_one_of_the_same_class_and_fills_its_frame() -> None:
    originals = [found[0] for found in sprites() if found][:8]
    for original in originals:
        many = [varied(original, Random(seed)) for seed in range(6)]
        assert len({v.rgba.tobytes() for v in many}) == len(many)
        for v in many:
            assert (v.label, v.style, v.code) == (original.label, original.style, original.code)
            assert max(v.rgba.shape[:2]) == SPRITE_SIDE
            solid = v.rgba[..., 3] > SOLID_ALPHA
            assert solid.any(0).mean() > 0.95
            assert solid.any(1).mean() > 0.95


def test_the_generator_decides_how_a_drawing_is_varied() -> None:
    original = next(found[0] for found in sprites() if found)
    assert np.array_equal(varied(original, Random(3)).rgba, varied(original, Random(3)).rgba)
