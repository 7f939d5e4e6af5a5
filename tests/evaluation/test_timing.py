"""Timing of engines: all ways write the same, each has its row, and no picture comes twice."""

from itertools import islice

import pytest

from evaluation import timing
from evaluation.shapes import build_model, random_requests
from evaluation.timing import bundled_requests, measure, table, ways_by_name, ways_of
from tests.support.server import Says, serving
from vision_reasoner.models import window_attention
from vision_reasoner.models.local import TransformersEngine


@pytest.fixture(scope="module")
def tiny():
    return build_model("tiny", device="cpu")


def test_no_reply_ends_and_all_ways_write_the_same(tiny):
    requests = list(islice(random_requests(), 3))
    replies = []
    for way in ways_of(*tiny).values():
        seconds, told = timing._ask(way(3), requests, 3, 9)
        assert seconds > 0
        assert [(r.n_tokens, r.finished) for r in told] == [(9, False)] * 3
        replies.append([r.text for r in told])
    assert replies[0] == replies[1] == replies[2]
    assert len(set(replies[0])) == 3


def test_the_reference_has_its_own_vision_attention(tiny, monkeypatch):
    used = []
    monkeypatch.setattr(
        TransformersEngine,
        "generate",
        lambda self, *_, **__: used.append(self.model.model.visual.config._attn_implementation),
    )
    ways = ways_of(*tiny)
    for name in ("reference", "plain"):
        ways[name](1).generate([], max_new_tokens=1, batch_size=1)
    assert used == ["sdpa", window_attention.NAME]


def test_every_way_has_its_row(tiny):
    rows = measure(ways_of(*tiny), random_requests(), sizes=(1, 2), n_tokens=4, rounds=2)
    assert [(row.at_once, row.name) for row in rows] == [
        (n, name) for n in (1, 2) for name in ("reference", "plain", "compiled")
    ]
    for row in rows:
        assert len(row.ratios) == len(row.tokens_per_second) == 2
        assert min(row.tokens_per_second + row.first_token_seconds + row.ratios) > 0
        assert row.memory_gb is None or row.memory_gb > 0.1
        assert row.same == 1
    assert rows[0].ratios == [1, 1]
    assert table(rows).count("\n") == len(rows)


def test_a_server_is_sent_as_many_at_once_and_its_replies_are_compared(bundle, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(lambda *_: Says("hm", seconds=0.02)) as server:
        ways = ways_by_name([server.url], bundle / "reasoner", device="cpu", dtype="float32")
        assert list(ways) == ["reference", server.url]
        rows = measure(ways, random_requests(), sizes=[3], n_tokens=4, rounds=1)
    assert server.most_at_once == 3
    assert [row.same for row in rows] == [1, 0]
    assert rows[1].first_token_seconds[0] > 0


def test_requests_are_the_bundled_samples_each_once():
    requests = list(islice(bundled_requests(), 12))
    assert len({(image.tobytes(), query) for image, query, _ in requests}) == 12
    assert len({task for _, _, task in requests}) == 4
    again = next(bundled_requests())
    assert again[1:] == requests[0][1:]
