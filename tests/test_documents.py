"""The README and its companions: what they promise about the code holds."""

import re
from pathlib import Path

import pytest

from vision_reasoner.inference import build_parser
from vision_reasoner.results import Task
from vision_reasoner.router import task_of

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TASKS = (ROOT / "task_categorization.md").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("document", ["README.md", "task_categorization.md"])
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in (t for t in targets if not t.startswith("https://")):
        file, _, heading = target.partition("#")
        assert (ROOT / (file or document)).exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", (ROOT / (file or document)).read_text(encoding="utf-8"), re.M)
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
