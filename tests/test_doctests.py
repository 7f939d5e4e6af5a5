"""The examples in docstrings do what they say."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name",
    ["vision_reasoner.matching", "vision_reasoner.training.grpo.rewards", "vision_reasoner.training.grpo.policies"],
)
def test_examples_of_a_module(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
