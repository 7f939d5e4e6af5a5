"""Measure a checkpoint on a data set; the shell scripts beside this file call it.

    python -m evaluation.run --suite segmentation                              # bundled set and checkpoint, offline
    python -m evaluation.run --suite segmentation Ricky06662/refcoco_val --model_path Ricky06662/VisionReasoner-7B
    python -m evaluation.run --suite counting data/countbench --limit 100 --output_path results/try
    python -m evaluation.run --suite vqa lmms-lab/DocVQA                       # the suite docvqa, by the set's name
    python -m evaluation.run --suite vqa lmms-lab/DocVQA --num_workers 8       # eight GPUs, by Ray

The folder at --output_path gets a line for each finished sample, metrics.json and report.html. The same command again
continues a run that was interrupted, does failed samples again, and otherwise only reports. The router is not asked:
a suite says what kind of request it makes.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.ranking import Annotations, annotations_of
from evaluation.report import table, write_report
from evaluation.runner.manifest import describe
from evaluation.runner.records import INSTANCES, PAGE, SAMPLES, begin, finished, locked, read_json, write_json
from evaluation.runner.samples import Samples
from evaluation.runner.workers import FOLDERS, Batch, Load, Pool, import_ray, in_process, load_model, on_ray
from evaluation.suites import SUITES, choose_suite
from vision_reasoner.cli import add_model_options, make_parser, run_command
from vision_reasoner.data.sources import PICTURES, Source, open_source
from vision_reasoner.errors import DataError, ExitCode, UsageError, one_line
from vision_reasoner.files import add_lines
from vision_reasoner.results import Task

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The options; those about the model are the command line's of the library."""
    parser = make_parser("python -m evaluation.run", __doc__)
    add = parser.add_argument
    add("dataset", nargs="?", help="Hub id, or parquet, save_to_disk folder or .jsonl; default: a small bundled set")
    add("--suite", choices=tuple(SUITES), required=True, help="what is asked and how it is scored")
    add("--split", help="default: test (docvqa and textvqa: validation)")
    add("--config", help="of a Hub id with several data sets")
    add("--columns", metavar="FIELD=COLUMN,...", help="where the data set calls them otherwise: question=q,answers=a")
    add("--annotations", metavar="FILE", help="detection: COCO's instances JSON; default: instances.json of the set")
    add("--batch_size", type=int, default=16, metavar="N", help="requests at once; default: %(default)s")
    add("--num_workers", type=int, metavar="N", help="work by Ray, with a GPU each; default with --ray_address: all")
    add("--ray_address", metavar="ADDRESS", help="of a running Ray cluster; auto: that of this machine")
    add("--limit", type=int, metavar="N", help="the first N samples only")
    add("--output_path", metavar="DIR", help="default: results/<suite>/<data set>/<checkpoint>")
    add("--overwrite", action="store_true", help="throw an earlier run in that folder away")
    add("--max_errors", type=int, default=0, metavar="N", help="more failed samples make the exit code 7; default: 0")
    add("--protocol", choices=("both", "upstream", "official"), default="both", help="which figures are printed")
    add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes are those of the library's, 7 where too many samples failed."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and report."""
    if arguments.batch_size < 1 or (arguments.limit is not None and arguments.limit < 1) or arguments.max_errors < 0:
        raise UsageError("--batch_size and --limit must be at least 1, --max_errors at least 0")
    spread = arguments.num_workers is not None or arguments.ray_address is not None
    if spread:
        if arguments.num_workers is not None and arguments.num_workers < 1:
            raise UsageError("--num_workers must be at least 1")
        if ":" in arguments.device:
            raise UsageError(
                f"--device {arguments.device}: with workers Ray says which; give {arguments.device.partition(':')[0]}"
            )
        import_ray()
    suite = choose_suite(arguments.suite, arguments.dataset).with_columns(_columns(arguments.columns))
    source = open_source(
        arguments.dataset or suite.data,
        split=arguments.split or suite.split,
        config=arguments.config or suite.config,
        pictures=[suite.column(name) for name in PICTURES],
        offline=arguments.offline,
    )
    samples = Samples(suite, source)
    annotations = _annotations(arguments.annotations, source) if suite.ranked else None
    settings, manifest = describe(arguments, samples, annotations)
    folder = Path(arguments.output_path or _default_folder(arguments, manifest))
    load = partial(load_model, settings, quietly=not arguments.verbose)
    pool: Pool = in_process
    if spread:
        digests = {part: checkpoint["digest"] for part, checkpoint in manifest["checkpoint"].items()}
        load = partial(load_model, _everywhere(settings, manifest), digests, quietly=not arguments.verbose)
        pool = partial(
            on_ray,
            num_workers=arguments.num_workers,
            address=arguments.ray_address,
            gpu=manifest["settings"]["device"] == "cuda",
            quietly=not arguments.verbose,
        )
    metrics = evaluate(
        samples,
        load,
        folder,
        manifest,
        annotations=annotations,
        batch_size=arguments.batch_size,
        overwrite=arguments.overwrite,
        pool=pool,
        quiet=arguments.quiet,
    )
    print(table(metrics, arguments.protocol))
    logger.info("Report: %s", folder / PAGE)
    if metrics["errors"] > arguments.max_errors:
        logger.error(
            "error: %d samples failed and are in no figure (--max_errors %d); the same command tries them again",
            metrics["errors"],
            arguments.max_errors,
        )
        return ExitCode.SOME_FAILED
    return 0


