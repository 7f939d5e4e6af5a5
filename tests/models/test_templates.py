"""Chat templates are programs of others: one that takes more than its share is refused when it is loaded."""

import os
from pathlib import Path

import pytest

from vision_reasoner.errors import CheckpointError
from vision_reasoner.models import templates
from vision_reasoner.models.checkpoints import BUNDLED, in_pretrained
from vision_reasoner.models.templates import check_template

LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


def test_templates_of_checkpoints_are_fine():
    bundled = in_pretrained(BUNDLED)
    assert bundled is not None
    for part in ("reasoner", "router"):
        check_template((bundled / part / "chat_template.jinja").read_text(), Path("here"))
    check_template(None, Path("here"))


@pytest.mark.skipif(os.name == "nt", reason="there are no limits for processes")
@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'system' %}" + LOOP + "{% endif %}",
        "{{ 'x' * 10**10 }}",
        "{{ 'x' * 10**7 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        {"default": "x", "other": "{{ 'x' * 10**10 }}"},
    ],
)
def test_a_template_without_end_or_bounds_is_refused(monkeypatch, template):
    monkeypatch.setattr(templates, "MAX_SECONDS", 1)
    with pytest.raises(CheckpointError, match="here: its chat template does not end or writes too much"):
        check_template(template, Path("here"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for",
        "{{ raise_exception('no') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ nothing.at.all }}",
    ],
)
def test_what_else_is_wrong_with_a_template_is_said_by_who_renders_it(template):
    check_template(template, Path("here"))
