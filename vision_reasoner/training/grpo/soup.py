"""The mean of several checkpoints' weights: a "model soup" (Wortsman et al., arXiv 2203.05482).

    python -m vision_reasoner.training.grpo.soup runs/seed1 runs/seed2 runs/seed3 --output_dir runs/mean

For runs that began with the same checkpoint. Their differences by chance average out. Takes checkpoints or bundles as
`--model_path` does; all files but the weights are copied from the first one.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.files import atomic_folder
from vision_reasoner.models.checkpoints import CALIBRATION, RELEASED, is_bundle


def average(folders: Sequence[Path], output: Path) -> None:
    """Write a checkpoint or bundle whose weights are the mean of several, in the first one's number format.

    Raises:
        CheckpointError: one has other weights than the first, or none.
        UsageError: `output` exists.
    """
    if output.exists():
        raise UsageError(f"{output}: exists already; give another --output_dir")
    with atomic_folder(output) as scratch:
        for part in RELEASED if is_bundle(folders[0]) else ("",):
            files = sorted((folders[0] / part).glob("*.safetensors"))
            if not files:
                raise CheckpointError(f"{folders[0]}: is neither a checkpoint nor a bundle of them; give its folder")
            rest = shutil.ignore_patterns("*.safetensors", CALIBRATION)
            shutil.copytree(folders[0] / part, scratch / part, ignore=rest, dirs_exist_ok=True)
            for file in files:
                _average_file([folder / part / file.name for folder in folders], scratch / part / file.name)


def _average_file(files: Sequence[Path], output: Path) -> None:
    """Average one file of weights, tensor by tensor, so that only the result is in memory."""
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    with ExitStack() as stack:
        try:
            stored = [stack.enter_context(safe_open(file, "pt")) for file in files]
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{', '.join(map(str, files))}: cannot all be read ({error})") from error
        shapes = [{name: tuple(one.get_slice(name).get_shape()) for name in one.keys()} for one in stored]  # noqa: SIM118
        for file, shape in zip(files, shapes, strict=True):
            if shape != shapes[0]:
                raise CheckpointError(f"{file}: has other weights than {files[0]}; give checkpoints of one model")
        means = {}
        for name in shapes[0]:
            first = stored[0].get_tensor(name)
            mean = torch.stack([one.get_tensor(name).double() for one in stored]).mean(0)
            means[name] = mean.to(first.dtype)
        save_file(means, output, metadata=stored[0].metadata())


def build_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = make_parser("python -m vision_reasoner.training.grpo.soup", __doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="DIR", help="at least two of one model")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="must not exist yet")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Average, and say where the result is."""
    if len(arguments.checkpoints) < 2:
        raise UsageError("there is one checkpoint only; give at least two")
    average(arguments.checkpoints, arguments.output_dir)
    print(arguments.output_dir)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
