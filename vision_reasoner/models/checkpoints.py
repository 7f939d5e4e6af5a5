"""Where checkpoints are and what is in them: default lookup, folders and Hub ids, checks.

The only module that may touch the network: it turns a name into a local folder, and every loader reads local folders.
A checkpoint has three parts, which may lie in one folder (a bundle with `reasoner/`, `router/`, `segmenter/`) or apart.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vision_reasoner.errors import CheckpointError, VisionReasonerError, one_line
from vision_reasoner.files import sha256
from vision_reasoner.prompts import DIALECTS

Part = Literal["reasoner", "router", "segmenter"]

CALIBRATION = "calibration.json"  # how sure a reasoner is; no part of what it answers

PRETRAINED = Path("pretrained_models")
BUNDLED = "VisionReasoner-Tiny"


@dataclass(frozen=True)
class Release:
    """A released checkpoint: its Hub id and the files of it that are read."""

    hub_id: str
    files: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name of its folder in `pretrained_models/`."""
        return self.hub_id.rpartition("/")[2]


TRANSFORMERS_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
SAM2_FILES = ("*.yaml", "*.pt")  # a released repository's safetensors are in another library's layout
FILES: dict[Part, tuple[str, ...]] = {
    "reasoner": TRANSFORMERS_FILES,
    "router": TRANSFORMERS_FILES,
    "segmenter": (*SAM2_FILES, "model.safetensors"),
}
RELEASED: dict[Part, Release] = {
    "reasoner": Release("Ricky06662/VisionReasoner-7B", TRANSFORMERS_FILES),
    "router": Release("Ricky06662/TaskRouter-1.5B", TRANSFORMERS_FILES),
    "segmenter": Release("facebook/sam2-hiera-large", SAM2_FILES),
}
MODEL_TYPES: dict[Part, tuple[str, ...]] = {"reasoner": ("qwen2_5_vl", "qwen2_vl", "qwen3_vl"), "router": ("qwen2",)}
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_HUB_PART = re.compile(r"([\w-][\w.-]*/[\w.-]+)/(reasoner|router|segmenter)")
DOWNLOAD_HINT = "python -m vision_reasoner download"


# --- which checkpoint ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """The checkpoint to use: a folder or Hub id for each part, and a line that tells people what they got.

    `note` is None where the choice was theirs.
    """

    reasoner: str
    router: str
    segmenter: str
    note: str | None = None


def choose(
    model_path: str | Path | None = None,
    router: str | Path | None = None,
    segmenter: str | Path | None = None,
    *,
    model: str = "vision_reasoner",
    revision: str | None = None,
    offline: bool = False,
    served: Collection[Part] = (),
) -> Choice:
    """Say which checkpoint each part comes from.

    Without `model_path`: for a model that has checkpoints of its own the first one that is in `pretrained_models/`,
    otherwise its first one on the Hub; else `pretrained_models/VisionReasoner-7B` if it is there, otherwise the bundled
    checkpoint. A part that is not named comes from the same bundle, or is the released one.

    Args:
        model_path: the reasoner or a bundle, as a folder or a Hub id.
        router: the router, as a folder (its own or a bundle) or a Hub id.
        segmenter: the segmenter, likewise.
        model: a key of `prompts.DIALECTS`.
        revision: of `model_path` on the Hub.
        offline: make no network attempt to find out whether a Hub id is a bundle's.
        served: parts that a server runs. Their names are the server's own, unless they are folders.

    Raises:
        CheckpointError: a name is neither a folder nor a Hub id, or none is given and none lies where it should.
    """
    note = None
    names = {part: str(name or "") for part, name in (("reasoner", model_path), ("router", router))}
    if "router" in served:
        router = None
    if "reasoner" in served and not (model_path and path_of(model_path).is_dir()):
        model_path, _ = _default()
        note = f"A server is asked; what it does not run comes from {model_path}."
    elif model_path is None and (own := DIALECTS[model].checkpoints):
        here = (in_pretrained(hub_id.rpartition("/")[2]) for hub_id in own)
        model_path = next((folder for folder in here if folder is not None), own[0])
    elif model_path is None:
        model_path, note = _default()
    bundle = path_of(model_path)
    hub_bundle = not bundle.is_dir() and _is_hub_bundle(str(model_path), revision, offline)

    def name_of(part: Part, given: str | Path | None) -> str:
        if given is not None:
            _check_name(given)
            path = path_of(given)
            return str(path / part if is_bundle(path) or (hub_bundle and path == bundle) else path)
        if is_bundle(bundle) or hub_bundle:
            return str(bundle / part)
        return str(in_pretrained(RELEASED[part].folder) or RELEASED[part].hub_id)

    return Choice(
        reasoner=names["reasoner"] if "reasoner" in served else name_of("reasoner", model_path),
        router=names["router"] if "router" in served else name_of("router", router),
        segmenter=name_of("segmenter", segmenter),
        note=note,
    )


def revision_of(part: Part, choice: Choice, model_path: str | Path | None, revision: str | None) -> str | None:
    """The revision of a part on the Hub: the reasoner's, where it is a part of the same bundle.

    Args:
        part: which one.
        choice: where parts come from.
        model_path: the reasoner or the bundle, as it was named.
        revision: of `model_path`.
    """
    source: str = getattr(choice, part)
    return revision if part == "reasoner" or source.rpartition("/")[0] == str(model_path) else None


def _is_hub_bundle(hub_id: str, revision: str | None, offline: bool) -> bool:
    """Whether a Hub id is a bundle's: asks the cache, then the Hub; what cannot be found out is none."""
    if not _HUB_ID.fullmatch(hub_id) or hub_id in (release.hub_id for release in RELEASED.values()):
        return False
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    inside = ("reasoner/config.json", "router/config.json", "segmenter/config.yaml")
    if all(isinstance(try_to_load_from_cache(hub_id, name, revision=revision), str) for name in inside):
        return True
    if offline or any(hub_id in dialect.checkpoints for dialect in DIALECTS.values()):
        return False
    try:
        return all(HfApi().file_exists(hub_id, name, revision=revision) for name in inside)
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled):
        return False  # loading says what is wrong


