"""Run lengths: what COCO writes comes back, and what does not add up never reaches pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from vision_reasoner.errors import DataError
from vision_reasoner.masks import box_around, check_run_lengths, decode_mask, encode_mask

DISC = np.hypot(*np.mgrid[-20:20, -30:30]) < 15
SIZE = [40, 60]


def uncompressed(mask):
    """Lengths column by column, beginning with the pixels outside."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    bounds = np.concatenate(([0], changes, [len(pixels)]))
    lengths = np.diff(bounds).tolist()
    return [0, *lengths] if pixels[0] else lengths


masks = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda t: np.random.default_rng(t[2]).random((t[0], t[1])) < t[3]
)


@given(masks)
def test_masks_come_back_from_both_kinds_of_run_lengths(mask):
    encoded = encode_mask(mask)
    assert check_run_lengths(encoded) == encoded
    assert np.array_equal(decode_mask(encoded), mask)
    plain = {"size": list(mask.shape), "counts": uncompressed(mask)}
    assert check_run_lengths(plain) == encoded
    assert check_run_lengths({"size": mask.shape, "counts": encoded["counts"].encode()}) == encoded


def test_large_masks_come_back():
    mask = np.hypot(*np.mgrid[-1500:1500, -2000:2000]) % 301 < 150
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"size": [480, 640], "counts": "0"}, id="a length that is the rest of another picture"),
        pytest.param({"size": SIZE, "counts": ""}, id="nothing"),
        pytest.param({"size": SIZE, "counts": []}, id="no lengths"),
        pytest.param({"size": SIZE, "counts": [205, *[20] * 39]}, id="lengths that end early"),
        pytest.param({"size": SIZE, "counts": [2400, 20]}, id="one length too many"),
        pytest.param({"size": SIZE, "counts": [2420, -20]}, id="a negative length"),
        pytest.param({"size": SIZE, "counts": encode_mask(DISC)["counts"][:-3]}, id="a text that ends early"),
        pytest.param({"size": SIZE, "counts": "P"}, id="a text cut inside a number"),
        pytest.param({"size": SIZE, "counts": f"b'{encode_mask(DISC)['counts']}'"}, id="the text of Python bytes"),
        pytest.param({"size": SIZE, "counts": "\\" + encode_mask(DISC)["counts"]}, id="an escape doubled"),
        pytest.param({"size": SIZE, "counts": encode_mask(np.ones((50, 60), bool))["counts"]}, id="a larger mask"),
        pytest.param({"size": SIZE, "counts": "~" * 9}, id="letters that are not COCO's"),
        pytest.param({"size": SIZE, "counts": "ü0"}, id="no ASCII"),
        pytest.param({"size": SIZE, "counts": b"\xff\xff0"}, id="no ASCII bytes"),
        pytest.param({"size": SIZE, "counts": "o" * 10_000_000}, id="a number without an end"),
        pytest.param({"size": SIZE, "counts": [2**64, 2400]}, id="huge lengths that wrap around"),
        pytest.param({"size": SIZE, "counts": [2400.0]}, id="floats"),
        pytest.param({"size": [1, 1], "counts": [True]}, id="booleans"),
        pytest.param({"size": SIZE, "counts": [[2400]]}, id="nested"),
        pytest.param({"size": [40, 60, 3], "counts": [2400]}, id="three sides"),
        pytest.param({"size": [0, 60], "counts": [0]}, id="no pixels"),
        pytest.param({"size": [-40, -60], "counts": [2400]}, id="negative sides"),
        pytest.param({"size": "40x60", "counts": [2400]}, id="sides as text"),
        pytest.param({"size": [40.0, 60.0], "counts": [2400]}, id="sides as floats"),
        pytest.param({"size": [10**5, 10**5], "counts": [10**10]}, id="too large to count"),
        pytest.param({"size": SIZE}, id="no counts"),
        pytest.param([2400], id="a list"),
        pytest.param(None, id="null"),
    ],
)
def test_what_does_not_add_up_is_an_error(value):
    for read in (check_run_lengths, decode_mask):
        with pytest.raises(DataError):
            read(value)


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=40), st.binary(max_size=40), st.lists(st.integers(), max_size=20)))
def test_anything_is_a_mask_or_an_error(counts):
    try:
        mask = decode_mask({"size": [6, 7], "counts": counts})
    except DataError:
        return
    assert mask.shape == (6, 7)


def test_runs_of_no_pixels_are_taken_out_because_merging_stops_at_them():
    odd = {"size": [4, 5], "counts": [3, 4, 0, 2, 5, 0, 6]}  # 4 + 2 pixels inside in one run
    mask = np.zeros(20, bool)
    mask[3:9] = True
    assert np.array_equal(decode_mask(odd), mask.reshape(5, 4).T)
    compressed = coco_mask.frPyObjects(odd, 4, 5)
    assert check_run_lengths(compressed) == encode_mask(mask.reshape(5, 4).T)


def test_the_box_around_a_mask_has_its_edges():
    mask = np.zeros((6, 9), dtype=bool)
    assert box_around(mask) is None
    mask[2, 3] = mask[4, 7] = True
    assert box_around(mask) == (3, 2, 8, 5)
