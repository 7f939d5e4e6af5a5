"""What a run is of: data, checkpoint, prompts, settings and versions, as far as its figures depend on them."""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.runner.samples import Samples, digest_of
from evaluation.runner.schema import Checkpoint, Data, Manifest, Places, Settings
from evaluation.suite import BUNDLED
from vision_reasoner.cli import model_settings
from vision_reasoner.files import sha256
from vision_reasoner.models.checkpoints import BUNDLED as BUNDLED_CHECKPOINT
from vision_reasoner.models.checkpoints import (
    Choice,
    Part,
    calibration_digest,
    choose,
    digest,
    display_name,
    in_pretrained,
    locate,
    revision_of,
    weight_bytes,
)
from vision_reasoner.models.devices import choose_attention, choose_device, choose_dtype, named_dtype
from vision_reasoner.models.server import ServerEngine
from vision_reasoner.models.vllm import import_vllm, platform_of
from vision_reasoner.prompts import DIALECTS, QUERY_MARKS
from vision_reasoner.results import Task, versions
from vision_reasoner.settings import VLLM, Checkpoints, RunSettings

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
        EngineError: the server that is to run the reasoner cannot be reached.
    """
    suite = samples.suite
    named, settings = model_settings(arguments, logprobs=suite.ranked)
    choice = _choose(named, settings, samples)
    server = ServerEngine.of_reasoner(named, settings) if "reasoner" in settings.served else None
    used: list[Part] = ["segmenter"] if suite.task is Task.SEGMENTATION else []
    if server is None:
        used = ["reasoner", *used]
    folders = {
        part: locate(
            getattr(choice, part),
            part,
            revision=revision_of(part, choice, named.reasoner, named.revision),
            offline=settings.offline,
        )
        for part in used
    }
    checkpoints = Checkpoints(
        reasoner=named.reasoner if server is not None else str(folders["reasoner"]),
        router=choice.router,
        segmenter=str(folders.get("segmenter", choice.segmenter)),
        revision=named.revision,
    )
    weights: dict[Part, Checkpoint] = {
        part: {"name": display_name(getattr(choice, part)), "digest": digest(folder, part)}
        for part, folder in folders.items()
    }
    places: Places = {
        "data": samples.source.path,
        "config": arguments.config or suite.config,
        "annotations": None if annotations is None else str(annotations),
    }
    for part, folder in folders.items():
        places["reasoner" if part == "reasoner" else "segmenter"] = str(folder)
    if server is not None:
        weights["reasoner"] = {"name": display_name(server.model), "served_as": server.model}
        places["reasoner"] = server.url
    manifest: Manifest = {
        "suite": suite.name,
        "n": min(arguments.limit or samples.source.n, samples.source.n),
        "data": _data(samples, annotations),
        "checkpoint": weights,
        "model": arguments.model,
        "prompt": digest_of([_dialect(arguments.model), suite.instruction]),
        "settings": _numerics(settings, server or folders["reasoner"], Path(checkpoints.reasoner or "").expanduser()),
        "versions": versions() | _engine_version(settings, server),
        "places": places,
    }
    if arguments.suite.endswith(".py"):
        manifest["suite_file"] = sha256(Path(arguments.suite))
    return checkpoints, settings, manifest


def describe_replies(
    arguments: argparse.Namespace,
    samples: Samples,
    annotations: Path | None,
    settings: RunSettings,
    replies: tuple[str, str],
) -> tuple[Checkpoints, Manifest]:
    """The manifest of replies that were made elsewhere, and the segmenter that makes masks of them.

    Args:
        arguments: of the command line, see `score`.
        samples: what was asked.
        annotations: the instances file, where one is scored against.
        settings: how the replies are read.
        replies: what made them, and the digest of their files.

    Raises:
        CheckpointError: the segmenter is missing.
        UsageError: there is no such device.
    """
    name, digest_of_files = replies
    weights: dict[Part, Checkpoint] = {"reasoner": {"name": name, "replies": digest_of_files}}
    places: Places = {
        "data": samples.source.path,
        "config": arguments.config or samples.suite.config,
        "annotations": None if annotations is None else str(annotations),
    }
    numerics: Settings = {"compat": settings.compat, "max_objects": settings.max_objects}
    if DIALECTS[settings.model].frame == "square":
        numerics["frame_side"] = arguments.frame_side
    if arguments.id_column is not None:
        numerics["id_column"] = arguments.id_column
    segmenter = None
    if arguments.segmentation_model_path is not None:
        named = choose(segmenter=arguments.segmentation_model_path).segmenter
        segmenter = locate(named, "segmenter", offline=settings.offline)
        weights["segmenter"] = {"name": display_name(named), "digest": digest(segmenter, "segmenter")}
        places["segmenter"] = str(segmenter)
        numerics["device"] = choose_device(settings.device).type
    manifest: Manifest = {
        "suite": samples.suite.name,
        "n": min(arguments.limit or samples.source.n, samples.source.n),
        "data": _data(samples, annotations),
        "checkpoint": weights,
        "model": settings.model,
        "prompt": "not known",
        "settings": numerics,
        "versions": versions(),
        "places": places,
    }
    if arguments.suite.endswith(".py"):
        manifest["suite_file"] = sha256(Path(arguments.suite))
    return Checkpoints(segmenter=segmenter), manifest


def _engine_version(settings: RunSettings, server: ServerEngine | None) -> dict[str, str]:
    """The version of what runs the reasoner, where it is no library of ours and known."""
    if settings.engine == VLLM:
        return {"vllm": import_vllm().__version__}
    said = server.software() if server is not None else ""
    return {"server": said} if said else {}


def _dialect(name: str) -> dict[str, Any]:
    """How the model is asked and how it answers, by the names that the digests of earlier runs were made of."""
    later = {"counting_prompt": None, "system": None, "max_new_tokens": None, "truncate": False, "strip": QUERY_MARKS}
    elsewhere = ("gpu_dtype", "grid", "model_types", "checkpoints")  # in the manifest, or in the checkpoint's digest
    fields = {key: value for key, value in asdict(DIALECTS[name]).items() if key not in elsewhere}
    dialect = {key: value for key, value in fields.items() if key not in later or value != later[key]}
    dialect["normalise_query"] = fields["strip"] is not None
    dialect["frame"] = {"normalized_1000": "thousand"}.get(dialect["frame"], dialect["frame"])
    return dialect


def _choose(named: Checkpoints, settings: RunSettings, samples: Samples) -> Choice:
    """The checkpoints that are named; for a bundled data set the bundled ones where none is."""
    model_path = named.reasoner
    own = bool(DIALECTS[settings.model].checkpoints)
    if model_path is None and not own and Path(samples.source.path).is_relative_to(BUNDLED):
        model_path = in_pretrained(BUNDLED_CHECKPOINT)
    choice = choose(model_path, named.router, named.segmenter, model=settings.model, served=settings.served)
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


def _numerics(settings: RunSettings, reasoner: Path | ServerEngine, folder: Path) -> Settings:
    """Of a reasoner in a folder, or on a server; `folder` may have a calibration."""
    device = choose_device(platform_of(settings.device) if settings.engine == VLLM else settings.device)
    numerics: Settings = {
        "compat": settings.compat,
        "device": device.type,
        "dtype": "server",
        "attn_implementation": "server",
        "max_new_tokens": settings.max_new_tokens,
        "max_objects": settings.max_objects,
        "max_image_pixels": settings.max_image_pixels,
    }
    if settings.asks_more:
        numerics["views"] = {**settings.of_views, "calibration": calibration_digest(folder)}
    if isinstance(reasoner, ServerEngine):
        numerics["engine"] = "server"
        numerics["frame_side"], numerics["vqa_frame_side"] = reasoner.frame_side, reasoner.vqa_frame_side
        return numerics
    named = named_dtype(settings.dtype, device, DIALECTS[settings.model].gpu_dtype)
    dtype = choose_dtype(named, device, weight_bytes(reasoner))
    numerics["dtype"] = str(dtype).removeprefix("torch.")
    if settings.engine == VLLM:
        numerics["engine"] = numerics["attn_implementation"] = VLLM
    else:
        numerics["attn_implementation"] = choose_attention(settings.attn_implementation, device, dtype)
    if settings.quantize != "none":
        numerics["quantize"] = settings.quantize
    if device.type == "cuda":  # elsewhere it changes nothing
        numerics["compile"] = settings.compile
    return numerics
