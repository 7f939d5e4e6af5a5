"""What a run is of: data, checkpoint, prompts, settings and versions, as far as its figures depend on them."""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.runner.samples import Samples, digest_of
from evaluation.runner.schema import Data, Manifest, Places, Settings
from evaluation.suite import BUNDLED
from vision_reasoner.cli import model_settings
from vision_reasoner.files import sha256
from vision_reasoner.models.checkpoints import (
    BASELINES,
    Choice,
    Part,
    choose,
    digest,
    display_name,
    in_pretrained,
    locate,
    weight_bytes,
)
from vision_reasoner.models.checkpoints import BUNDLED as BUNDLED_CHECKPOINT
from vision_reasoner.models.devices import choose_attention, choose_device, choose_dtype
from vision_reasoner.prompts import DIALECTS
from vision_reasoner.results import Task, versions
from vision_reasoner.settings import Checkpoints, RunSettings

logger = logging.getLogger(__name__)


def describe(
    arguments: argparse.Namespace, samples: Samples, annotations: Path | None
) -> tuple[Checkpoints, RunSettings, Manifest]:
    """Which checkpoints the run takes, how they run, and its manifest.

    Checkpoints are fetched here, and loaded from the very folders whose digest stands in the manifest.

    Args:
        arguments: of the command line, see `run`.
        samples: what is asked.
        annotations: the instances file, where one is scored against.

    Raises:
        CheckpointError: a checkpoint is missing.
        UsageError: there is no such device, dtype or attention.
    """
    suite = samples.suite
    choice = _choose(arguments, samples)
    parts: list[Part] = ["reasoner", "segmenter"] if suite.task is Task.SEGMENTATION else ["reasoner"]
    folders = {
        part: locate(
            getattr(choice, part),
            part,
            revision=arguments.revision if part == "reasoner" else None,
            offline=arguments.offline,
        )
        for part in parts
    }
    _, settings = model_settings(arguments, logprobs=suite.ranked)
    checkpoints = Checkpoints(
        reasoner=str(folders["reasoner"]),
        router=choice.router,
        segmenter=str(folders.get("segmenter", choice.segmenter)),
        revision=arguments.revision,
    )
    places: Places = {
        "data": samples.source.path,
        "config": arguments.config or suite.config,
        "annotations": None if annotations is None else str(annotations),
        "reasoner": str(folders["reasoner"]),
    }
    if "segmenter" in folders:
        places["segmenter"] = str(folders["segmenter"])
    manifest: Manifest = {
        "suite": suite.name,
        "n": min(arguments.limit or samples.source.n, samples.source.n),
        "data": _data(samples, annotations),
        "checkpoint": {
            part: {"name": display_name(getattr(choice, part)), "digest": digest(folder, part)}
            for part, folder in folders.items()
        },
        "model": arguments.model,
        "prompt": digest_of([_dialect(arguments.model), suite.instruction]),
        "settings": _numerics(settings, folders["reasoner"]),
        "versions": versions(),
        "places": places,
    }
    return checkpoints, settings, manifest


def _dialect(name: str) -> dict[str, Any]:
    """How the model is asked and how it answers, by the names that the digests of earlier runs were made of."""
    dialect = asdict(DIALECTS[name])
    dialect["normalise_query"] = dialect.pop("normalize_query")
    dialect["frame"] = {"normalized_1000": "thousand"}.get(dialect["frame"], dialect["frame"])
    return dialect


def _choose(arguments: argparse.Namespace, samples: Samples) -> Choice:
    """The checkpoints that the arguments name; for a bundled data set the bundled ones where they name none."""
    baseline = arguments.model if arguments.model in BASELINES else None
    model_path = arguments.model_path
    if model_path is None and baseline is None and Path(samples.source.path).is_relative_to(BUNDLED):
        model_path = in_pretrained(BUNDLED_CHECKPOINT)
    choice = choose(model_path, arguments.task_router_model_path, arguments.segmentation_model_path, baseline=baseline)
    if choice.note:
        logger.info(choice.note)
    return choice


def _data(samples: Samples, annotations: Path | None) -> Data:
    source = samples.source
    return {
        "name": source.name,
        "split": source.split,
        "fingerprint": source.fingerprint,
        "rows": source.n,
        "columns": samples.columns,
        "annotations": None if annotations is None else sha256(annotations),
    }


def _numerics(settings: RunSettings, reasoner: Path) -> Settings:
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device, weight_bytes(reasoner))
    numerics: Settings = {
        "compat": settings.compat,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "attn_implementation": choose_attention(settings.attn_implementation, device, dtype),
        "max_new_tokens": settings.max_new_tokens,
        "max_objects": settings.max_objects,
        "max_image_pixels": settings.max_image_pixels,
    }
    if device.type == "cuda":  # elsewhere it changes nothing
        numerics["compile"] = settings.compile
    return numerics
