"""`vision-reasoner download`: fetch the released checkpoints into a folder."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.files import check_writable
from vision_reasoner.models.checkpoints import PRETRAINED, RELEASED, Part, hub_errors


def download(parts: Sequence[Part], *, into: Path = PRETRAINED, revision: str | None = None) -> list[Path]:
    """Fetch released checkpoints into `into`, one folder each; what is there already is not fetched again.

    Says sizes and free disk on stderr first. A download that was interrupted goes on where it stopped.

    Raises:
        CheckpointError: the Hub cannot be reached or does not give it, or the disk is too small.
    """
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, snapshot_download

    api = HfApi()
    total_left = 0
    for part in parts:
        release = RELEASED[part]
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
    for part in parts:
        release = RELEASED[part]
        folder = into / release.folder
        with hub_errors(release.hub_id, revision):
            snapshot_download(release.hub_id, revision=revision, local_dir=folder, allow_patterns=list(release.files))
        folders.append(folder)
    return folders


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser(
        "vision-reasoner download",
        "Fetch the released checkpoints into pretrained_models/. Resumable; HF_ENDPOINT names a mirror.",
        epilog="examples:\n  vision-reasoner download\n  vision-reasoner download --what segmenter --into /models",
    )
    parser.add_argument("--what", choices=["all", *RELEASED], default="all", help="which part (default: %(default)s)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--into", type=Path, default=PRETRAINED, help="folder to put them in (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""

    def run(arguments: argparse.Namespace) -> int:
        parts: list[Part] = list(RELEASED) if arguments.what == "all" else [arguments.what]
        for folder in download(parts, into=arguments.into, revision=arguments.revision):
            print(folder)
        return 0

    return run_command(build_parser(), run, argv)
