"""The picture of a result, looked at pixel by pixel where the eye would look."""

import itertools

import numpy as np
import pytest
from PIL import Image

from vision_reasoner.geometry import Box, Point
from vision_reasoner.results import Instance, Prediction, Task
from vision_reasoner.visualize import MARGIN, PANEL_SIDE, draw_prediction, object_colors

GREY = (90, 90, 90)


def grid(count, size, masks=True):
    """`count` objects of equal size in rows, as instances of a picture of `size`."""
    columns = int(np.ceil(np.sqrt(count)))
    cell = min(size) // columns
    instances = []
    for i in range(count):
        x, y = (i % columns) * cell + cell // 5, (i // columns) * cell + cell // 5
        box = Box(x, y, x + cell * 3 // 5, y + cell * 3 // 5)
        mask = np.zeros((size[1], size[0]), dtype=np.bool_)
        mask[box.y1 : box.y2, box.x1 : box.x2] = True
        point = Point((box.x1 + box.x2) // 2, (box.y1 + box.y2) // 2)
        instances.append(Instance(box, point, mask if masks else None, 0.9 if masks else None))
    return instances


def panels(sheet, size):
    """The three panels of a sheet as (H, W, 3) arrays; `size` is the picture's."""
    scale = PANEL_SIDE / max(size)
    width, height = round(size[0] * scale), round(size[1] * scale)
    pixels = np.asarray(sheet)
    # Titles are centred, so that at the left edge of the first panel the first row that is not paper is its first.
    top = next(row for row in range(60) if tuple(pixels[row, MARGIN + 1]) != (255, 255, 255))
    return [
        pixels[top : top + height, MARGIN + i * (width + MARGIN) : MARGIN + i * (width + MARGIN) + width]
        for i in range(3)
    ]


def near(pixels, color, tolerance=40):
    """Where an (H, W, 3) array has about a colour."""
    return (np.abs(pixels.astype(int) - color) <= tolerance).all(axis=2)


@pytest.mark.parametrize("count", [1, 10, 50])
def test_every_object_has_its_colour_in_both_panels(count):
    size = (800, 800)
    instances = grid(count, size)
    image = Image.new("RGB", size, GREY)
    sheet = draw_prediction(image, Prediction(size, "all", Task.SEGMENTATION, instances=instances))
    plain, boxes, masks = panels(sheet, size)
    assert near(plain, GREY, 2).all()
    scale = PANEL_SIDE / 800
    for instance, color in zip(instances, object_colors(count), strict=True):
        x1, y1, x2, y2 = (round(value * scale) for value in instance.box)
        assert near(boxes[y1 : y2 + 1, x1 : x2 + 1], color).any(), "no line of its colour around the object"
        veiled = masks[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].reshape(-1, 3).astype(int)
        blend = (2 * np.array(color) + 131) / 3  # two thirds of the colour over the greyed picture
        assert (np.abs(veiled - blend) < 12).all(axis=1).mean() > 0.2, "no veil of its colour over the object"
        outside = masks[max(y1 - 6, 0), max(x1 - 6, 0)]
        assert np.ptp(outside.astype(int)) < 4, "the veil leaves the mask"


def test_colours_of_fifty_objects_are_all_different_and_do_not_depend_on_their_number():
    colors = object_colors(50)
    assert len(set(colors)) == 50
    assert object_colors(7) == colors[:7]
    for first, second in itertools.pairwise(colors):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 100


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (64, 48), (3000, 2000)])
@pytest.mark.parametrize("task", [Task.SEGMENTATION, Task.COUNTING])
def test_any_shape_of_picture_can_be_drawn(size, task):
    mask = np.ones((size[1], size[0]), dtype=np.bool_) if task is Task.SEGMENTATION else None
    instance = Instance(Box(0, 0, *size), Point(*size), mask)
    sheet = draw_prediction(Image.new("RGB", size, GREY), Prediction(size, "it", task, instances=[instance]))
    assert sheet.mode == "RGB"
    assert PANEL_SIDE < max(sheet.size) < 4 * PANEL_SIDE


