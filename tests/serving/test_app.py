"""The server, asked through real sockets; the model needs no weights."""

import base64
import io
import json
import logging
import re
import socket
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.load import bomb
from tests.conftest import noise
from tests.support.service import REPLY, form_of, serving, wait_until
from vision_reasoner import CheckpointError, Prediction, VisionReasoner
from vision_reasoner.data.rows import load_rows
from vision_reasoner.data.sources import open_source
from vision_reasoner.formats import FORMATS
from vision_reasoner.masks import decode_mask
from vision_reasoner.serving.downloads import KINDS
from vision_reasoner.serving.guard import Limits
from vision_reasoner.serving.service import Service
from vision_reasoner.training.prepare import main as prepare

SIZE = (120, 80)
FORM = {"query": "the dogs", "task": "auto"}


def png(image=None):
    data = io.BytesIO()
    (image or noise(*SIZE)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("project") / "corrections", max_upload_bytes=200_000) as started:
        yield started


def error_of(answer):
    status, body = answer
    return status, body["error"]["message"]


# --- asking -----------------------------------------------------------------------------------------------------------
def test_a_form_and_json_give_the_same_prediction(client):
    status, by_form = client.form("/v1/predict", png(), **FORM)
    assert status == 200
    body = {"image": base64.b64encode(png()).decode(), **FORM}
    assert client.json("/v1/predict", body)[0] == 200
    by_json = client.json("/v1/predict", body | {"image": f"data:image/png;base64,{body['image']}"})[1]
    prediction = Prediction.from_json(by_form)
    assert prediction == Prediction.from_json(by_json)
    assert [tuple(found.box) for found in prediction.instances] == [(12, 8, 60, 40), (60, 40, 90, 60)]
    mask = prediction.instances[0].mask
    assert mask is not None
    assert mask.sum() == 48 * 32
    assert by_form["image_id"] == by_json["image_id"]


def test_a_picture_can_be_named_instead_of_sent_again(client):
    name = client.form("/v1/predict", png(), **FORM)[1]["image_id"]
    status, found = client.json("/v1/predict", {"image_id": name, **FORM})
    assert (status, found["count"]) == (200, 2)
    status, message = error_of(client.json("/v1/predict", {"image_id": "0" * 64, **FORM}))
    assert (status, "send it again" in message) == (404, True)


def test_events_tell_the_reply_as_it_is_written_and_then_the_result(client):
    status, headers, content = client.ask("/v1/predict", *form_of(png(), stream="true", **FORM))
    assert (status, headers.get_content_type()) == (200, "text/event-stream")
    events = re.findall(r"event: (\w+)\ndata: (.+)\n\n", content.decode())
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("accepted", "result")
    text = ""
    for name, data in events:
        if name == "text":
            piece = json.loads(data)
            text = text[: piece["start"]] + piece["text"]
    assert text == REPLY
    assert json.loads(events[-1][1])["count"] == 2


def test_an_error_in_a_stream_is_an_event(client):
    content = client.ask("/v1/predict", *form_of(png(), stream="true", query="edit"))[2].decode()
    assert "event: error" in content
    assert "it asks for editing" in content
    assert "event: result" not in content


def test_nothing_found_is_a_result(client):
    status, found = client.form("/v1/predict", png(), query="nothing")
    assert (status, found["status"], found["count"]) == (200, "none", 0)


def test_requests_that_come_together_are_answered_together_and_fail_alone():
    with serving() as client:
        client.reasoner.gate.clear()
        answers = {}

        def ask(query):
            answers[query] = client.form("/v1/predict", png(), query=query, task="detection")

        threads = [threading.Thread(target=ask, args=(query,)) for query in ("first", "fail", "good")]
        threads[0].start()
        wait_until(lambda: client.reasoner.batches)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: client.service.predictions.waiting == 2)
        client.reasoner.gate.set()
        for thread in threads:
            thread.join()
        assert sorted(map(sorted, client.reasoner.batches[:2])) == [["fail", "good"], ["first"]]
        assert [answers[query][0] for query in ("first", "good", "fail")] == [200, 200, 500]
        assert "secret" not in json.dumps(answers["fail"][1])


