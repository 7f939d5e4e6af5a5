"""`vision-reasoner doctor`: the report of an examination, for people and as JSON."""

import argparse
import json
import platform
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from vision_reasoner.cli import add_model_options, make_parser, model_settings, run_command, silence_transformers
from vision_reasoner.errors import ExitCode, printable

DESCRIPTION = """\
Find out whether boxes come out in the right place, and whether everything else works.

Pictures in odd sizes with objects in known places are drawn, and asked about in the way of every other request. From
the boxes that come back the frame is measured that the model answers in."""
EPILOG = """\
exit codes:
  0  all is well
  6  too few objects were found to say anything of the frame
  7  a check failed
  and those of every other command, where the model or its server cannot be asked at all

examples:
  vision-reasoner doctor
  vision-reasoner doctor --engine http://localhost:8000/v1 --frame_side 840
  vision-reasoner doctor --model qwen --model_path Qwen/Qwen2.5-VL-7B-Instruct --json
"""
MARKS = {"ok": "[ok]", "failed": "[FAILED]", "undecided": "[?]", "note": "[-]"}
MARK_WIDTH, NAME_WIDTH = 9, 13
MAX_WIDTH = 120


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("vision-reasoner doctor", DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--json", action="store_true", help="print JSON, with every reply, instead of text")
    add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Examine the model that the options name."""
    from vision_reasoner.doctor.checks import examine
    from vision_reasoner.model import VisionReasoner

    model = VisionReasoner.from_settings(*model_settings(arguments, logprobs=True))
    if not arguments.verbose:
        silence_transformers()
    report = report_of(examine(model), model)
    print(json.dumps(report) if arguments.json else printable(text_of(report)), flush=True)
    return int(report["exit_code"])


def report_of(examination: Any, model: Any) -> dict[str, Any]:
    """An examination as JSON.

    Args:
        examination: from `checks.examine`.
        model: the VisionReasoner that was examined.
    """
    from vision_reasoner.models.devices import peak_memory
    from vision_reasoner.results import versions

    states = [check.state for check in examination.checks]
    code = ExitCode.SOME_FAILED if "failed" in states else ExitCode.REPLY if "undecided" in states else ExitCode.OK
    return {
        "exit_code": int(code),
        "model": model.reasoner.dialect.name,
        **_engine(model),
        "sources": model.sources,
        "checks": [vars(check) for check in examination.checks],
        "pictures": list(_pictures(examination)),
        "seconds_per_picture": examination.seconds / max(1, examination.n_replies),
        "tokens_per_second": examination.n_tokens / examination.seconds,
        "peak_memory_gb": peak_memory(),
        "versions": {"python": platform.python_version(), **versions()},
    }


def _engine(model: Any) -> dict[str, str]:
    """The reasoner, who runs it, and on what."""
    from vision_reasoner.models.checkpoints import display_name
    from vision_reasoner.models.local import TransformersEngine
    from vision_reasoner.models.server import ServerEngine

    engine = getattr(model.reasoner, "engine", None)
    if isinstance(engine, ServerEngine):
        return {"reasoner": engine.model, "engine": engine.url}
    where = model.settings.engine
    if isinstance(engine, TransformersEngine):
        where += f", {engine.model.device}, {str(engine.model.dtype).removeprefix('torch.')}"
    return {"reasoner": display_name(model.sources.get("reasoner", "one of your own")), "engine": where}


def _pictures(examination: Any) -> Iterator[dict[str, Any]]:
    """What came of each picture that the frame was measured by."""
    judged = {picture.sighting.name: picture for picture in examination.verdict.pictures}
    for asked in examination.asked:
        scene = asked.scene
        told = {"name": scene.name, "size": scene.image.size, "query": scene.query, "objects": scene.boxes}
        if scene.name not in judged:
            yield {**told, "error": str(asked.reply)}
            continue
        picture = judged[scene.name]
        yield {
            **told,
            "frame": picture.sighting.frame,
            "measured_frame": picture.measured or None,
            "off": picture.off,
            "error_px": picture.error,
            "found": picture.n_found,
            "written": picture.sighting.written.tolist(),
            "reply": asked.reply.text,
        }


def text_of(report: dict[str, Any]) -> str:
    """A report for people."""
    width = min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns)

    def paragraph(text: str, lead: str) -> str:
        return textwrap.fill(
            text,
            width,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_long_words=False,
            break_on_hyphens=False,
        )

    pictures = report["pictures"]
    n_objects = sum(len(picture["objects"]) for picture in pictures)
    lines = [
        paragraph(f"{report['reasoner']}, asked as --model {report['model']}", "Reasoner  "),
        paragraph(report["engine"], "Engine    "),
        f"Pictures  {len(pictures)}, in which {n_objects} {pictures[0]['query']} were drawn",
        "",
    ]
    for check in report["checks"]:
        lead = f"{MARKS[check['state']]:<{MARK_WIDTH}}{check['name']:<{NAME_WIDTH}}"
        lines.append(paragraph(check["summary"], lead))
        if check["advice"]:
            lines.append(paragraph(check["advice"], " " * len(lead) + "-> "))
        if check["name"] == "Frame":
            lines += [" " * MARK_WIDTH + row for row in _table(pictures)]
    sizes = report["peak_memory_gb"].items()
    return "\n".join(
        [
            *lines,
            "",
            f"Speed     {report['seconds_per_picture']:.2f} s a picture, {report['tokens_per_second']:.0f} tokens/s",
            f"Memory    {', '.join(f'{size:.1f} GB of {where}' for where, size in sizes)}, in this process",
            paragraph(", ".join(f"{name} {version}" for name, version in report["versions"].items()), "Versions  "),
            "",
            _conclusion(report),
        ]
    )


def _conclusion(report: dict[str, Any]) -> str:
    """The last line."""
    states = {"failed": "failed", "undecided": "undecided"}
    names = {state: [check["name"] for check in report["checks"] if check["state"] == state] for state in states}
    told = [f"{states[state]}: {', '.join(found)}" for state, found in names.items() if found]
    return f"{'; '.join(told).capitalize()} (exit code {report['exit_code']})." if told else "All is well."


def _table(pictures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row for each picture."""
    yield f"{'picture':<19}{'taken for':<13}{'measured':<22}{'error':>7}{'found':>8}"
    for picture in pictures:
        name = f"{picture['name']:<8}{'{}x{}'.format(*picture['size'])}"
        if "error" in picture:
            yield f"{name:<19}failed"
            continue
        error = "-" if picture["error_px"] is None else f"{picture['error_px']:.0f} px"
        measured = picture["measured_frame"] or "too little"
        found = f"{picture['found']}/{len(picture['objects'])}"
        mark = "  <-" if picture["off"] else ""
        yield f"{name:<19}{'{}x{}'.format(*picture['frame']):<13}{measured:<22}{error:>7}{found:>8}{mark}"
