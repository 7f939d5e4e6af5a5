"""The segmenter: the very masks that the package's own predictor gives box by box, and configs that are not trusted."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from sam2.sam2_image_predictor import SAM2ImagePredictor

from tests.conftest import noise
from tests.support.tiny import segmenter_config
from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.models import segmenter as segmenter_module
from vision_reasoner.models.segmenter import Segmenter

WIDTH, HEIGHT = 180, 140


@pytest.fixture(scope="module")
def segmenter(bundle: Path) -> Segmenter:
    return Segmenter.from_pretrained(bundle / "segmenter", device="cpu")


def prompts(n: int, seed: int = 0) -> tuple[list, list]:
    """`n` boxes, and for two of three a point in the middle."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(0, (WIDTH, HEIGHT), (n, 2, 2)), axis=1)
    boxes = [(x1, y1, x2 + 1, y2 + 1) for (x1, y1), (x2, y2) in corners.tolist()]
    points = [((b[0] + b[2]) // 2, (b[1] + b[3]) // 2) if i % 3 else None for i, b in enumerate(boxes)]
    return boxes, points


def masks_of(segmenter: Segmenter, picture: Image.Image, boxes: list, points: list | None = None) -> tuple:
    """(N, H, W) masks and (N,) scores."""
    found = list(segmenter.masks(segmenter.encode(picture), boxes, points))
    return np.array([mask for mask, _ in found]), np.array([score for _, score in found])


def one_by_one(segmenter: Segmenter, picture: Image.Image, boxes: list, points: list) -> tuple[np.ndarray, np.ndarray]:
    """The package's predictor, a call for each box and all three masks brought to the picture's size."""
    predictor = SAM2ImagePredictor(segmenter.model)
    predictor._bb_feat_sizes = [(segmenter.model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    predictor.set_image(picture)
    masks, scores = [], []
    for box, point in zip(boxes, points, strict=True):
        prompt = {} if point is None else {"point_coords": np.array([point]), "point_labels": np.array([1])}
        three, ious, _ = predictor.predict(box=np.array(box), multimask_output=True, **prompt)
        masks.append(three[ious.argmax()] > 0)
        scores.append(ious.max())
    return np.stack(masks), np.array(scores)


def test_masks_are_pixel_for_pixel_those_of_one_call_per_box(segmenter):
    boxes, points = prompts(37)
    masks, scores = masks_of(segmenter, noise(WIDTH, HEIGHT), boxes, points)
    expected_masks, expected_scores = one_by_one(segmenter, noise(WIDTH, HEIGHT), boxes, points)
    assert masks.shape == (37, HEIGHT, WIDTH)
    assert masks.dtype == np.bool_
    assert np.array_equal(masks, expected_masks)
    # with two threads sums are split otherwise: a score's last digit may differ, no pixel does
    assert np.allclose(scores, expected_scores, rtol=0, atol=1e-6)
    assert 0.02 < masks.mean() < 0.98, "masks of one value would be equal whatever was done"


def test_chunks_change_nothing(segmenter, monkeypatch):
    boxes, points = prompts(9, seed=1)
    features = segmenter.encode(noise(WIDTH, HEIGHT))
    whole = [mask for mask, _ in segmenter.masks(features, boxes, points)]
    monkeypatch.setattr(segmenter_module, "BOXES_AT_ONCE", 2)
    monkeypatch.setattr(segmenter_module, "UPSAMPLED_PIXELS", WIDTH * HEIGHT)
    assert np.array_equal([mask for mask, _ in segmenter.masks(features, boxes, points)], whole)


def test_one_box_no_box_and_no_points(segmenter):
    features = segmenter.encode(noise(WIDTH, HEIGHT))
    boxes, _ = prompts(2)
    assert list(segmenter.masks(features, [])) == []
    ((mask, _),) = segmenter.masks(features, boxes[:1])
    assert mask.shape == (HEIGHT, WIDTH)
    without, empty = segmenter.masks(features, boxes), segmenter.masks(features, boxes, [None, None])
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(without, empty, strict=True))


def test_only_one_mask_of_three_is_upsampled(segmenter, monkeypatch):
    upsampled = []
    real = torch.nn.functional.interpolate

    def interpolate(tensor, *args, **kwargs):
        upsampled.append(tensor.shape[0] * tensor.shape[1])
        return real(tensor, *args, **kwargs)

    features = segmenter.encode(noise(WIDTH, HEIGHT))
    monkeypatch.setattr(torch.nn.functional, "interpolate", interpolate)
    assert len(list(segmenter.masks(features, *prompts(11)))) == 11
    assert sum(upsampled) == 11


def test_features_stay_those_of_their_picture_whatever_is_encoded_afterwards(segmenter):
    boxes, points = prompts(3)
    picture = noise(WIDTH, HEIGHT)
    features = segmenter.encode(picture)
    expected = [mask for mask, _ in segmenter.masks(features, boxes, points)]
    other = segmenter.encode(noise(HEIGHT, WIDTH, seed=1))
    assert all(mask.shape == (WIDTH, HEIGHT) for mask, _ in segmenter.masks(other, boxes, points))
    assert np.array_equal([mask for mask, _ in segmenter.masks(features, boxes, points)], expected)


def test_eight_threads_get_what_one_gets(segmenter):
    requests = [(noise(WIDTH, HEIGHT, seed=i), *prompts(3 + i, seed=i)) for i in range(20)]
    expected = [masks_of(segmenter, *request)[0] for request in requests]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: masks_of(segmenter, *request)[0], requests * 3))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 3, strict=True))


