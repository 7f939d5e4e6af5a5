"""From a picture and boxes to masks: SAM2 through the sam2 package. The one home of mask prediction.

`encode` is the expensive call, `masks` the cheap one. Nothing is kept between calls, so that a segmenter may be used
from several threads. Everything is float32: masks are thresholded logits, and a pixel on the edge changes sides for a
rounding error.
"""

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.masks import Mask
from vision_reasoner.models.checkpoints import load_errors, locate
from vision_reasoner.models.devices import choose_device, use_free_cores

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# sam2's own configs have 4 kB and 8 brackets; deeply nested ones are read in quadratic time.
MAX_CONFIG_BYTES, MAX_CONFIG_BRACKETS = 1 << 16, 1000
# Twice what sam2's own configs have, or a little more; a model of larger numbers takes all memory, or for ever to make.
MAX_NUMBER = 2304
MAX_NUMBERS = {
    **dict.fromkeys(("stages", "num_layers", "num_maskmem", "num_heads"), 64),
    "embed_dim": 320,
    **dict.fromkeys(("temperature", "rope_theta"), 1e9),
}
BOXES_AT_ONCE = 8  # of one decoder call; 60 MB of activations each in a SAM2 of 1024 pixels, and no faster with more
UPSAMPLED_PIXELS = 1 << 24  # of float32 logits held at once while masks are brought to the picture's size
MAX_TOKENS = 64  # more than the decoder has for a prompt, fewer than a picture has
MASK_THRESHOLD = 0.0  # logits above it are inside
POSITIVE_POINT = 1  # the prompt encoder's labels
BOX_CORNERS = (2, 3)

# What sam2.build_sam adds to every config it builds.
DECODER_EXTRAS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


@dataclass(frozen=True, eq=False)
class Features:
    """What SAM2's image encoder makes of one picture.

    Attributes:
        embedding: (1, C, h, w), the coarsest level.
        high_resolution: the two finer levels, finest first; (1, C, h, w) each.
        size: (height, width) of the picture in pixels.
    """

    embedding: "torch.Tensor"
    high_resolution: "Sequence[torch.Tensor]"
    size: tuple[int, int]