@pytest.mark.parametrize("thin", [0, 1])
def test_a_line_of_one_pixel_in_a_large_picture_can_still_be_seen(thin):
    size = (1500, 1500)
    mask = np.zeros((1500, 1500), dtype=np.bool_)
    mask[700 + thin, 100:1400] = True
    instance = Instance(Box(100, 690, 1400, 710), mask=mask)
    sheet = draw_prediction(
        Image.new("RGB", size, GREY), Prediction(size, "wire", Task.SEGMENTATION, instances=[instance])
    )
    masks = panels(sheet, size)[2].astype(int)
    assert (np.ptp(masks, axis=2) > 40).sum() > 300


def test_a_small_mask_lies_above_a_large_one():
    size = (400, 400)
    large, small = np.ones((400, 400), dtype=np.bool_), np.zeros((400, 400), dtype=np.bool_)
    small[20:120, 20:120] = True
    instances = [Instance(Box(20, 20, 120, 120), mask=small), Instance(Box(0, 0, 400, 400), mask=large)]
    sheet = draw_prediction(
        Image.new("RGB", size, GREY), Prediction(size, "both", Task.SEGMENTATION, instances=instances)
    )
    red, blue = object_colors(2)
    pixel = panels(sheet, size)[2][60, 60].astype(int)
    assert np.abs(pixel - red).sum() < np.abs(pixel - blue).sum()


def test_without_masks_the_third_panel_is_the_picture():
    size = (800, 600)
    prediction = Prediction(size, "dogs", Task.DETECTION, instances=grid(4, size, masks=False))
    plain, boxes, masks = panels(draw_prediction(Image.new("RGB", size, GREY), prediction), size)
    np.testing.assert_array_equal(plain, masks)
    assert (plain != boxes).any()


def test_a_count_without_objects_is_drawn():
    stated = Prediction((60, 40), "How many ants?", Task.COUNTING, answer="999999999")
    assert draw_prediction(Image.new("RGB", (60, 40), GREY), stated).width > 60


def test_the_given_picture_is_left_as_it_was():
    size = (80, 60)
    image = Image.new("L", size, 90)
    before = image.tobytes()
    draw_prediction(image, Prediction(size, "dogs", Task.SEGMENTATION, instances=grid(2, size)))
    assert image.mode == "L"
    assert image.tobytes() == before


def test_another_picture_is_refused():
    with pytest.raises(ValueError, match=r"size \(80, 60\), got \(60, 80\)"):
        draw_prediction(Image.new("RGB", (60, 80)), Prediction((80, 60), "dogs", Task.DETECTION))


@pytest.mark.parametrize(
    "query", ["", "où est l’été ?", "有几只狗", "\n\n", "word " * 2000, "x" * 5000, "a\x00b\ud800"]
)
def test_any_query_and_answer_can_be_captioned(query):
    size = (80, 60)
    one = draw_prediction(Image.new("RGB", size), Prediction(size, query, Task.VQA, answer=query))
    assert one.height < 2 * PANEL_SIDE


def test_the_answer_is_written_below():
    size = (80, 60)
    sheets = [
        draw_prediction(Image.new("RGB", size), Prediction(size, "name?", Task.VQA, answer=answer))
        for answer in ("Northwind", "Contoso")
    ]
    assert sheets[0].tobytes() != sheets[1].tobytes()


@pytest.mark.parametrize("label", ["dog", "有狗", "a\x00b\ud800\n", "word " * 50, " "])
def test_labels_stand_beside_the_boxes(label):
    size = (400, 300)
    drawn = {
        text: panels(
            draw_prediction(
                Image.new("RGB", size, GREY),
                Prediction(size, "all", Task.DETECTION, instances=[Instance(Box(100, 100, 200, 200), label=text)]),
            ),
            size,
        )[1]
        for text in (None, label)
    }
    assert (drawn[None] != drawn[label]).any() == bool(label.strip())
