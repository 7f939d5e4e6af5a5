"""The segmenter's stage: it trains what inference uses, and what it writes is what inference loads."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.drawings import sprites
from vision_reasoner.models.segmenter import BOX_CORNERS, POSITIVE_POINT, Segmenter
from vision_reasoner.scenes.scene import Scene, random_scene
from vision_reasoner.training.tiny import segmenter as stage


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = stage.make_segmenter().eval()
    return made


@pytest.fixture(scope="module")
def scene() -> Scene:
    return random_scene(sprites(), random.Random(1), (stage.IMAGE_SIZE, stage.IMAGE_SIZE), max_objects=6, min_objects=4)


def test_features_in_training_are_those_that_the_predictor_computes(model: torch.nn.Module, scene: Scene) -> None:
    predicted = Segmenter(model).encode(Image.fromarray(scene.image))
    with torch.no_grad():
        ours = stage.features(model, [scene.image])
    for level, theirs in zip(ours, [*predicted.high_resolution, predicted.embedding], strict=True):
        torch.testing.assert_close(level, theirs, rtol=1e-4, atol=1e-4)


def test_the_exported_folder_gives_the_masks_of_the_model_it_was_written_from(
    model: torch.nn.Module, scene: Scene, tmp_path: Path
) -> None:
    model.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})  # what half precision keeps
    stage.export(model, tmp_path / "segmenter")
    boxes, points = [o.box for o in scene.objects], [o.point for o in scene.objects]
    results = []
    for segmenter in (Segmenter(model), Segmenter.from_pretrained(tmp_path / "segmenter", device="cpu")):
        features = segmenter.encode(Image.fromarray(scene.image))
        results.append([mask for mask, _ in segmenter.masks(features, boxes, points)])
    ours, loaded = results
    assert np.array_equal(ours, loaded)


def test_a_few_steps_on_one_scene_lower_the_loss(scene: Scene) -> None:
    torch.manual_seed(0)
    model = stage.make_segmenter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for _ in range(6):
        loss, seen = stage.losses(model, [scene], random.Random(0), most=4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(seen["loss"])
    assert history[-1] < 0.9 * history[0]


def test_prompts_are_jittered_corners_and_a_point_on_the_object_or_none(scene: Scene) -> None:
    rng, kinds = random.Random(0), set()
    for _ in range(60):
        for o in scene.objects:
            (first, second, point), labels = stage.random_prompt(o, rng)
            assert tuple(labels[:2]) == tuple(BOX_CORNERS)
            side = max(o.box.x2 - o.box.x1, o.box.y2 - o.box.y1)
            assert np.abs(np.array([*first, *second]) - np.array(o.box)).max() < 0.35 * side
            kinds.add(labels[2])
            if labels[2] == POSITIVE_POINT:
                assert o.mask[int(point[1]), int(point[0])]
    assert kinds == {POSITIVE_POINT, stage.NO_POINT}
