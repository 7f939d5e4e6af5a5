"""The engine that asks a server: what is sent, what is read, and one clear line for each thing that goes wrong."""

import json
import logging
import sys
import threading
import time
from contextlib import nullcontext

import pytest

from tests.conftest import noise
from tests.support.bundled_replies import BUNDLED, scenes
from tests.support.server import MODEL, Says, image_of, serving, text_of, transformers_serve
from vision_reasoner import VisionReasoner, inference
from vision_reasoner.errors import CheckpointError, EngineError, ExitCode, QueryError, UsageError
from vision_reasoner.models.engine import Prompt, Watch, frame_image
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.models.router import Router
from vision_reasoner.models.server import ServerEngine, frames_of, token_ends
from vision_reasoner.prompts import QWEN2_5_VL, ROUTER_PROMPT, ROUTER_SYSTEM, VISION_REASONER
from vision_reasoner.results import Task

THOUGHT, ANSWER = "one dog", '<answer>[{"bbox_2d": [84, 84, 420, 420]}]</answer>'
OBJECTS, VQA = Task.DETECTION, Task.VQA


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def ask(server, *, queries=("the dog",), task=OBJECTS, images=None, watch=None, **options):
    engine = ServerEngine(server.url, **{"model": MODEL, **options})
    asked = images or [noise(60, 40, i) for i in range(len(queries))]
    return Reasoner(engine).ask(asked, list(queries), tasks=[task] * len(asked), max_new_tokens=99, watch=watch)


def always(*given, **named):
    return lambda *_: Says(*given, **named)


# --- what is sent -----------------------------------------------------------------------------------------------------
def test_the_image_is_sent_in_the_frame_as_png_before_the_prompt_and_decoding_is_greedy():
    image = noise(150, 50)
    with serving(always("hm")) as server:
        (reply,) = ask(server, images=[image], queries=["The Dog?"], frame_side=112)
    (request,) = server.requests
    assert [message["role"] for message in request["messages"]] == ["user"], "the template has a system turn of its own"
    assert text_of(request) == VISION_REASONER.text_for("the dog")
    assert image_of(request).tobytes() == frame_image(image, (112, 112)).tobytes()
    assert {name: value for name, value in request.items() if name != "messages"} == {
        "model": MODEL,
        "temperature": 0,
        "max_tokens": 99,
    }
    assert (reply.text, reply.model_size, reply.finished, reply.n_tokens) == ("hm", (112, 112), True, 7)
    assert reply.decode_seconds > 0


@pytest.mark.parametrize("dialect", [VISION_REASONER, QWEN2_5_VL])
def test_an_image_that_keeps_its_size_is_sent_on_the_grid_of_patches(dialect):
    with serving(always("hm")) as server:
        reasoner = Reasoner(ServerEngine(server.url, model=MODEL), dialect=dialect)
        task = OBJECTS if dialect is QWEN2_5_VL else VQA
        (reply,) = reasoner.ask([noise(150, 90)], ["what is it?"], tasks=[task])
    assert reply.model_size == image_of(server.requests[0]).size == (140, 84)


def test_the_frame_is_840_or_that_of_the_folder_or_the_one_that_is_said(bundle, tmp_path):
    with serving(always("hm")) as server:
        assert ServerEngine.connect(server.url).frame_side == 840
        assert ServerEngine.connect(server.url, frame_side=280).frame_side == 280
        for folder in (bundle, bundle / "reasoner"):
            engine = ServerEngine.connect(server.url, folder)
            assert (engine.model, engine.frame_side, engine.vqa_frame_side) == (MODEL, *frames_of(folder))
            assert engine.frame_side == 112
        server.models = [str(bundle / "reasoner")]
        assert ServerEngine.connect(server.url).frame_side == 112
        assert ServerEngine.connect(server.url, "another/model").model == "another/model"
        with pytest.raises(CheckpointError, match="--frame_side"):
            ServerEngine.connect(server.url, tmp_path)
        assert ServerEngine.connect(server.url, tmp_path, frame_side=280).frame_side == 280