def test_a_picture_that_was_painted_over_is_looked_at_anew(segmenter):
    boxes, points = prompts(6)
    picture = noise(WIDTH, HEIGHT)
    before, _ = masks_of(segmenter, picture, boxes, points)
    picture.paste(noise(WIDTH, HEIGHT, seed=1))
    after, _ = masks_of(segmenter, picture, boxes, points)
    assert not np.array_equal(after, before)
    assert np.array_equal(after, masks_of(segmenter, noise(WIDTH, HEIGHT, seed=1), boxes, points)[0])


def test_a_kept_mask_does_not_keep_its_chunk(segmenter):
    for mask, _ in segmenter.masks(segmenter.encode(noise(WIDTH, HEIGHT)), *prompts(3)):
        assert mask.base is None


@pytest.mark.slow
def test_300_boxes_on_12_megapixels_take_less_than_2_gigabytes(bundle):
    import subprocess
    import sys

    script = (
        "from tests.conftest import noise, peak_memory\n"
        "from vision_reasoner.results import Instance\n"
        "from vision_reasoner.model import VisionReasoner\n"
        "from vision_reasoner.models.segmenter import Segmenter\n"
        "from vision_reasoner.geometry import Box\n"
        f"segmenter = Segmenter.from_pretrained({str(bundle / 'segmenter')!r}, device='cpu')\n"
        "model = VisionReasoner(segmenter=segmenter)\n"
        "boxes = [Box(10 * i, 5 * i, 10 * i + 900, 5 * i + 900) for i in range(300)]\n"
        "found = model.segment(noise(4000, 3000), boxes)\n"
        "assert found[299].mask.shape == (3000, 4000)\n"
        "print(peak_memory())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2e9


def test_points_must_be_as_many_as_boxes(segmenter):
    with pytest.raises(UsageError, match="2 boxes need as many points"):
        segmenter.masks(segmenter.encode(noise(WIDTH, HEIGHT)), [(0, 0, 5, 5)] * 2, [None])


# --- loading ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    """A segmenter's folder to spoil."""
    return Path(shutil.copytree(bundle / "segmenter", tmp_path / "segmenter"))


def test_a_pt_file_serves_as_well(folder, segmenter):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({"model": weights}, folder / "sam2.pt")
    other = Segmenter.from_pretrained(folder, device="cpu")
    picture, (boxes, points) = noise(WIDTH, HEIGHT), prompts(2)
    expected, _ = masks_of(segmenter, picture, boxes, points)
    assert np.array_equal(masks_of(other, picture, boxes, points)[0], expected)


def test_a_pt_file_cannot_run_code(folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"model": Payload()}, folder / "sam2.pt")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Segmenter.from_pretrained(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "sam2.modeling.sam2_base.torch.hub.load",
        "sam2.modeling.sam2_base.select_closest_cond_frames",
        "sam2.modeling.sam2_base.MaskDecoder",  # imported there, not defined there
        "sam2.build_sam.build_sam2",
        "sam2.modelingx.Evil",
        "sam2.modeling..os.system",
        "sam2.modeling.nothing.Here",
        "SAM2Base",
        7,
    ],
)
def test_a_config_may_only_name_classes_of_sam2(folder, target):
    config = segmenter_config()
    config["model"]["memory_encoder"]["fuser"]["layer"]["_target_"] = target
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    with pytest.raises(CheckpointError, match=r"no class of sam2\.modeling"):
        Segmenter.from_pretrained(folder, device="cpu")


