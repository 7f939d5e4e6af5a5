"""The README and its companions: what they promise about the code holds."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from tests.support.drawings import sprites
from vision_reasoner.inference import build_parser
from vision_reasoner.models.router import task_of
from vision_reasoner.results import Task

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TASKS = (ROOT / "task_categorization.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "vision_reasoner/training/README.md").read_text(encoding="utf-8")


def test_the_table_of_flags_is_the_command_line():
    described = set(re.findall(r"^\| `(--\w+)`", README, re.M))
    existing = {option for action in build_parser()._actions for option in action.option_strings if len(option) > 2}
    assert described == existing - {"--help"}


def test_the_snippet_without_weights_runs():
    [snippet] = [code for code in re.findall(r"```python\n(.+?)```", README, re.S) if "ScriptedReasoner" in code]
    exec(snippet, {})


def test_the_two_commands_stand_where_the_checks_look_for_them():
    commands = dict(re.findall(r"^<!-- command: (\w+) -->\n```bash\n(.+)\n```$", README, re.M))
    assert commands.keys() == {"run", "test"}
    assert all(command.startswith("pip install -e ") for command in commands.values())


def test_the_guides_stand_in_pictures_are_a_data_set_that_rows_and_tables_are_made_of(tmp_path, monkeypatch):
    [snippet] = re.findall(r"<!-- example: stand-in -->\n```python\n(.+?)```", GUIDE, re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vision_reasoner.scenes.art.load_sprites", lambda _split: sprites())
    exec(snippet.replace("N, sprites = 500", "N, sprites = 5"), {})
    assert len(list(Path("mine/images").iterdir())) == 5
    commands = re.findall(r"python -m (\S+)\.prepare (coco [^`]+?)\n(?=python|```)", GUIDE)
    assert [module for module, _ in commands] == ["vision_reasoner.training", "evaluation"]
    for module, line in commands:
        flags = shlex.split(line.replace("\\\n", " "))
        if module == "vision_reasoner.training":
            flags[flags.index("pretrained_models/VisionReasoner-Tiny")] = str(
                ROOT / "pretrained_models/VisionReasoner-Tiny"
            )
        assert importlib.import_module(f"{module}.prepare").main(flags) == 0
        assert list(Path(flags[flags.index("--output_dir") + 1]).glob("*.parquet"))


@pytest.mark.parametrize("document", ["README.md", "task_categorization.md", "vision_reasoner/training/README.md"])
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in (t for t in targets if not t.startswith("https://")):
        file, _, heading = target.partition("#")
        where = (ROOT / document).parent / file if file else ROOT / document
        assert where.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", where.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def examples(heading: str) -> list[str]:
    """The example requests of the table below a heading of task_categorization.md that starts with `heading`."""
    section = re.split(r"^## ", TASKS, flags=re.M)
    [table] = [part for part in section if part.startswith(heading)]
    return [row.split("|")[2].strip() for row in table.splitlines() if row.startswith("| ")][1:]


def test_example_requests_are_worded_for_their_task():
    assert {task_of(1, request) for request in examples("Detection")} == {Task.DETECTION}
    assert {task_of(1, request) for request in examples("Segmentation")} == {Task.SEGMENTATION}


def test_at_least_sixty_tasks_are_sorted():
    assert sum(len(examples(heading)) for heading in ("Detection", "Segmentation", "Counting", "VQA")) >= 60