def test_what_is_too_much_is_turned_away_with_a_time_to_come_back():
    with serving(max_waiting=1) as client:
        client.reasoner.gate.clear()
        threads = [threading.Thread(target=client.form, args=("/v1/predict", png()), kwargs=FORM) for _ in range(2)]
        threads[0].start()
        wait_until(lambda: client.reasoner.batches)
        threads[1].start()
        wait_until(lambda: client.service.predictions.waiting == 1)
        status, headers, content = client.ask("/v1/predict", *form_of(png(), **FORM))
        assert (status, json.loads(content)["error"]["type"]) == (429, "Busy")
        assert int(headers["Retry-After"]) >= 1
        client.reasoner.gate.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_model_stops_when_the_client_goes(stream):
    with serving() as client:
        connection = client.connect()
        connection.request("POST", "/v1/predict", *form_of(png(), query="slow", task="detection", stream=stream))
        wait_until(lambda: client.reasoner.batches)
        connection.close() if stream == "false" else connection.sock.close()
        connection.sock = None
        assert client.reasoner.stopped.wait(60)
        assert client.form("/v1/predict", png(), **FORM)[0] == 200


def test_what_takes_too_long_is_given_up():
    with serving(seconds=0.3) as client:
        assert error_of(client.form("/v1/predict", png(), query="slow", task="detection"))[0] == 504
        content = client.ask("/v1/predict", *form_of(png(), query="slow", task="detection", stream="true"))[2]
        assert b"no result within 0.3 seconds" in content
        assert client.reasoner.stopped.is_set()


def test_ending_the_server_finishes_what_is_under_way():
    answers = []
    with serving() as client:
        client.reasoner.gate.clear()
        thread = threading.Thread(target=lambda: answers.append(client.form("/v1/predict", png(), **FORM)))
        thread.start()
        wait_until(lambda: client.reasoner.batches)
        threading.Timer(0.3, client.reasoner.gate.set).start()
    thread.join()
    assert answers[0][0] == 200


def test_routes_and_models(client):
    assert client.json("/v1/route", {"query": "the dogs"}) == (200, {"task": "segmentation", "warning": None})
    assert client.json("/v1/route", {"query": "edit"})[1]["task"] is None
    status, models = client.json("/v1/models")
    assert (status, models["saves_corrections"]) == (200, True)


def test_clicks_become_masks_and_a_picture_is_encoded_once(client):
    data = png(noise(90, 70, seed=8))
    before = len(client.segmenter.images)
    status, found = client.form("/v1/segment", data, boxes="[[1, 2, 30.4, 40]]", points="[[5, 6]]")
    assert status == 200
    assert found["instances"][0]["box"] == [1, 2, 30, 40]
    assert decode_mask(found["instances"][0]["mask"]).sum() == 29 * 38
    body = {"image_id": found["image_id"], "boxes": [[0, 0, 5, 5], [5, 5, 9, 9]], "points": [None, [6, 6]]}
    assert len(client.json("/v1/segment", body)[1]["instances"]) == 2
    assert len(client.segmenter.images) == before + 1
    status, message = error_of(client.json("/v1/segment", body | {"boxes": [[0, 0, 500, 5]], "points": None}))
    assert (status, "inside the image" in message) == (400, True)


