"""What may import what, read off the source. Imports inside functions count; those for type checkers do not."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vision_reasoner", "evaluation")

LIBRARIES = {
    "evaluation.metrics.coverage": "its simulation is a test, too",
    "vision_reasoner.scenes.art": "opens the drawings; its command only fetches them",
    "vision_reasoner.training.prepare": "how scenes become rows; reinforcement learning makes them as it goes",
}
"""Commands that may be imported, for what else is in them."""

CONVENIENCES = {
    ("vision_reasoner.results", "vision_reasoner.visualize"),
    ("vision_reasoner.results", "vision_reasoner.formats.by_supervision"),
}
"""Imports inside a method that only passes on: `Prediction.plot` calls what draws predictions."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the packages by its name."""
    found = {}
    for file in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports below a node but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from statements(child)


@cache
def imports() -> dict[str, set[str]]:
    """The modules of ours that each module imports. `from package import module` is of the module alone."""
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        wanted = set()
        for statement in statements(tree):
            if isinstance(statement, ast.Import):
                wanted |= {alias.name for alias in statement.names}
            else:
                assert not statement.level, f"{name}: give the module's whole name"
                inner = {alias.name: f"{statement.module}.{alias.name}" for alias in statement.names}
                wanted |= {full if full in modules() else str(statement.module) for full in inner.values()}
        found[name] = wanted & modules().keys() - {name}
    return found


def is_command(tree: ast.Module) -> bool:
    """Whether a module does something when it is run."""
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)


def test_evaluation_imports_nothing_from_training() -> None:
    for name, wanted in imports().items():
        if name.startswith("evaluation"):
            assert not [other for other in wanted if other.startswith("vision_reasoner.training")], name


def test_the_library_does_without_evaluation() -> None:
    for name, wanted in imports().items():
        if name.startswith("vision_reasoner"):
            assert not [other for other in wanted if other.startswith("evaluation")], name


def test_nothing_imports_a_command() -> None:
    commands = {name for name, tree in modules().items() if is_command(tree)} - LIBRARIES.keys()
    assert {"evaluation.run", "evaluation.compare", "vision_reasoner.inference"} <= commands
    found = {name: wanted & commands for name, wanted in imports().items() if not name.endswith("__main__")}
    assert not {name: wanted for name, wanted in found.items() if wanted}


def test_there_is_no_import_circle() -> None:
    graph = {
        name: {other for other in wanted if (name, other) not in CONVENIENCES} for name, wanted in imports().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


@pytest.mark.parametrize(
    "name", ["art", "assets", "vision", "language", "joint", "segmenter", "router", "soup", "curves"]
)
def test_commands_are_still_where_they_were_before_the_modules_moved(name: str) -> None:
    assert importlib.util.find_spec(f"vision_reasoner.training.{name}") is not None


@pytest.mark.parametrize(
    "module", ["vision_reasoner", "vision_reasoner.training.grpo", "vision_reasoner.training.vision"]
)
def test_those_commands_run(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("usage: ")