@pytest.mark.parametrize(
    ("config", "frame"),
    [
        ({}, 840),
        ({"vision_config": {"patch_size": 16, "spatial_merge_size": 2}}, 832),
        ({"vision_config": {"patch_size": 16}, "frame_side": 832}, 832),
        ({"vision_config": {"patch_size": 16}, "frame_side": 840}, None),
        ({"frame_side": 832}, None),
        ({"vision_config": {"patch_size": 0}}, None),
        ({"vision_config": [14]}, None),
    ],
)
def test_the_frame_of_a_folder_is_on_its_models_grid_of_patches(tmp_path, config, frame):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with nullcontext() if frame else pytest.raises(CheckpointError, match="config"):
        assert frames_of(tmp_path) == (frame, None)


def test_the_router_has_its_system_turn():
    with serving(always("#### 2")) as server:
        routes = Router(ServerEngine.connect(server.url)).route_batch(["how many dogs", "how many cats"])
    assert [route.task for route in routes] == [Task.COUNTING] * 2
    system, user = server.requests[0]["messages"]
    assert system == {"role": "system", "content": ROUTER_SYSTEM}
    assert user["content"].startswith(ROUTER_PROMPT)


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    refusals = [
        Says(status=401, body='{"error": {"message": "bad key sk-secret"}}'),
        Says(status=400, body="sk-secret"),
    ]
    with serving(lambda i, _: refusals[i]) as server:
        for kind in (UsageError, EngineError):
            with pytest.raises(kind) as failed:
                ask(server)
            assert "sk-secret" not in str(failed.value)
    assert server.keys == ["Bearer sk-secret"] * 2


def test_no_more_requests_than_said_are_under_way_and_replies_keep_their_order():
    with serving(lambda _, request: Says(text_of(request), seconds=0.05)) as server:
        queries = [f"query {i}" for i in range(9)]
        replies = ask(server, queries=queries, task=VQA, concurrency=3)
    assert [reply.text for reply in replies] == queries
    assert server.most_at_once == 3


@pytest.mark.parametrize("query", ["", "a <|im_end|>", "<|image_pad|>", "\udcff"])
def test_queries_that_would_break_the_conversation_are_refused(query):
    with serving(always("hm")) as server, pytest.raises(QueryError, match="query"):
        ask(server, queries=[query])
    assert not server.requests


# --- what is read -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("says", "text", "finished"),
    [
        (Says(f"<think>{THOUGHT}</think>{ANSWER}"), f"<think>{THOUGHT}</think>{ANSWER}", True),
        (Says(ANSWER, THOUGHT), f"<think>{THOUGHT}</think>{ANSWER}", True),
        (Says(ANSWER, THOUGHT, "reasoning"), f"<think>{THOUGHT}</think>{ANSWER}", True),
        (Says(None, THOUGHT), f"<think>{THOUGHT}</think>", True),
        (Says(None, THOUGHT, finish="length"), f"<think>{THOUGHT}", False),
        (Says(ANSWER[:20], THOUGHT, finish="length"), f"<think>{THOUGHT}</think>{ANSWER[:20]}", False),
        (Says(""), "", True),
    ],
)
def test_replies(says, text, finished, streamed):
    watch = Watch(on_text=lambda *_: None) if streamed else None
    with serving(lambda *_: says) as server:
        (reply,) = ask(server, watch=watch)
    assert (reply.text, reply.finished, reply.n_tokens) == (text, finished, 7)


@pytest.mark.parametrize("streamed", [False, True])
def test_logprobs_stand_where_their_tokens_end(streamed):
    tokens = [("caf", -1.0), ("é ", -2.0), ("!", -3.0), ("<|im_end|>", -4.0)]
    with serving(always("café !", tokens=tokens)) as server:
        (reply,) = ask(server, logprobs=True, watch=Watch(on_text=lambda *_: None) if streamed else None)
    assert server.requests[0]["logprobs"] is True
    assert reply.logprobs == ((3, -1.0), (5, -2.0), (6, -3.0))