def evaluate(
    samples: Samples,
    load: Load,
    folder: Path,
    manifest: dict[str, Any],
    *,
    annotations: Path | None = None,
    batch_size: int = 16,
    overwrite: bool = False,
    pool: Pool = in_process,
    quiet: bool = False,
) -> dict[str, Any]:
    """Begin a run, or continue it, and report on it.

    Args:
        samples: of the data set.
        load: gives the model; not called where nothing is left to do.
        folder: of the run; made if need be.
        manifest: what the run is of, see `manifest.describe`.
        annotations: for average precision the instances file; None takes the rows' own boxes.
        batch_size: how many samples go through the model together.
        overwrite: whether an earlier run in the folder is thrown away.
        pool: who works on the batches.
        quiet: no progress bar.

    Returns:
        What metrics.json holds.

    Raises:
        UsageError: the folder holds a run of something else, or another process writes there.
    """
    with locked(folder):
        begin(folder, manifest, overwrite=overwrite)
        if samples.suite.ranked and not (folder / INSTANCES).is_file():
            write_json(folder / INSTANCES, _instances(annotations, samples).to_json())
        _work(samples, load, folder, n=manifest["n"], batch_size=batch_size, pool=pool, quiet=quiet)
        return write_report(folder)


def _work(samples: Samples, load: Load, folder: Path, *, n: int, batch_size: int, pool: Pool, quiet: bool) -> None:
    """Add a record for each of the first `n` samples that has none yet."""
    from tqdm import tqdm

    done = finished(folder)
    # A batch of which something is missing is done whole, so that every sample is asked in the same company always.
    batches = [batch for batch in plan(samples, n, batch_size) if not done.issuperset(batch)]
    bar = tqdm(total=n, initial=len(done), unit="sample", disable=quiet, file=sys.stderr)
    with (folder / SAMPLES).open("ab") as lines, bar:
        made = (Batch([samples[i] for i in batch], samples.suite.task) for batch in batches)
        for records in pool(load, made):
            new = [record for record in records if record["index"] not in done]
            add_lines(lines, new)
            bar.update(len(new))
            for record in new:
                if record["error"]:
                    with tqdm.external_write_mode(file=sys.stderr):
                        logger.warning("sample %s failed: %s", record["id"], record["error"])


def plan(samples: Samples, n: int, batch_size: int) -> list[list[int]]:
    """The first `n` samples' numbers in batches: the longest first, those of about the same length together.

    Always the same for the same samples and sizes. Length is the picture's size where that decides it (questions), and
    the request's.
    """
    by_size = samples.suite.task is Task.VQA
    pixels = [samples.pixels(i) if by_size else 0 for i in range(n)]
    order = sorted(range(n), key=lambda i: (-pixels[i], -len(samples.queries[i]), i))
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


def _everywhere(settings: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """The settings with nothing in them that another machine could take otherwise, and no part that is not used."""
    chosen = {key: manifest["settings"][key] for key in ("device", "dtype", "attn_implementation")}
    folders = {FOLDERS[part]: str(Path(settings[FOLDERS[part]]).resolve()) for part in manifest["checkpoint"]}
    return settings | {"router": None, "segmenter": None} | chosen | folders


def _columns(text: str | None) -> dict[str, str]:
    """`question=q,answers=a` as a mapping."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    if any(not (name.strip() and sign and column.strip()) for name, sign, column in pairs):
        raise UsageError(f"--columns {text}: give field=column pairs with commas between, such as question=q,answers=a")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _annotations(given: str | None, source: Source) -> Path | None:
    """The instances file: the given one, or that beside the data set."""
    if given is not None:
        if not Path(given).is_file():
            raise DataError(f"{given}: there is no such file; check --annotations")
        return Path(given).resolve()
    path = Path(source.path)
    beside = (path if path.is_dir() else path.parent) / INSTANCES
    if path.exists() and beside.is_file():
        return beside
    logger.info("No instances file: the rows' own boxes are scored against, without crowds (--annotations)")
    return None


def _instances(file: Path | None, samples: Samples) -> Annotations:
    if file is None:
        return annotations_of(samples)
    try:
        annotations = Annotations.from_json(read_json(file))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: is no instances file as COCO has it ({one_line(error)}); give another") from error
    if strange := sorted(set(samples.image_ids or ()) - annotations.numbers.keys()):
        raise DataError(
            f"{file}: has not {len(strange)} of the pictures of {samples.source.path} (first: {strange[0]}); give the "
            "instances file of this set"
        )
    return annotations


def _default_folder(arguments: argparse.Namespace, manifest: dict[str, Any]) -> Path:
    """results/<suite>/<data set>/<checkpoint>, with what else tells runs apart; the same command gives the same one."""
    data, settings = manifest["data"], manifest["settings"]
    details = [
        f"limit{arguments.limit}" if arguments.limit else "",
        arguments.model if arguments.model != "vision_reasoner" else "",
        settings["compat"] if settings["compat"] != "none" else "",
    ]
    split = "" if data["split"] == SUITES[manifest["suite"]].split else data["split"]
    name = manifest["checkpoint"]["reasoner"]["name"]
    parts = ((data["name"], split), (name, *details))
    return Path("results", manifest["suite"], *("-".join(filter(None, part)) for part in parts))


if __name__ == "__main__":
    sys.exit(main())
