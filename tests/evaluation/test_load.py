"""Load figures: every request is made and timed, and a real server survives what is sent to it."""

import re

import pytest

from evaluation import load
from vision_reasoner.errors import UsageError


def test_clients_make_so_many_requests_between_them():
    done: list[int] = []
    assert len(load.clients(4, 30, lambda: 200, done.append)) == 30
    assert sorted(done) == list(range(1, 31))


def test_a_request_that_fails_is_no_figure():
    with pytest.raises(UsageError, match="answered with 503"):
        load.clients(2, 10, lambda: 503)


@pytest.mark.slow
def test_a_server_survives_bad_uploads(capfd):
    assert load.main(["--hostile"]) == 0
    lines = dict(re.findall(r"^ *(.+): (\d+)", capfd.readouterr().out, re.M))
    assert set(lines.values()) == {"422", "413", "200"}
    assert lines["beside 100 slow senders"] == lines["afterwards"] == "200"