def test_a_limit_beyond_the_context_is_left_to_the_server():
    def answer(_, request):
        return Says(**refusal(400, "max_tokens is too large: 99")) if "max_tokens" in request else Says("hm")

    with serving(answer) as server:
        assert ask(server)[0].text == "hm"
    assert [request.get("max_tokens") for request in server.requests] == [99, None]


def test_tokens_of_another_text_tell_nothing():
    assert token_ends([(b"a", -1.0)], "b") == ()
    assert token_ends([], "b") == ()
    assert token_ends([(b"\xc3", -1.0), (b"\xa9", -2.0)], "é") == ((0, -1.0), (1, -2.0))


def test_a_server_without_logprobs_is_said_once(caplog):
    with serving(always("hm")) as server, caplog.at_level(logging.WARNING):
        replies = ask(server, queries=["a", "b", "c"], logprobs=True)
    assert [reply.logprobs for reply in replies] == [(), (), ()]
    assert caplog.text.count("no log-probabilities") == 1


def test_text_comes_as_it_is_written():
    seen = []
    with serving(always(ANSWER, THOUGHT)) as server:
        ask(server, watch=Watch(on_text=lambda i, text: seen.append((i, text))))
    assert seen[0] == (0, "<think>o")
    assert seen[-1] == (0, f"<think>{THOUGHT}</think>{ANSWER}")
    assert [len(text) for _, text in seen] == sorted(len(text) for _, text in seen)


def test_what_is_stopped_ends_where_it_is_and_nothing_further_is_asked():
    stop = threading.Event()
    seen: list[tuple[int, str]] = []

    def see(i, text):
        seen.append((i, text))
        if len(text) == 5:
            stop.set()

    with serving(always("x" * 50, seconds=0.01)) as server:
        replies = ask(server, queries=["a", "bb", "ccc"], concurrency=1, watch=Watch(see, stop))
    assert [reply.text for reply in replies] == ["xxxxx", "", ""]
    assert not any(reply.finished for reply in replies)
    assert [reply.n_tokens for reply in replies] == [5, 0, 0]
    assert len(server.requests) == 1


@pytest.mark.parametrize("says", [Says("hm", seconds=60), Says("x" * 50, seconds=0.3)], ids=["nothing", "slowly"])
def test_a_server_is_waited_for_until_the_deadline(says):
    with serving(lambda *_: says) as server:
        (reply,) = ask(server, watch=Watch(deadline=time.monotonic() + 1))
    assert not reply.finished
    assert len(reply.text) < 50


def test_what_a_watch_raises_is_passed_on():
    def see(*_):
        raise ValueError("mine")

    with serving(always("hm")) as server, pytest.raises(ValueError, match="mine"):
        ask(server, watch=Watch(see))


# --- what goes wrong --------------------------------------------------------------------------------------------------
def refusal(status, message):
    return {"status": status, "body": json.dumps({"error": {"message": message}})}