# --- what cannot be used ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("image", "status", "words"),
    [
        (png()[:300], 422, "damaged or cut off"),
        (bomb(), 422, "more pixels than"),
        (png(Image.new("1", (1100, 1000))), 422, "1,100,000 pixels, more than 1,000,000"),
        (b"", 422, "empty"),
        (b"GIF89a nonsense", 422, "damaged"),
        (b"%PDF-1.7 " + bytes(500), 422, "no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "no picture that can be read"),
        (None, 422, "there is none"),
        (bytes(250_000), 413, "more than 200,000 bytes"),
    ],
)
def test_bad_uploads_are_refused_in_words(client, image, status, words):
    found = error_of(client.form("/v1/predict", image, **FORM))
    assert (found[0], words in found[1]) == (status, True), found
    assert client.json("/healthz")[1]["status"] == "ok"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"query": ""}, "query"),
        ({"query": "x" * 5000}, "query"),
        ({"query": "dogs", "task": "dance"}, "task"),
        ({"query": "dogs", "image_id": "../../etc/passwd"}, "image_id"),
        ({"query": "dogs", "url": "http://localhost/"}, "url"),
        ({"query": "edit"}, "it asks for editing"),
        ({}, "query"),
    ],
)
def test_bad_fields_are_refused_in_words(client, fields, words):
    status, message = error_of(client.form("/v1/predict", png(), **fields))
    assert (status, words in message) == (422, True), message


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"[1]", "application/json", 422),
        (b'{"image": "%%%", "query": "x"}', "application/json", 422),
        (b'{"image": 7, "query": "x"}', "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"x=1", "application/x-www-form-urlencoded", 415),
        (b"x", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=y", 400),
    ],
)
def test_bad_bodies_are_refused(client, body, kind, status):
    found, _, content = client.ask("/v1/predict", body, {"Content-Type": kind})
    assert found == status, content
    assert "error" in json.loads(content)


def test_a_body_that_grows_too_large_is_cut_off(client):
    with socket.create_connection(("localhost", client.port), timeout=60) as raw:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = b""
        try:
            for _ in range(100):
                raw.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            answer = raw.recv(100)
        except OSError:  # closed while there was still more
            answer = answer or raw.recv(100)
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_slow_sender_is_not_waited_for():
    with serving(upload_seconds=0.3) as client, socket.create_connection(("localhost", client.port), timeout=60) as raw:
        raw.sendall(
            b"POST /v1/route HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_a_sender_that_goes_leaves_one_line_in_the_log(caplog):
    caplog.set_level(logging.INFO)
    body, kind = form_of(png(), **FORM)
    with serving() as client:
        connection = client.connect()
        connection.putrequest("POST", "/v1/predict")
        connection.putheader("Content-Type", kind["Content-Type"])
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:-50])
        connection.close()
        wait_until(lambda: "/v1/predict" in caplog.text)
        assert client.json("/healthz")[0] == 200
    [line] = [json.loads(record.message) for record in caplog.records if "/v1/predict" in record.message]
    assert line["status"] == 499
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- who may ask ------------------------------------------------------------------------------------------------------
def test_foreign_names_and_pages_of_other_origins_are_refused(client):
    for headers in (
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "["},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://["},
        {"Origin": "null"},
    ):
        body, kind = form_of(png(), **FORM)
        status, sent, content = client.ask("/v1/predict", body, kind | headers)
        assert (status, json.loads(content)["error"]["type"]) == (403, "Forbidden")
        assert "Access-Control-Allow-Origin" not in sent
    own = {"Origin": f"http://localhost:{client.port}"}
    assert client.ask("/v1/predict", *(form_of(png(), **FORM)[0], form_of(png())[1] | own))[0] in (200, 400)
    assert client.ask("/healthz", headers=own)[0] == 200


def test_with_a_key_only_the_page_and_the_probes_are_open():
    with serving(api_key="größe") as client:
        for path in ("/", "/page.js", "/healthz", "/readyz", "/docs"):
            assert client.ask(path)[0] == 200, path
        right = "Bearer größe".encode().decode("latin-1")
        for path in ("/v1/models", "/metrics", "/v1/anything", "//v1/models"):
            assert client.ask(path)[0] == 401, path
            assert client.ask(path, headers={"Authorization": "Bearer grosse"})[0] == 401, path
        assert client.ask("/v1/models", headers={"Authorization": right})[0] == 200