class Segmenter:
    """SAM2 for boxes: per box and point the best of three masks, by the model's own estimate.

    Example:
        >>> segmenter = Segmenter.from_pretrained("facebook/sam2-hiera-large")  # doctest: +SKIP
        >>> features = segmenter.encode(picture)  # doctest: +SKIP
        >>> for mask, score in segmenter.masks(features, [(10, 20, 110, 220)], [(60, 120)]):  # doctest: +SKIP
        ...     print(mask.shape, score)
    """

    def __init__(self, model: Any) -> None:
        """Wrap a loaded SAM2Base (float32, in eval mode); `from_pretrained` loads it."""
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        self.model = model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it still uses torch.jit.script
            self._predictor = SAM2ImagePredictor(model, mask_threshold=MASK_THRESHOLD)
        # The predictor takes 1024 for granted; the three levels have strides 4, 8 and 16.
        self._predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str = "auto", revision: str | None = None, offline: bool = False
    ) -> Self:
        """Load a segmenter from a folder (`config.yaml` in sam2's form and `model.safetensors`, or a .pt) or a Hub id.

        Raises:
            CheckpointError: it is missing, incomplete or no SAM2, or its config names code that is not SAM2's.
            UsageError: there is no such device.
        """
        use_free_cores()
        where = choose_device(device)
        folder = locate(path, "segmenter", revision=revision, offline=offline)
        config_file, weight_file = _files(folder)
        with load_errors(folder):
            model = _build(_read_config(config_file))
            missing, unexpected = model.load_state_dict(_read_weights(weight_file), strict=False)
            if missing or unexpected:
                raise CheckpointError(
                    f"{weight_file}: does not belong to {config_file.name} ({len(missing)} weights missing, "
                    f"{len(unexpected)} unexpected, first {(missing + unexpected)[0]}); download both again"
                )
            model = model.float().to(where).eval()
        logger.debug("%s: SAM2 of %d pixels on %s, float32", folder, model.image_size, where)
        return cls(model)

    def encode(self, image: Image.Image) -> Features:
        """Run the image encoder on an RGB picture."""
        predictor = copy.copy(self._predictor)  # it keeps its picture as state
        predictor.set_image(image)
        levels = predictor._features
        return Features(levels["image_embed"], levels["high_res_feats"], (image.height, image.width))

    def masks(
        self,
        features: Features,
        boxes: Sequence[Sequence[float]],
        points: Sequence[Sequence[float] | None] | None = None,
    ) -> Iterator[tuple[Mask, float]]:
        """One (H, W) bool mask in pixels of the picture and its score at a time, in the order of the boxes.

        All boxes are decoded before the first mask comes, at low resolution and in chunks of `BOXES_AT_ONCE`; of the
        three masks of a box only the best is brought to the picture's size.

        Args:
            features: of the picture, from `encode`.
            boxes: (N, 4) xyxy in pixels of the picture.
            points: for each box a point (x, y) inside the object, or None where the box alone must do.

        Returns:
            N pairs. A score is the model's estimate of its mask's IoU.

        Raises:
            UsageError: boxes and points differ in number.
        """
        points = [None] * len(boxes) if points is None else points
        if len(points) != len(boxes):
            raise UsageError(f"{len(boxes)} boxes need as many points (None where there is none), got {len(points)}")
        logits, scores = self._decode(features, boxes, points)
        return self._upsample(logits, scores, features.size)

    def _decode(
        self, features: Features, boxes: Sequence[Sequence[float]], points: Sequence[Sequence[float] | None]
    ) -> tuple["torch.Tensor", list[float]]:
        """The best mask of each box as (N, h, w) logits at the decoder's resolution, and its score."""
        import torch

        side = self.model.image_size // 4
        logits = torch.empty((len(boxes), side, side), device=self.model.device)
        scores = torch.empty(len(boxes), device=self.model.device)
        # A box with a point is three tokens to the decoder and one without is two, so they go apart.
        for with_point in (True, False):
            chosen = [i for i, point in enumerate(points) if (point is not None) is with_point]
            for start in range(0, len(chosen), BOXES_AT_ONCE):
                rows = chosen[start : start + BOXES_AT_ONCE]
                prompts = [[*boxes[i], *(points[i] or ())] for i in rows]
                index = torch.tensor(rows, device=logits.device)
                logits[index], scores[index] = self._decode_chunk(features, np.array(prompts, dtype=np.float32))
        return logits, scores.tolist()

    def _decode_chunk(self, features: Features, prompts: NDArray[np.float32]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """One decoder call.

        Args:
            features: of the picture.
            prompts: (B, 4) boxes or (B, 6) boxes with a point each, in pixels of the picture.

        Returns:
            (B, h, w) logits of the mask with the highest score, and the (B,) scores.
        """
        import torch

        predictor, model = self._predictor, self.model
        coordinates = torch.from_numpy(prompts.reshape(len(prompts), -1, 2)).to(model.device)
        labels = [*BOX_CORNERS] + [POSITIVE_POINT] * (coordinates.shape[1] - 2)
        with torch.no_grad(), _as_if_alone() if model.device.type == "cpu" else nullcontext():
            sparse, dense = model.sam_prompt_encoder(
                points=(
                    predictor._transforms.transform_coords(coordinates, normalize=True, orig_hw=features.size),
                    torch.tensor(labels, dtype=torch.int, device=model.device).repeat(len(prompts), 1),
                ),
                boxes=None,
                masks=None,
            )
            logits, scores, _, _ = model.sam_mask_decoder(
                image_embeddings=features.embedding,
                image_pe=model.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                repeat_image=len(prompts) > 1,
                high_res_features=features.high_resolution,
            )
        best = scores.argmax(dim=1)
        rows = torch.arange(len(prompts), device=best.device)
        return logits[rows, best].float(), scores[rows, best].float()

    def _upsample(
        self, logits: "torch.Tensor", scores: list[float], size: tuple[int, int]
    ) -> Iterator[tuple[Mask, float]]:
        import torch.nn.functional as F

        at_once = max(1, UPSAMPLED_PIXELS // (size[0] * size[1]))
        for start in range(0, len(scores), at_once):
            chunk = logits[start : start + at_once, None]
            inside = F.interpolate(chunk, size, mode="bilinear", align_corners=False)[:, 0] > MASK_THRESHOLD
            for mask, score in zip(inside.cpu().numpy(), scores[start : start + at_once], strict=True):
                yield mask.copy(), score  # a copy, so that a kept mask does not keep its whole chunk


def _as_if_alone() -> Any:
    """A context in which a batch of prompts gives bit for bit what each prompt gives in a call of its own, on a CPU.

    Two things differ otherwise, in the last digit: BLAS sums in another order when a layer is given the tokens of many
    prompts, and the upscaling keeps its activations in another memory layout, which changes the order of its means.
    """
    import torch
    import torch.nn.functional as F
    from torch.overrides import TorchFunctionMode

    class AsIfAlone(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            del types
            kwargs = kwargs or {}
            if func is F.linear and args[0].shape[1:-1].numel() <= MAX_TOKENS:
                return torch.cat([func(row, *args[1:], **kwargs) for row in args[0].split(1)])
            if func is F.conv_transpose2d:
                args = (args[0].contiguous(), *args[1:])
            return func(*args, **kwargs)

    return AsIfAlone()


def _files(folder: Path) -> tuple[Path, Path]:
    """The config and the weights of a segmenter's folder, ours or as released."""
    from importlib.resources import files

    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    if (folder / "config.yaml").is_file():
        candidates = [folder / "model.safetensors", *sorted(folder.glob("*.pt"))]
        for weight_file in candidates:
            if weight_file.is_file():
                return folder / "config.yaml", weight_file
        raise CheckpointError(f"{folder}: no model.safetensors and no .pt beside config.yaml; download it again")
    for config_name, weight_name in HF_MODEL_ID_TO_FILENAMES.values():
        if (folder / weight_name).is_file():
            return Path(str(files("sam2").joinpath(config_name))), folder / weight_name
    raise CheckpointError(f"{folder}: no config.yaml and no released sam2 .pt file, so this is no segmenter checkpoint")


def _read_config(file: Path) -> dict[str, Any]:
    """The `model` section of a sam2 yaml, as plain data."""
    import yaml
    from omegaconf import OmegaConf

    text = file.read_text(encoding="utf-8") if file.stat().st_size <= MAX_CONFIG_BYTES else ""
    deep = text.count("[") + text.count("{") > MAX_CONFIG_BRACKETS
    if not text or deep or any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
        raise CheckpointError(f"{file}: is no config of sam2 (empty, too large or deep, or with aliases); get it again")
    config: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or "_target_" not in model:
        raise CheckpointError(f"{file}: no `model` section of a sam2 config in it; download it again")
    _check_numbers(model, "model", file)
    extras = model.get("sam_mask_decoder_extra_args") or {}
    return {**model, "sam_mask_decoder_extra_args": {**extras, **DECODER_EXTRAS}}


def _check_numbers(node: Any, name: str, file: Path) -> None:
    """Raise a CheckpointError where a config has a number that no SAM2 has; `name` is what `node` is called."""
    if isinstance(node, dict):
        for key, value in node.items():
            _check_numbers(value, str(key), file)
    elif isinstance(node, list):
        for value in node:
            _check_numbers(value, name, file)
    elif isinstance(node, int | float) and not abs(node) <= MAX_NUMBERS.get(name, MAX_NUMBER):
        raise CheckpointError(f"{file}: {name[:40]} is {str(node)[:40]}, which no SAM2 has; download it again")


def _build(node: Any) -> Any:
    """Build what a config describes: each `_target_` is called with the rest of its section.

    A config comes with a checkpoint and is as little to be trusted, so only classes that sam2.modeling itself defines
    are called. (hydra's own instantiate would call anything importable.)

    Raises:
        CheckpointError: a `_target_` is something else.
    """
    if isinstance(node, list):
        return [_build(item) for item in node]
    if isinstance(node, str) and "${" in node:
        raise CheckpointError(f"the segmenter's config refers to something outside it ({node!r}); write the value out")
    if not isinstance(node, dict):
        return node
    arguments = {key: _build(value) for key, value in node.items() if key != "_target_"}
    return _sam2_class(node["_target_"])(**arguments) if "_target_" in node else arguments


def _sam2_class(target: Any) -> Any:
    import importlib

    module_name, _, class_name = str(target).rpartition(".")
    found = None
    if re.fullmatch(r"sam2\.modeling(\.\w+)+", module_name):
        try:
            found = getattr(importlib.import_module(module_name), class_name, None)
        except ModuleNotFoundError:
            found = None
    if not (isinstance(found, type) and found.__module__ == module_name):
        raise CheckpointError(
            f"the segmenter's config wants {target!r} called, which is no class of sam2.modeling; "
            "do not use checkpoints from people you do not trust"
        )
    return found


def _read_weights(file: Path) -> dict[str, "torch.Tensor"]:
    """A state dict from safetensors, or from a .pt without running code in it."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    import torch

    content = torch.load(file, map_location="cpu", weights_only=True)
    return dict(content.get("model", content))