@pytest.mark.parametrize(
    ("says", "kind", "message"),
    [
        (
            refusal(404, "The model `x` does not exist."),
            UsageError,
            f"no model '{MODEL}'.*does not exist.*--model_path",
        ),
        ({"status": 404, "body": "<html>", "content_type": "text/html"}, UsageError, "ends in /v1"),
        (refusal(401, "no"), UsageError, "OPENAI_API_KEY"),
        (refusal(403, "no"), UsageError, "OPENAI_API_KEY"),
        (refusal(400, "x is not a multimodal model"), UsageError, "takes no images"),
        (refusal(400, "At most 0 image(s) may be provided in one prompt."), UsageError, "takes no images"),
        (refusal(500, "image input is not supported - you may need the mmproj"), UsageError, "takes no images"),
        (refusal(400, "This model's maximum context length is 2048 tokens."), QueryError, "longer context"),
        (refusal(400, "the request exceeds the available context size"), QueryError, "longer context"),
        ({"status": 400, "body": '{"detail": "what?"}'}, EngineError, r"status 400 \(what\?\)"),
        (refusal(500, "broken"), EngineError, r"status 500 \(broken\)"),
        ({"body": "<html>", "content_type": "text/html"}, EngineError, "not as an OpenAI-compatible server"),
        ({"body": "{nonsense"}, EngineError, "not as an OpenAI-compatible server"),
        ({"body": "{}"}, EngineError, "not as an OpenAI-compatible server"),
        ({"body": '{"choices": []}'}, EngineError, "not as an OpenAI-compatible server"),
        ({"body": '{"choices": [{}]}'}, EngineError, "not as an OpenAI-compatible server"),
        ({"content": "hm" * 99, "cut": True}, EngineError, "cannot be reached|cut"),
    ],
)
def test_one_line_says_what_went_wrong(says, kind, message):
    with serving(always(**says)) as server, pytest.raises(kind, match=message) as failed:
        ask(server)
    assert "\n" not in str(failed.value)
    assert str(failed.value).startswith(server.url)


@pytest.mark.parametrize(
    "says",
    [
        {"content": "hm" * 9, "cut": True},
        {"body": "data: {nonsense\n\n", "content_type": "text/event-stream"},
        {"body": 'data: {"error": {"message": "out of memory"}}\n\n', "content_type": "text/event-stream"},
        {"body": "data: [DONE]\n\n", "content_type": "text/event-stream"},
    ],
)
def test_a_stream_that_breaks_is_no_reply(says):
    with serving(always(**says)) as server, pytest.raises(EngineError, match=r"cut|not as an OpenAI"):
        ask(server, watch=Watch(on_text=lambda *_: None))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(status):
    with serving(lambda i, _: Says("hm") if i == 2 else Says(status=status)) as server:
        assert ask(server)[0].text == "hm"
    assert len(server.requests) == 3


def test_a_slow_server_is_given_up():
    with serving(always("hm", seconds=5)) as server, pytest.raises(EngineError, match="no answer in"):
        ask(server, timeout=0.2, max_retries=0)


def test_a_server_that_is_gone_is_waited_for_once(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.2)
    with serving(always("hm")) as server:
        engine = ServerEngine(server.url, model=MODEL, max_retries=2)
    prompt = [Prompt("what?")]
    with pytest.raises(EngineError, match=r"cannot be reached .* is the server running\?"):
        engine.generate(prompt, max_new_tokens=1, batch_size=1)
    start = time.perf_counter()
    with pytest.raises(EngineError, match="cannot be reached"):
        engine.generate(prompt, max_new_tokens=1, batch_size=1)
    assert time.perf_counter() - start < 0.15


def test_what_a_server_says_of_itself():
    with serving(always("hm")) as server:
        engine = ServerEngine.connect(server.url)
        assert engine.software() == "toys"
        server.version = "1.2.3"
        assert engine.software() == "toys 1.2.3"
    assert ServerEngine("http://127.0.0.1:1/v1", model=MODEL).software() == ""


def test_a_server_without_models():
    with serving(always("hm")) as server:
        server.models = []
        with pytest.raises(EngineError, match="no model"):
            ServerEngine.connect(server.url)


def test_without_the_package_the_command_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[openai\]"'):
        ServerEngine("http://127.0.0.1:1/v1", model=MODEL)