def path_of(name: str | Path) -> Path:
    """The path that a checkpoint's name would be, with the home folder for "~".

    Raises:
        CheckpointError: it cannot be one.
    """
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # too long; no such user
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CheckpointError(f"{str(name)[:200]}: no such folder ({reason}); give a checkpoint's folder") from error
    return path


def is_bundle(name: str | Path) -> bool:
    """Whether `name` is a folder that holds all three parts."""
    return all((Path(name) / part).is_dir() for part in RELEASED)


def display_name(source: str) -> str:
    """What a checkpoint is called: the last part of its folder or Hub id, that of the bundle for a part of one."""
    path = Path(source)
    if path.is_dir():
        path = path.resolve()
        return path.parent.name if path.name in RELEASED and is_bundle(path.parent) else path.name
    return path.parent.name if _HUB_PART.fullmatch(source) else path.name


def summary_of(folder: str | Path) -> str:
    """The one line in which a bundle says how good it is: "summary" in its bundle.json; empty where there is none."""
    file = Path(folder) / "bundle.json"
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["summary"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f'{file}: has no "summary" line ({one_line(error)}); restore the file') from error


def _default() -> tuple[Path, str]:
    released = in_pretrained(RELEASED["reasoner"].folder)
    if released is not None:
        return released, f"Using {released}."
    bundled = in_pretrained(BUNDLED)
    if bundled is None:
        raise CheckpointError(f"no checkpoint in {PRETRAINED}/: run `{DOWNLOAD_HINT}` or give --model_path")
    parts = [
        f"Using the bundled {BUNDLED}",
        summary_of(bundled),
        f"for the released {RELEASED['reasoner'].folder} run `{DOWNLOAD_HINT}`",
    ]
    return bundled, "; ".join(part.rstrip(".") for part in parts if part) + "."


def in_pretrained(folder: str) -> Path | None:
    """`folder` in the working folder's pretrained_models/, the repository's, or the installed package's.

    The bundled checkpoint is the one that came with the code, whatever lies in the working folder.
    """
    package = Path(__file__).resolve().parents[1]
    own = (package.parent, package)
    for root in (*own, Path()) if folder == BUNDLED else (Path(), *own):
        if (root / PRETRAINED / folder).is_dir():
            return root / PRETRAINED / folder
    return None


# --- from a name to a folder that can be loaded ----------------------------------------------------------------------
def locate(name: str | Path, part: Part, *, revision: str | None = None, offline: bool = False) -> Path:
    """The local folder of a checkpoint, fetched from the Hub first if `name` is a Hub id that is not here yet.

    Args:
        name: a folder, a Hub id ("owner/name"), or a part of a bundle on the Hub ("owner/name/router").
        part: what it is to be used as; only that part's files are fetched.
        revision: branch, tag or commit on the Hub.
        offline: make no network attempt at all; a Hub id must then be in the local cache.

    Raises:
        CheckpointError: there is no such folder, or the Hub does not give it.
    """
    _check_name(name)
    folder = path_of(name)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    inside = _HUB_PART.fullmatch(str(name))
    hub_id, within = inside.groups() if inside else (str(name), "")
    files = SAM2_FILES if hub_id.startswith("facebook/sam2") else FILES[part]
    patterns = [f"{within}/{pattern}" if within else pattern for pattern in files]
    with hub_errors(hub_id, revision):
        folder = snapshot_download(hub_id, revision=revision, local_files_only=offline, allow_patterns=patterns)
    return Path(folder) / within


def _check_name(name: str | Path) -> None:
    """Raise a CheckpointError unless `name` is a folder that is there or may be a Hub id."""
    text, path = str(name), path_of(name)
    if path.is_dir():
        return
    if path.exists():
        raise CheckpointError(f"{text}: is a file, not a checkpoint; give the folder it lies in")
    on_hub = _HUB_ID.fullmatch(text) or _HUB_PART.fullmatch(text)
    if not on_hub or path.parent.is_dir() or text.startswith(f"{PRETRAINED}/"):
        raise CheckpointError(f"{text}: no such folder; give a checkpoint's folder or Hub id, or run `{DOWNLOAD_HINT}`")