def test_answers_say_how_a_browser_is_to_treat_them(client):
    _, headers, _ = client.ask("/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"])
    assert client.ask("/", headers={"X-Request-Id": "mine-1"})[1]["X-Request-Id"] == "mine-1"
    assert client.ask("/", headers={"X-Request-Id": "a b"})[1]["X-Request-Id"] != "a b"


@pytest.mark.parametrize("asked", [False, True])
def test_the_log_has_queries_only_where_that_was_asked_for(asked, caplog):
    caplog.set_level(logging.INFO, "vision_reasoner.serving")
    with serving(log_queries=asked) as client:
        client.form("/v1/predict", png(), **FORM)
        wait_until(lambda: "/v1/predict" in caplog.text)
    [line] = [record.message for record in caplog.records if "/v1/predict" in record.message]
    entry = json.loads(line)
    assert (entry["status"], entry["task"], entry["count"]) == (200, "segmentation", 2)
    assert ("the dogs" in caplog.text) is asked


def test_figures_count_requests_by_path_and_do_not_grow_with_made_up_ones(client):
    client.ask("/nowhere/1")
    client.ask("/nowhere/2")
    text = client.ask("/metrics")[2].decode()
    assert 'vision_reasoner_requests_total{path="other",status="404"}' in text
    assert "nowhere" not in text
    assert "vision_reasoner_batch_size_count" in text
    assert "vision_reasoner_requests_waiting 0.0" in text


def test_a_model_that_cannot_be_loaded_is_said_and_ends_the_server():
    def broken():
        raise CheckpointError("pretrained_models/x: incomplete; download it again")

    model = VisionReasoner()
    model._loaders["reasoner"] = broken
    ended = threading.Event()
    service = Service(model, Limits(), on_failure=ended.set)
    service.start()
    assert ended.wait(60)
    assert service.state() == {"model": "failed", "message": "pretrained_models/x: incomplete; download it again"}
    service.close()


# --- the reference ----------------------------------------------------------------------------------------------------
def test_the_reference_has_every_address_and_nothing_from_elsewhere(client):
    page = client.ask("/docs")[2].decode()
    description = client.json("/openapi.json")[1]
    for path in ("/v1/predict", "/v1/segment", "/v1/route", "/v1/models", "/healthz", "/readyz", "/metrics"):
        assert path in description["paths"]
        assert path in page
    assert "<script" not in page
    assert set(re.findall(r"https?://[^/\s]+", page)) <= {"http://localhost:8000"}
    example = description["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    image = {"image": base64.b64encode(png()).decode()}
    assert client.json("/v1/predict", example | image)[0] == 200
    shown = description["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    told = client.json("/v1/predict", example | image)[1]
    assert {name for name, value in told.items() if value is not None} == set(shown)


def test_the_page_needs_nothing_from_elsewhere():
    folder = Path(__file__).resolve().parents[2] / "vision_reasoner/serving/page"
    for file in folder.iterdir():
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.\w", file.read_text()), file
    html = (folder / "page.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src)", html)


# --- results ----------------------------------------------------------------------------------------------------------
def corrected(client, **changes):
    found = client.form("/v1/predict", png(), **FORM)[1]
    objects = [{k: o[k] for k in ("box", "point", "mask", "label")} for o in found["instances"]]
    objects[0]["label"] = "Hund"
    body = {"image_id": found["image_id"], "query": "the dogs", "task": "segmentation", "objects": objects}
    return body | changes


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_can_be_taken_away_as_anything(client, kind):
    body = json.dumps(corrected(client) | {"format": kind}).encode()
    status, headers, content = client.ask("/v1/export", body, {"Content-Type": "application/json"})
    assert status == 200, content
    assert headers["Content-Disposition"].startswith('attachment; filename="the-dogs')
    if kind == "picture":
        assert Image.open(io.BytesIO(content)).width > SIZE[0]
    elif kind == "json":
        assert Prediction.from_json(json.loads(content)).instances[0].label == "Hund"
    else:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        assert all(not Path(name).is_absolute() and ".." not in name for name in names)
        assert (names == ["1.png", "2.png"]) if kind == "masks" else names[0].startswith(f"{kind}/")
        assert kind not in FORMATS or len(names) >= 2


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"format": "pascal"}, 400),
        ({"format": "coco", "task": "vqa", "answer": "x"}, 400),
        ({"format": "coco", "objects": [{"box": [5, 5, 5, 9]}]}, 400),
        ({"format": "coco", "objects": [{"box": [0, 0, 500, 9]}]}, 400),
        ({"format": "coco", "objects": [{"box": [0, 0, 9, 9], "mask": {"size": [80, 120], "counts": "??"}}]}, 422),
        ({"format": "coco", "objects": [{"box": [0, 0, 9, 9], "mask": {"size": [8, 12], "counts": "P3"}}]}, 400),
        ({"format": "coco", "objects": [{"box": [0, 0, "a", 9]}]}, 422),
        ({"format": "coco", "objects": [{"box": [0, 0, 9, 9], "more": 1}]}, 422),
        ({"format": "coco", "image_id": "1" * 64}, 404),
        ({"format": "masks", "objects": []}, 400),
    ],
)
def test_what_cannot_be_taken_away_is_said(client, changes, status):
    found = client.json("/v1/export", corrected(client, **changes))
    assert found[0] == status, found
    assert found[1]["error"]["message"]


