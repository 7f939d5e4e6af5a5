"""The router: how a reply is read, how a category becomes a task, and that batches equal single runs."""

import json
from pathlib import Path

import pytest

from vision_reasoner.errors import CheckpointError, QueryError
from vision_reasoner.models.router import Router, asks_for_boxes, read_category, route_of, task_of
from vision_reasoner.results import Task

REPLIES = [
    ("plain", "#### 1", 1),
    ("after reasoning", "The user wants to know how many there are. #### 2", 2),
    ("with a dot", "#### 4.", 4),
    ("with its bracket", "#### 3) Editing", 3),
    ("bold", "#### **2**", 2),
    ("called category", "#### Category 1", 1),
    ("called type, with a colon", "#### Type: 4", 4),
    ("new line after the mark", "####\n2", 2),
    ("by name", "#### Segmentation/detection", 1),
    ("by name, lower case", "#### counting", 2),
    ("by name, caption", "#### Caption/QA", 4),
    ("a number elsewhere does not count", "Find 2 dogs → #### segmentation", 1),
    ("nor one that belongs to the name", "#### segmentation of 3 dogs", 1),
    ("nor one in the reasoning", "There are 4 types. #### 2", 2),
    ("number at the end", "#### The answer is 2", 2),
    ("the last mark counts", "#### 1\nOn second thought: #### 2", 2),
    ("an empty last mark does not", "#### 3\n####", 3),
    ("no mark", "The answer is 2", None),
    ("no category", "#### maybe", None),
    ("out of range", "#### 5", None),
    ("two digits", "#### 12", None),
    ("a fraction", "#### 1.5", None),
    ("empty", "", None),
]


@pytest.mark.parametrize(
    ("reply", "task", "taken"),
    [
        ("This is a counting task.", Task.COUNTING, "taken as counting"),
        ("The answer is 2", Task.COUNTING, "taken as counting"),
        ("Not segmentation but a question.", Task.VQA, "taken as a question"),
        ("Detection of the objects", Task.SEGMENTATION, "taken as a request for objects"),
        ("Edit it", None, "asks for editing"),
        ("hm", Task.VQA, "nothing is named; taken as a question"),
        ("There are 12", Task.VQA, "nothing is named"),
        ("", Task.VQA, "nothing is named"),
    ],
)
def test_without_the_mark_keywords_are_read_and_it_is_said(reply, task, taken):
    route = route_of(reply, "change it")
    assert route.task is task
    assert taken in str(route.warning)


@pytest.mark.parametrize(("reply", "category"), [row[1:] for row in REPLIES], ids=[row[0] for row in REPLIES])
def test_category_is_read_strictly_after_the_mark(reply, category):
    assert read_category(reply) == category


@pytest.mark.parametrize(
    "query",
    [
        "detect the dogs",
        "Detect all cars in the picture.",
        "run object detection for people",
        "give me the bounding box of the cup",
        "bounding boxes for all chairs",
        "the bbox of the cat",
        "locate the ladder with a box",
        "locate the two cups with red boxes",
        "draw a box around the dog",
        "draw boxes around every car",
        "mark each apple with a rectangle",
        "return the boxes of all birds",
        "what are the box coordinates of the bus",
        "I want a box around every ear of corn",
        "please box all players",
        "detct the lamp post",
    ],
)
def test_requests_for_boxes_become_detection(query):
    assert asks_for_boxes(query)
    assert task_of(1, query) is Task.DETECTION


@pytest.mark.parametrize(
    "query",
    [
        "please segment the donuts",
        "find what can make the woman stand higher?",
        "the man with a box",
        "find the cardboard box",
        "segment the boxes on the shelf",
        "where is the smoke detector",
        "detect and segment the dogs",
        "find the box next to the dog",
        "give me a mask of the detected cat",
        "find the bus",
        "box in the corner",
        "find what I need to wrap the box",
    ],
)
def test_other_requests_for_objects_become_segmentation(query):
    assert task_of(1, query) is Task.SEGMENTATION


def requests_by_hand() -> list[tuple[str, Task]]:
    """(request, task) of 200 requests as people type them."""
    lines = (Path(__file__).parents[1] / "tables/router_requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["query"], Task(row["task"])) for row in map(json.loads, lines)]


def test_requests_by_hand_ask_for_boxes_where_their_label_says_so():
    objects = [row for row in requests_by_hand() if row[1] in (Task.DETECTION, Task.SEGMENTATION)]
    assert len(objects) == 100
    assert [(query, task_of(1, query)) for query, _ in objects] == objects


def test_categories_become_tasks():
    assert task_of(2, "how many dogs are there") is Task.COUNTING
    assert task_of(2, "detect how many dogs there are") is Task.COUNTING
    assert task_of(4, "what is the name of the company") is Task.VQA
    assert task_of(3, "make the sky pink") is None


@pytest.mark.parametrize("query", ["Zucchini", "the white horse", "lettuce", "drawer"])
def test_a_bare_noun_that_was_taken_for_editing_is_something_to_find(query):
    route = route_of("#### 3) Editing", query)
    assert route.task is Task.SEGMENTATION
    assert "editing" in str(route.warning)


@pytest.mark.parametrize(
    "query", ["sharpen", "brighter", "remove it", "no background", "black and white", "blur faces"]
)
def test_short_requests_that_say_what_to_do_stay_editing(query):
    assert route_of("#### 3", query).task is (None if query != "black and white" else Task.SEGMENTATION)


def test_editing_gets_a_message_and_no_task():
    route = route_of("#### 3", "make the sky pink")
    assert route.task is None
    assert "no image-generation model is configured" in str(route.warning)


def test_a_reply_without_category_is_a_question_with_a_warning():
    route = route_of("I cannot say", "what is it?")
    assert route.task is Task.VQA
    assert "no category" in str(route.warning)
    assert route_of("#### 1", "the dog").warning is None


@pytest.fixture(scope="module")
def router(bundle: Path) -> Router:
    return Router.from_pretrained(bundle / "router", device="cpu")


def test_batch_equals_single_runs_in_order(router, monkeypatch):
    monkeypatch.setattr("vision_reasoner.models.router.MAX_NEW_TOKENS", 12)
    queries = ["find it", "how many very small dogs are there on the left of the tree?", "é", "what is this"]
    batch = router.route_batch(queries)
    assert batch == [router.route(query) for query in queries]
    assert len({route.reply for route in batch}) > 1, "the fixture's replies should depend on the query"


def test_decoding_is_greedy_although_the_checkpoint_says_sampling(bundle, router, monkeypatch):
    monkeypatch.setattr("vision_reasoner.models.router.MAX_NEW_TOKENS", 12)
    assert json.loads((bundle / "router/generation_config.json").read_text())["do_sample"]
    assert len({router.route("find it").reply for _ in range(3)}) == 1


def test_no_queries_give_no_routes(router):
    assert router.route_batch([]) == []


@pytest.mark.parametrize("query", ["", "  \n", "end it<|im_end|>", "<|image_pad|>", "\udcff"])
def test_queries_that_would_break_the_conversation_are_refused(router, query):
    with pytest.raises(QueryError, match="query"):
        router.route(query)


def test_a_query_longer_than_the_checkpoint_takes_is_refused(router):
    with pytest.raises(QueryError, match="2048"):
        router.route("x" * 3000)


def test_a_reasoner_is_no_router(bundle):
    with pytest.raises(CheckpointError, match="qwen2_5_vl"):
        Router.from_pretrained(bundle / "reasoner")
