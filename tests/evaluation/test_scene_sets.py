"""Scenes as data sets: what is in them, and that the suites read them."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from evaluation import scene_sets
from evaluation.prepare import main
from evaluation.runner.records import SAMPLES
from evaluation.runner.samples import Samples
from evaluation.scene_sets import KINDS, SceneOptions, rows_of, scene_requests
from evaluation.suites import SUITES
from tests.support.drawings import sprites
from tests.support.toys import toy_model, toy_run
from vision_reasoner.data.sources import Source, open_source
from vision_reasoner.images import load_image
from vision_reasoner.masks import decode_mask
from vision_reasoner.scenes.scene import random_scene

OPTIONS = SceneOptions("train", seed=5, pixels=160 * 120)


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain shapes instead of the drawings."""
    monkeypatch.setattr(scene_sets, "load_sprites", lambda split: sprites())  # noqa: ARG005


def prepared(folder: Path, kind: str, n: int = 3) -> Source:
    flags = ["--n", str(n), "--seed", "5", "--kinds", kind, "--output_dir", str(folder), "-q"]
    assert main(["scenes", "--split", "unseen_style", *flags]) == 0
    return open_source(folder / f"{kind}_unseen_style")


@pytest.mark.parametrize("kind", KINDS)
def test_every_set_is_read_by_its_suite_and_has_a_truth(tmp_path: Path, kind: str) -> None:
    source = prepared(tmp_path, kind)
    samples = Samples(SUITES[KINDS[kind].suite], source)
    found = [samples[i] for i in range(source.n)]
    assert source.name == f"{kind}_unseen_style"
    assert {sample.problem for sample in found} == {None}
    assert all(sample.query and sample.truth for sample in found)
    assert len({sample.image_id for sample in found}) == 3
    assert len({sample.id for sample in found}) == source.n


def test_a_set_is_the_same_for_the_same_seed_whatever_else_is_made(tmp_path: Path) -> None:
    one, two = (prepared(tmp_path / name, "purpose") for name in ("a", "b"))
    assert one.fingerprint == two.fingerprint
    queries = [[row["text"] for row in rows_of("purpose", n, OPTIONS)] for n in (2, 4)]
    assert queries[1][:2] == queries[0]
    assert len({kind.stream for kind in KINDS.values()}) == len(KINDS)


def test_images_are_stored_exactly_unless_a_quality_is_given() -> None:
    (scene, _), *_ = scene_requests("counting", 1, OPTIONS)
    (exact,) = rows_of("counting", 1, OPTIONS)
    (lossy,) = rows_of("counting", 1, SceneOptions("train", seed=5, pixels=160 * 120, quality=80))
    images = [np.asarray(load_image(row["image"]["bytes"])) for row in (exact, lossy)]
    assert np.array_equal(images[0], scene.image)
    assert not np.array_equal(images[1], scene.image)
    assert len(lossy["image"]["bytes"]) < len(exact["image"]["bytes"])


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.templates])
def test_what_is_there_and_what_is_not_are_sets_of_their_own(kind: str) -> None:
    requests = [request for _, request in scene_requests(kind, 12, OPTIONS)]
    assert {request.kind == "absent" for request in requests} == {kind == "absent"}
    if KINDS[kind].suite != "vqa":
        assert {bool(request.targets) for request in requests} == {kind != "absent"}


def test_masks_are_the_union_of_the_targets() -> None:
    for (scene, request), row in zip(
        scene_requests("referring", 4, OPTIONS), rows_of("referring", 4, OPTIONS), strict=True
    ):
        masks = [scene.objects[i].mask for i in request.targets]
        assert np.array_equal(row["mask"], np.any(masks, axis=0))
        assert (row["bbox"] is None) == (len(masks) != 1)


def test_objects_have_their_own_mask_box_and_a_point_inside() -> None:
    rows = list(rows_of("objects", 2, OPTIONS))
    scene = random_scene(sprites(), random.Random(OPTIONS.seed), max_objects=12, pixels=OPTIONS.pixels)
    assert len([row for row in rows if row["image_id"] == "0"]) == len(scene.objects)
    for row in rows:
        x1, y1, x2, y2 = row["bbox"]
        x, y = row["point"]
        assert row["mask"][y, x]
        assert row["mask"].sum() == row["mask"][y1:y2, x1:x2].sum()


def test_the_segmenter_is_given_the_true_boxes_and_points_and_sees_each_image_once(tmp_path: Path) -> None:
    source = prepared(tmp_path, "objects")
    model = toy_model()
    metrics = toy_run(Path(source.path), "segmenter", tmp_path / "run", model, batch_size=source.n)
    assert model.reasoner.batches == [], "the reasoner is not asked"
    assert len(model.segmenter.images) == 3
    assert metrics["errors"] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / SAMPLES).read_text().splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(source.n))
    for line in lines:  # that toy segmenter fills boxes
        (instance,) = line["instances"]
        assert instance["box"] == line["truth"]["boxes"][0]
        assert instance["point"] == line["truth"]["point"]
        mask, true = decode_mask(instance["mask"]), decode_mask(line["truth"]["mask"])
        assert not (true & ~mask).any()


def test_a_set_without_scenes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "--output_dir", str(tmp_path), "--n", "0"]) == 2
    assert "--n must be at least 1" in capsys.readouterr().err
