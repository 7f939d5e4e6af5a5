"""`vision-reasoner download`: fetch checkpoints into a folder."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.files import check_writable
from vision_reasoner.models.checkpoints import (
    BUNDLED,
    PRETRAINED,
    RELEASED,
    SAM2_FILES,
    TRANSFORMERS_FILES,
    Part,
    Release,
    hub_errors,
)
from vision_reasoner.prompts import DIALECTS

FLAGS: dict[Part, str] = {
    "reasoner": "--model_path",
    "router": "--task_router_model_path",
    "segmenter": "--segmentation_model_path",
}


@dataclass(frozen=True)
class Set:
    """Checkpoints that are used together.

    Attributes:
        model: the value of `--model` that they are for.
        parts: what is fetched; the bundled checkpoint does for a router that is not among them.
    """

    model: str
    parts: Mapping[Part, Release]


SETS = {
    "all": Set("vision_reasoner", RELEASED),
    **{part: Set("vision_reasoner", {part: release}) for part, release in RELEASED.items()},
    **{
        name: Set(name, {**RELEASED, "reasoner": Release(dialect.checkpoints[0], TRANSFORMERS_FILES)})
        for name, dialect in DIALECTS.items()
        if dialect.checkpoints
    },
    "laptop": Set(
        "qwen3",
        {
            "reasoner": Release("Qwen/Qwen3-VL-2B-Instruct", TRANSFORMERS_FILES),
            "segmenter": Release("facebook/sam2.1-hiera-tiny", SAM2_FILES),
        },
    ),
}


def download(releases: Sequence[Release], *, into: Path = PRETRAINED, revision: str | None = None) -> list[Path]:
    """Fetch checkpoints into `into`, one folder each; what is there already is not fetched again.

    Says sizes and free disk on stderr first. A download that was interrupted goes on where it stopped.

    Raises:
        CheckpointError: the Hub cannot be reached or does not give it, or the disk is too small.
    """
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, snapshot_download

    api = HfApi()
    total_left = 0
    for release in releases:
        with hub_errors(release.hub_id, revision):
            info = api.model_info(release.hub_id, revision=revision, files_metadata=True, timeout=10)
        files = {
            file.rfilename: file.size or 0
            for file in info.siblings or []
            if any(fnmatch(file.rfilename, pattern) for pattern in release.files)
        }
        here = sum(
            size
            for name, size in files.items()
            if (path := into / release.folder / name).is_file() and path.stat().st_size == size
        )
        whole = sum(files.values())
        total_left += whole - here
        print(
            f"{release.hub_id}: {_gigabytes(whole)} in {len(files)} files, {_gigabytes(here)} already here",
            file=sys.stderr,
        )
    try:
        into.mkdir(parents=True, exist_ok=True)
        check_writable(into / ".writable")
    except OSError as error:
        raise UsageError(f"{into}: cannot be made ({error.strerror}); give another folder with --into") from error
    free = shutil.disk_usage(into).free
    print(f"to fetch: {_gigabytes(total_left)}; free in {into.resolve()}: {_gigabytes(free)}", file=sys.stderr)
    if total_left > free:
        raise CheckpointError(
            f"{into.resolve()}: {_gigabytes(total_left)} to fetch but only {_gigabytes(free)} free; make room or give "
            "--into a folder on a larger disk"
        )
    folders = []
    for release in releases:
        folder = into / release.folder
        with hub_errors(release.hub_id, revision):
            snapshot_download(release.hub_id, revision=revision, local_dir=folder, allow_patterns=list(release.files))
        folders.append(folder)
    return folders


def command(wanted: Set, into: Path = PRETRAINED) -> str:
    """The command line that runs a set from the folder that it was fetched into."""
    folders = {part: into / release.folder for part, release in wanted.parts.items()}
    folders.setdefault("router", PRETRAINED / BUNDLED)
    flags = [f"{flag} {shlex.quote(str(folders[part]))}" for part, flag in FLAGS.items()]
    model = [] if wanted.model == "vision_reasoner" else [f"--model {wanted.model}"]
    return " ".join(["vision-reasoner", *model, *flags])


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser(
        "vision-reasoner download",
        "Fetch checkpoints into pretrained_models/. Resumable; HF_ENDPOINT names a mirror.",
        epilog="examples:\n  vision-reasoner download\n  vision-reasoner download --what segmenter --into /models\n"
        "  vision-reasoner download --what laptop",
    )
    parser.add_argument(
        "--what",
        choices=tuple(SETS),
        default="all",
        help="all released parts (default) or one of them; all that another --model needs; laptop: what runs on a CPU",
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--into", type=Path, default=PRETRAINED, help="folder to put them in (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""

    def run(arguments: argparse.Namespace) -> int:
        wanted = SETS[arguments.what]
        folders = download(list(wanted.parts.values()), into=arguments.into, revision=arguments.revision)
        for folder in folders:
            print(folder)
        if "reasoner" in wanted.parts and len(folders) > 1:
            print(f"to use them: {command(wanted, arguments.into)}", file=sys.stderr)
        return 0

    return run_command(build_parser(), run, argv)
