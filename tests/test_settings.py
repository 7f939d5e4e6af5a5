"""What settings refuse, and what follows from them."""

import pytest

from vision_reasoner.errors import UsageError
from vision_reasoner.settings import RunSettings

SERVER = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    "engine",
    ["sglang", "", "localhost:8000/v1", "ftp://host/v1", "http://", "http:///v1", "http://host:port/v1"],
)
@pytest.mark.parametrize("name", ["engine", "router_engine"])
def test_what_is_no_engine(name, engine):
    with pytest.raises(UsageError, match="no engine"):
        RunSettings(**{name: engine})


@pytest.mark.parametrize("engine", ["http://me:secret@host/v1", "https://host/v1?key=secret", "http://host/v1#secret"])
def test_no_key_stands_in_an_address(engine):
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as failed:
        RunSettings(engine=engine)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("changes", [{"frame_side": 280}, {"engine": SERVER, "frame_side": 0}, {"concurrency": 0}])
def test_numbers_that_cannot_be(changes):
    with pytest.raises(UsageError, match=r"frame_side|concurrency"):
        RunSettings(**changes)


def test_a_server_is_never_short_of_requests():
    here, served = RunSettings(batch_size=3), RunSettings(batch_size=3, concurrency=5, engine=SERVER)
    assert (here.portion, here.portions_at_once) == (3, 1)
    assert (served.portion, served.portions_at_once) == (1, 10)


def test_which_parts_servers_run():
    assert RunSettings().served == ()
    assert RunSettings(engine=SERVER).served == ("reasoner",)
    assert RunSettings(engine=SERVER, router_engine=SERVER).served == ("reasoner", "router")