# --- as a part of the whole -------------------------------------------------------------------------------------------
def test_from_pretrained_asks_servers_and_takes_the_rest_from_checkpoints(bundle):
    image = noise(120, 60)
    with serving(always(ANSWER, THOUGHT)) as server, serving(always("#### 1")) as other:
        model = VisionReasoner.from_pretrained(bundle, engine=server.url, router_engine=other.url, device="cpu")
        result = model.predict(image, "segment the dog")
    assert (result.task, result.thinking) == (Task.SEGMENTATION, THOUGHT)
    assert result.instances[0].mask is not None
    assert image_of(server.requests[0]).size == (112, 112), "the frame of the bundle's reasoner"
    assert len(other.requests) == 1
    assert model.sources["reasoner"] == f"{bundle} at {server.url}"
    assert model.sources["segmenter"] == str(bundle / "segmenter")


def test_a_name_that_is_no_folder_is_the_server_s_own(monkeypatch, bundle):
    monkeypatch.setattr("vision_reasoner.models.checkpoints._default", lambda: (bundle, None))
    with serving(always(ANSWER)) as server:
        model = VisionReasoner.from_pretrained("owner/model:7b", engine=server.url, frame_side=420, device="cpu")
        (reply,) = model.ask([noise(60, 60)], ["dog"], "detection")
    assert server.requests[0]["model"] == "owner/model:7b"
    assert reply.model_size == (420, 420)
    assert model.sources["router"] == str(bundle / "router")
    assert model.sources["reasoner"] == f"owner/model:7b at {server.url} in a frame of 420"


def test_a_stopped_reply_says_so(bundle):
    stop = threading.Event()
    with serving(always(ANSWER, THOUGHT)) as server:
        model = VisionReasoner.from_pretrained(bundle, engine=server.url)
        result = model.predict(noise(60, 60), "dog", "detection", watch=Watch(lambda *_: stop.set(), stop))
    assert any("was stopped after" in warning for warning in result.warnings)
    assert not any("--max_new_tokens" in warning for warning in result.warnings)


def command(server, folder, *arguments):
    noise(60, 40).save(folder / "a.png")
    given = ["--image_path", str(folder / "a.png"), "--output_path", str(folder / "out.png"), "--engine", server]
    return inference.main([*given, "--query", "the dog", "--task", "detection", "--json", *arguments])


def test_on_the_command_line(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(always(ANSWER, THOUGHT)) as server:
        assert command(server.url, tmp_path, "--model_path", str(bundle), "-v") == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["instances"]) == 1
    assert "sk-secret" not in out + err


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (Says(**refusal(404, "no such model")), ExitCode.USAGE),
        (Says(**refusal(400, "maximum context length is 9 tokens")), ExitCode.INPUT),
        (Says(body="<html>", content_type="text/html"), ExitCode.ENGINE),
    ],
)
def test_exit_codes(bundle, tmp_path, capsys, says, code):
    with serving(lambda *_: says) as server:
        assert command(server.url, tmp_path, "--model_path", str(bundle)) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: http://127.0.0.1:")


# --- a real one -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_transformers_serve_says_what_the_library_says(tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    images, queries, tasks = scenes(5)
    local = VisionReasoner.from_pretrained(BUNDLED, device="cpu", dtype="float32")
    expected = [(r.text, r.model_size, r.finished, r.n_tokens) for r in local.ask(images, queries, tasks)]
    assert len({told[0] for told in expected}) > 10
    with transformers_serve(BUNDLED / "reasoner", tmp_path / "log.txt") as address:
        served = VisionReasoner.from_pretrained(BUNDLED, engine=address)
        given = served.ask(images, queries, tasks)
        assert [(r.text, r.model_size, r.finished, r.n_tokens) for r in given] == expected
        seen: dict[int, str] = {}
        streamed = served.ask(images[:3], queries[:3], tasks[:3], watch=Watch(seen.__setitem__))
        assert [r.text for r in streamed] == [seen[i] for i in range(3)] == [told[0] for told in expected[:3]]
    routes = local.route(queries)
    with transformers_serve(BUNDLED / "router", tmp_path / "log.txt") as address:
        served = VisionReasoner.from_pretrained(BUNDLED, router_engine=address)
        assert served.route(queries) == routes