def test_corrections_are_truth_for_evaluation_rows_for_training_and_can_be_exported(client, tmp_path, monkeypatch):
    body = corrected(client)
    folder = client.service.corrections.folder
    assert client.json("/v1/corrections", body)[0] == 200
    del body["objects"][1]
    status, saved = client.json("/v1/corrections", body)  # the same again: replaced
    assert (status, saved) == (200, {"saved": 1, "file": "corrections/segmentation.jsonl"})
    assert client.json("/v1/corrections", corrected(client, query="cats", objects=[]))[1]["saved"] == 2

    source = open_source(folder / "segmentation.jsonl")
    rows = [source.row(i) for i in range(source.n)]
    assert [row["text"] for row in rows] == ["the dogs", "cats"]
    assert [decode_mask(row["mask"]).sum() for row in rows] == [48 * 32, 0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(rows[0]["image"]["bytes"]))), np.asarray(noise(*SIZE)))

    monkeypatch.chdir(tmp_path)
    command = [
        "corrections",
        "--data",
        str(folder / "segmentation.jsonl"),
        "--frame_side",
        "280",
        "--output_dir",
        "rows",
    ]
    assert prepare([*command, "--no_target_share", "0.5"]) == 0
    trained = {row["problem"]: json.loads(row["solution"]) for row in load_rows("rows")}
    assert trained.keys() == {"the dogs", "cats"}
    assert trained["cats"] == []
    assert trained["the dogs"][0]["bbox_2d"] == pytest.approx([28, 28, 139, 139], abs=2)


@pytest.mark.parametrize("changes", [{"task": "vqa", "objects": []}, {"objects": [{"box": [0, 0, 9, 9]}]}])
def test_what_is_no_truth_is_not_saved(client, changes):
    assert client.json("/v1/corrections", corrected(client, **changes))[0] == 400


def test_a_count_that_is_stated_alone_is_exported_and_not_saved_as_nothing_there(client):
    body = corrected(client, task="counting", objects=[], answer="5")
    found = client.json("/v1/export", body | {"format": "json"})[1]
    assert (found["count"], found["status"]) == (5, "ok")
    status, message = error_of(client.json("/v1/corrections", body))
    assert status == 400
    assert "a count without objects" in message


def test_a_server_without_a_project_saves_nothing():
    with serving() as client:
        status, message = error_of(client.json("/v1/corrections", corrected(client)))
        assert (status, "saves no corrections" in message) == (403, True)
        assert client.json("/v1/models")[1]["saves_corrections"] is False
