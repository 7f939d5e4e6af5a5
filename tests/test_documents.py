"""The README and its companions: what they promise about the code holds."""

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from evaluation.suites import SUITES
from tests.conftest import noise
from vision_reasoner.errors import ExitCode
from vision_reasoner.inference import COMMANDS, build_parser
from vision_reasoner.models.router import task_of
from vision_reasoner.results import Task

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "task_categorization.md",
    "evaluation/README.md",
    "pretrained_models/README.md",
    "pretrained_models/VisionReasoner-Tiny/README.md",
    "pretrained_models/VisionReasoner-Tiny-Blood/README.md",
    "vision_reasoner/README.md",
    "vision_reasoner/training/README.md",
)
TEXTS = {document: (ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS}
README = TEXTS["README.md"]
TASKS = TEXTS["task_categorization.md"]
LIBRARY = TEXTS["vision_reasoner/README.md"]
GUIDE = TEXTS["vision_reasoner/training/README.md"]
SEED_DATA = (
    *(f"segmentation.sh Ricky06662/{data}" for data in ("refcoco_val", "refcoco_testA", "refcocoplus_val")),
    *(f"segmentation.sh Ricky06662/{data}" for data in ("refcocoplus_testA", "refcocog_val", "refcocog_test")),
    *(f"segmentation.sh Ricky06662/ReasonSeg_{split}" for split in ("val", "test")),
    "coco.sh Ricky06662/coco_val",
    *(f"count.sh Ricky06662/counting_{data}" for data in ("pixmo_validation", "pixmo_test", "countbench")),
)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 220


def test_the_table_of_flags_is_the_command_line():
    described = set(re.findall(r"^\| `(--\w+)`", LIBRARY, re.M))
    existing = {option for action in build_parser()._actions for option in action.option_strings if len(option) > 2}
    assert described == existing - {"--help"}


def test_the_table_of_exit_codes_is_complete():
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", LIBRARY, re.M)} == set(ExitCode)


def test_the_snippet_without_weights_runs():
    [snippet] = [code for code in re.findall(r"```python\n(.+?)```", LIBRARY, re.S) if "ScriptedReasoner" in code]
    exec(snippet, {})


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    [snippet] = re.findall(r"```python\n(.+?)```", README, re.S)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert capsys.readouterr().out.splitlines()[-1] == "[10, 'LUMEN']"
    assert Path("donuts.jpg").exists()
    assert Path("donuts.json").exists()


def test_the_readme_has_a_command_for_each_data_set():
    commands = re.findall(r"^\| `bash evaluation/eval_(.+?)` \|", README, re.M)
    assert sorted(commands) == sorted(SEED_DATA)


def test_the_papers_figures_are_those_that_the_commands_print():
    rows = re.findall(r"^\| `bash evaluation/eval_(\w+)\.sh (\S+)` \| (.+?) \| (.+?) \| (.+?) \|$", README, re.M)
    assert len(rows) == len(SEED_DATA)
    suites = {"segmentation": "segmentation", "coco": "detection", "count": "counting"}
    for script, data, names, qwen, ours in rows:
        for name, *figures in zip(*(cell.split(", ") for cell in (names, qwen, ours)), strict=True):
            published = SUITES[suites[script]].published_for(data.split("/")[1], name, "upstream")
            assert published is not None, (data, name)
            by_qwen = published.get("Qwen2.5-VL-7B", published.get("Qwen2.5-VL-7B + SAM2", 0.0))
            assert figures == [f"{100 * value:.1f}" for value in (by_qwen, published["VisionReasoner-7B"])], data


@cache
def commands_of(document: str) -> list[list[str]]:
    """The command lines in a document's blocks of bash, as words, without comments."""
    blocks = re.findall(r"```bash\n(.+?)```", TEXTS[document], re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`((?:python3?|bash) [^`\n]+)`", TEXTS[document])
    words = [shlex.split(line, comments=True) for line in (*lines, *inline)]
    return [part for line in words for part in split_at(line, ("&&", ";", "do"))]


def split_at(words: list[str], separators: tuple[str, ...]) -> list[list[str]]:
    """The lists of words between separators."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in separators:
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def module_of(command: list[str]) -> tuple[str, list[str]] | None:
    """The module of ours that a command runs, and what it is given; None for other commands."""
    if command[:2] in (["python", "-m"], ["python3", "-m"]):
        name, given = command[2], command[3:]
    elif "-m" in command and command[0] == "torchrun":
        at = command.index("-m")
        name, given = command[at + 1], command[at + 2 :]
    elif command[0] == "python":
        name, given = command[1].removesuffix(".py").replace("/", "."), command[2:]
    elif command[0] == "bash" and re.fullmatch(r"evaluation/eval_\w+\.sh", command[1]):
        name, given = "evaluation.run", command[2:]
    else:
        return None
    return (name, given) if name.split(".")[0] in ("vision_reasoner", "evaluation") else None


@cache
def help_of(module: str, *subcommand: str) -> str:
    """What a command says about itself."""
    package = importlib.util.find_spec(module)
    assert package is not None, module
    name = f"{module}.__main__" if package.submodule_search_locations else module
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main([*subcommand, "--help"])
    assert ended.value.code == 0
    return text.getvalue()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_exist_and_have_these_flags(document):
    for command in commands_of(document):
        if command[0] in ("bash", "python") and re.search(r"\.(sh|py)$", command[1]) and "$" not in command[1]:
            assert (ROOT / command[1]).is_file(), command
        if called := module_of(command):
            module, given = called
            has_subcommands = module.endswith(".prepare") or bool(COMMANDS.keys() & given[:1])
            text = help_of(module, *(given[:1] if has_subcommands else []))
            for flag in (word for word in given if word.startswith("--")):
                assert re.search(rf"{flag}\b", text), (command, flag)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_that_are_named_exist(document):
    names = re.findall(r"`((?:vision_reasoner|evaluation|tests|assets)/[\w./-]*)`", TEXTS[document])
    for name in names:
        assert (ROOT / name).exists(), name


def test_the_tree_has_the_folders_and_files_that_there_are():
    [tree] = re.findall(r"^## What is where\n+```\n(.+?)```", README, re.M | re.S)
    folder = Path()
    for line in re.sub(r"\n {20}", " ", tree).splitlines():
        found = re.match(r"( *)((?:[\w.-]+/(?:, )?)+) +(.+)$", line)
        assert found is not None, line
        parent = Path(*folder.parts[: len(found[1]) // 2])
        for name in found[2].split(", "):
            folder = parent / name
            assert (ROOT / folder).is_dir(), folder
        for file in re.findall(r"\b\w+\.(?:py|sh|json)\b", found[3]):
            assert (ROOT / folder / file).is_file(), folder / file


def test_the_two_commands_stand_where_the_checks_look_for_them():
    commands = dict(re.findall(r"^<!-- command: (\w+) -->\n```bash\n(.+)\n```$", README, re.M))
    assert commands.keys() == {"run", "test"}
    assert all(command.startswith("pip install -e ") for command in commands.values())


def test_the_guides_commands_make_rows_and_tables_of_the_public_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, lists = Path("BCCD_Dataset/BCCD"), Path("pretrained_models/VisionReasoner-Tiny-Blood/pictures")
    for folder in (root / "Annotations", root / "JPEGImages", lists):
        folder.mkdir(parents=True)
    box = "<bndbox><xmin>4</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    for i, split in enumerate(("train", "train", "test")):
        noise(80, 60, seed=i).save(root / f"JPEGImages/BloodImage_{i}.jpg")
        objects = [f"<object><name>{name}</name>{box}</object>" for name in ("RBC", "WBC", "Platelets")]
        size = "<size><width>80</width><height>60</height></size>"
        text = f"<annotation><filename>BloodImage_{i}.jpg</filename>{size}{''.join(objects)}</annotation>"
        (root / f"Annotations/BloodImage_{i}.xml").write_text(text)
        with (lists / f"{split}.txt").open("a") as lines:
            lines.write(f"BloodImage_{i}\n")
    commands = re.findall(r"python -m (\S+)\.prepare (voc [^`]+?)\n(?=python|```)", GUIDE)
    assert [module for module, _ in commands] == ["vision_reasoner.training", "evaluation"]
    for module, line in commands:
        flags = shlex.split(line.replace("\\\n", " "))
        assert importlib.import_module(f"{module}.prepare").main(flags) == 0
        assert list(Path(flags[flags.index("--output_dir") + 1]).glob("*.parquet"))
    train, test = (set((ROOT / lists / f"{split}.txt").read_text().split()) for split in ("train", "test"))
    assert (len(train), len(test), len(train & test)) == (250, 50, 0), "as the figures say"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = TEXTS[document]
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


def test_extras_that_are_named_can_be_installed():
    named = {
        extra for text in TEXTS.values() for found in re.findall(r"\.\[([a-z,]+)\]", text) for extra in found.split(",")
    }
    [offered] = re.findall(r"extras_require=\{(.+?)\}", (ROOT / "setup.py").read_text(), re.S)
    assert named <= set(re.findall(r'"(\w+)":', offered))