def test_a_config_may_not_refer_to_the_environment(folder, monkeypatch):
    monkeypatch.setenv("SECRET", "256")
    config = segmenter_config()
    config["model"]["image_size"] = "${oc.env:SECRET}"
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    with pytest.raises(CheckpointError, match="refers to something outside"):
        Segmenter.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.yaml").unlink(), "no config.yaml"),
        (lambda f: (f / "config.yaml").write_text("a: [1,"), "cannot be loaded"),
        (lambda f: (f / "config.yaml").write_text("5"), "cannot be loaded"),
        (lambda f: (f / "config.yaml").write_text("a: &a [x,x]\nb: &b [*a,*a]\nmodel: [*b,*b]"), "with aliases"),
        (lambda f: (f / "config.yaml").write_text("#" * 2_000_000), "too large or deep"),
        (lambda f: (f / "config.yaml").write_text("[" * 60_000), "too large or deep"),
        (lambda f: (f / "config.yaml").write_text("[" * 900), "cannot be loaded"),
        (lambda f: (f / "config.yaml").write_text("model: {a: 1}"), "no `model` section"),
        (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors and no \.pt"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "cannot be loaded"),
    ],
)
def test_spoiled_folders_are_said_to_be_so(folder, spoil, message):
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        Segmenter.from_pretrained(folder, device="cpu")


def test_weights_of_another_config_are_said_to_be_so(folder):
    config = segmenter_config()
    config["model"]["memory_attention"]["num_layers"] = 2
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    with pytest.raises(CheckpointError, match=r"does not belong to config\.yaml"):
        Segmenter.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
def test_a_released_sam_2_1_takes_its_config_from_the_package(tmp_path, size):
    (tmp_path / f"sam2.1_hiera_{size}.pt").touch()
    config, weights = segmenter_module._files(tmp_path)
    assert weights.name == f"sam2.1_hiera_{size}.pt"
    target = segmenter_module._read_config(config)
    assert target["no_obj_embed_spatial"], "2.1 has it, 2.0 has not"
    if size == "tiny":  # the others are the same with more of everything
        assert sum(p.numel() for p in segmenter_module._build(target).parameters()) == 38_962_498


def test_a_released_folder_takes_its_config_from_the_package(tmp_path):
    folder = tmp_path / "sam2-hiera-large"
    folder.mkdir()
    (folder / "sam2_hiera_large.pt").touch()
    config, weights = segmenter_module._files(folder)
    assert config.name == "sam2_hiera_l.yaml"
    assert config.is_file()
    assert weights.name == "sam2_hiera_large.pt"


@pytest.mark.parametrize(
    ("key", "value"),
    [("image_size", "100000000"), ("num_layers", "1000000000"), ("embed_dim", "1000000"), ("num_maskmem", ".inf")],
)
def test_a_config_with_numbers_that_no_sam2_has_is_one_line(bundle, tmp_path, key, value):
    folder = tmp_path / "segmenter"
    shutil.copytree(bundle / "segmenter", folder)
    config = folder / "config.yaml"
    config.write_text(re.sub(rf"{key}: .*", f"{key}: {value}", config.read_text(), count=1))
    with pytest.raises(CheckpointError, match=rf"config.yaml: {key} is .*, which no SAM2 has"):
        Segmenter.from_pretrained(folder, device="cpu")