@contextmanager
def hub_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into a CheckpointError that says what to do next."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(f"{hub_id}: is gated; accept its terms on the Hub and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{hub_id}: the Hub has no such checkpoint, or it is private; check the id") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{hub_id}: the Hub has no revision {revision!r} of it; check --revision") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(f"{hub_id}: the Hub does not give it ({one_line(error)}); try again later") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError) as error:  # HTTPError: no connection, timeout
        raise CheckpointError(
            f"{hub_id}: is not on this machine and the Hub cannot be reached; run `{DOWNLOAD_HINT}` where there is a "
            f"network (HF_ENDPOINT names a mirror) and copy {PRETRAINED}/ here"
        ) from error


def check_transformers_folder(folder: Path, part: Part) -> dict[str, Any]:
    """The config.json of a transformers checkpoint, after a look at whether it is the right kind and complete.

    Raises:
        CheckpointError: no config.json, another kind of model, or weight files missing.
    """
    config_file = folder / "config.json"
    check_files(folder)
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except FileNotFoundError as error:
        inside = f"; it is a bundle, give {folder / part}" if (folder / part).is_dir() else ""
        raise CheckpointError(
            f"{folder}: no config.json, so this is no {part} checkpoint{inside or '; download it again'}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{config_file}: no model config ({one_line(error)}); download it again") from error
    if model_type not in MODEL_TYPES[part]:
        raise CheckpointError(
            f"{folder}: is a {model_type!r} checkpoint, but a {part} is {' or '.join(MODEL_TYPES[part])}; "
            "was it given to the wrong option?"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            needed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index}: not a weight index ({one_line(error)}); download it again") from error
    else:
        needed = {"model.safetensors"}
    missing = sorted(str(name) for name in needed if not (folder / str(name)).is_file())
    if missing:
        raise CheckpointError(
            f"{folder}: incomplete, {len(missing)} of {len(needed)} weight files are missing (first {missing[0]}); "
            "download it again"
        )
    _check_sizes(config, config_file)
    # Without these transformers makes up an empty tokenizer.
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise CheckpointError(f"{folder}: incomplete, it has no tokenizer (tokenizer.json); download it again")
    return dict(config)


# Larger than in any checkpoint of these kinds; a model of such sizes would take all memory before a weight is read.
MAX_SIZES = {
    **dict.fromkeys(("num_hidden_layers", "depth", "num_attention_heads", "num_key_value_heads", "num_heads"), 1024),
    **dict.fromkeys(("patch_size", "temporal_patch_size", "spatial_merge_size", "window_size"), 1024),
    **dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size"), 1 << 16),
    **dict.fromkeys(("intermediate_size", "max_position_embeddings", "vocab_size"), 1 << 22),
}
MAX_JSON_BYTES = 64 << 20  # a tokenizer's is 11 MB


def check_files(folder: Path) -> None:
    """Raise a CheckpointError where something in a checkpoint's folder is no file that can be read to its end."""
    for file in folder.iterdir() if folder.is_dir() else ():
        if not file.is_file() and not file.is_dir():
            raise CheckpointError(f"{file}: is no regular file; download the checkpoint again")
        if file.suffix == ".json" and file.is_file() and file.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{file}: has more than {MAX_JSON_BYTES >> 20} MB; download the checkpoint again")


def _check_sizes(config: Any, file: Path) -> None:
    """Raise a CheckpointError where a model config has a size that no checkpoint has."""
    if not isinstance(config, dict):
        return
    for name, value in config.items():
        if name in MAX_SIZES and not (value is None or (type(value) is int and 0 < value <= MAX_SIZES[name])):
            raise CheckpointError(f"{file}: {name} is {str(value)[:40]}, which no model has; download it again")
        _check_sizes(value, file)


def digest(folder: Path, part: Part) -> str:
    """The SHA-256 of a checkpoint: of the names and contents of all its files that are read.

    Raises:
        CheckpointError: one of them is no file that can be read to its end.
    """
    check_files(folder)
    files = sorted({file for pattern in FILES[part] for file in folder.glob(pattern)} - {folder / CALIBRATION})
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        contents = pool.map(sha256, files)
    lines = (f"{file.name} {content}" for file, content in zip(files, contents, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def calibration_digest(folder: Path) -> str | None:
    """The SHA-256 of the calibration in a reasoner's folder; None where there is none."""
    file = folder / CALIBRATION
    return sha256(file) if file.is_file() else None


def weight_bytes(folder: Path) -> int:
    """The size of a folder's safetensors files in bytes."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@contextmanager
def load_errors(folder: Path) -> Iterator[None]:
    """Turn whatever a loading library raises about `folder` into a CheckpointError of one line."""
    try:
        yield
    except VisionReasonerError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{folder}: cannot be loaded ({one_line(error)}); is it complete, and does it fit into memory?"
        ) from error
