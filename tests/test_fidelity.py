"""What the original asks and how it reads replies, for all ways of asking: released weights must see no difference."""

import pytest

from tests.conftest import noise
from vision_reasoner import VisionReasoner
from vision_reasoner.models.engine import Completion
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.prompts import DIALECTS, ROUTER_PROMPT, ROUTER_SYSTEM, VISURF, router_messages
from vision_reasoner.results import Task

EXAMPLE = '[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, {"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]'
FIND = (
    'Please find "the red dog" with bboxs and points.Compare the difference between object(s) and find the most '
    "closely matched object(s).Output the thinking process in <think> </think> and final answer in <answer> </answer> "
    "tags.Output the bbox(es) and point(s) inside the interested object(s) in JSON format.i.e., <think> thinking "
    f"process here </think><answer>{EXAMPLE}</answer>"
)
LOCATE = (
    '\n            Locate "the red dog", report the bboxes coordinates in JSON format.\n            ',
    '\n        Locate "the red dog", report the bboxes coordinates in JSON format.\n        ',
)
SPACED = EXAMPLE.replace(",", ", ").replace(",  ", ", ")
CATEGORIES = (
    'Locate every instance that belongs to the following categories: "the red dog". '
    "Report bbox coordinates in JSON format."
)
IDENTIFY = """
            Please identify "the red dog" in the image.\x20
            Return a JSON array where each object is represented as:
            {"bbox": [x1, y1, x2, y2], "label": label}
           \x20
            Your response should be formatted as:
            ```json
            [
                {"bbox": [x1, y1, x2, y2], "label": label},
                ...
            ]
            ```
            """
QUERY = "The red dog."
SIZE = (1000, 600)
ANSWER = '<think>A dog.</think><answer>[{"bbox_2d": [85,98,421,505], "point_2d": [211,303]}]</answer>'
DOGS = ('{"bbox_2d": [85, 98, 421, 505], "label": "dog"}', '{"bbox_2d": [3, 5, 99, 101], "label": "dog"}')
NONE = "<think>There is no dog.</think><answer>[]</answer>"
FENCE = f"```json\n[\n\t{DOGS[0]},\n\t{DOGS[1]}\n]\n```"
PROCESSED = (980, 588)  # what Qwen's processor makes of SIZE: multiples of 28

WAYS = [
    # model, task, text, system turn, frame, reply, (boxes, points), new tokens
    (
        *("vision_reasoner", "detection", FIND, None, (840, 840), ANSWER),
        ([(101, 70, 501, 361)], [(251, 216)]),
        2048,
    ),
    (
        *("vision_reasoner", "counting", FIND, None, (840, 840), ANSWER),
        ([(101, 70, 501, 361)], [(251, 216)]),
        2048,
    ),
    ("vision_reasoner", "vqa", QUERY, None, None, "A dog.", ([], []), 2048),
    (
        *("visurf", "counting", FIND.replace(EXAMPLE, SPACED).replace("red dog", "red dog."), None, (840, 840)),
        *(ANSWER, ([(101, 70, 501, 361)], [(251, 216)]), 2048),
    ),
    (
        *("visurf", "detection", FIND.replace(EXAMPLE, SPACED).replace("red dog", "red dog."), None, (840, 840)),
        *(NONE, ([], []), 2048),
    ),
    (
        *("qwen", "detection", LOCATE[0], "You are a helpful assistant", None, FENCE),
        ([(86, 100, 429, 515), (3, 5, 101, 103)], [None, None]),
        1024,
    ),
    (
        *("qwen", "counting", LOCATE[1], "You are a helpful assistant", None, FENCE),
        ([(86, 100, 429, 515), (3, 5, 101, 103)], [None, None]),
        1024,
    ),
    (
        *("qwen2", "detection", IDENTIFY, "You are a helpful assistant", None, FENCE.replace("bbox_2d", "bbox")),
        ([(85, 58, 421, 303), (3, 3, 99, 60)], [None, None]),
        1024,
    ),
    (
        *("qwen2", "counting", LOCATE[1], "You are a helpful assistant", None, FENCE.replace("bbox_2d", "bbox")),
        ([(85, 58, 421, 303), (3, 3, 99, 60)], [None, None]),
        1024,
    ),
    ("qwen", "vqa", QUERY, "You are a helpful assistant", None, "A dog.", ([], []), 1024),
    ("qwen2", "vqa", QUERY, "You are a helpful assistant", None, "A dog.", ([], []), 1024),
    ("qwen3", "detection", CATEGORIES, None, None, FENCE, ([(85, 59, 421, 303), (3, 3, 99, 61)], [None, None]), 2048),
    ("qwen3", "counting", CATEGORIES, None, None, FENCE, ([(85, 59, 421, 303), (3, 3, 99, 61)], [None, None]), 2048),
    ("qwen3", "vqa", QUERY, None, None, "A dog.", ([], []), 2048),
]


class Records:
    """An engine that keeps what it is asked and says one thing."""

    frame_side: int = 840
    vqa_frame_side: int | None = None

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def control_token(self, _text):
        return None

    def generate(self, prompts, *, max_new_tokens, **_):
        self.asked += [(prompt, max_new_tokens) for prompt in prompts]
        return [Completion(self.reply, True, 9, image_size=prompt.frame or PROCESSED) for prompt in prompts]


@pytest.mark.parametrize(
    ("model", "task", "text", "system", "frame", "reply", "found", "limit"),
    WAYS,
    ids=[f"{way[0]}, {way[1]}" for way in WAYS],
)
def test_the_original_s_way_of_asking_and_reading(model, task, text, system, frame, reply, found, limit):
    engine = Records(reply)
    result = VisionReasoner(Reasoner(engine, dialect=DIALECTS[model])).predict(noise(*SIZE), QUERY, task)
    ((prompt, max_new_tokens),) = engine.asked
    assert (prompt.text, prompt.system, prompt.frame, max_new_tokens) == (text, system, frame, limit)
    image_part, text_part = prompt.messages({"type": "image"})[-1]["content"]
    assert (image_part["type"], text_part["text"]) == ("image", text), "the image comes first"
    boxes, points = found
    assert [tuple(instance.box) for instance in result.instances] == boxes
    assert [instance.point and tuple(instance.point) for instance in result.instances] == points
    assert result.count == len(boxes)
    assert result.answer == ("A dog." if task == "vqa" else None)


@pytest.mark.parametrize(
    ("query", "asked"), [('"The Dog"!', "the dog"), ("Is it a Dog?", "is it a dog?"), ("A dog.!", "a dog.")]
)
def test_visurf_keeps_full_stops_and_question_marks(query, asked):
    assert f'Please find "{asked}" with' in VISURF.text_for(query)


@pytest.mark.parametrize("model", ["qwen", "qwen2", "qwen3"])
def test_other_models_are_asked_questions_about_the_image_as_it_is_also_as_upstream(model):
    engine = Records("A dog.")
    Reasoner(engine, dialect=DIALECTS[model], compat="upstream").ask([noise(*SIZE)], [QUERY], tasks=[Task.VQA])
    ((prompt, _),) = engine.asked
    assert (prompt.text, prompt.frame) == (QUERY, None)


@pytest.mark.parametrize(
    ("model", "reply", "count"),
    [
        ("qwen", "There are five dogs.", 5),
        ("qwen2", "The count is 5.", 5),
        ("qwen", "I see dogs.", 0),
        ("qwen", f"{FENCE} There are five.", 2),
        ("qwen2", "There are 0 dogs:\n```json\n[]\n```", 0),
        ("vision_reasoner", "There are five dogs.", 0),
    ],
)
def test_counting_without_boxes_takes_the_number_in_words(model, reply, count):
    result = VisionReasoner(Reasoner(Records(reply), dialect=DIALECTS[model])).predict(noise(*SIZE), "dogs", "counting")
    assert result.count == count
    assert result.usable == (count > 0 or "0" in reply)


def test_baselines_run_in_float16_on_a_gpu_and_the_others_in_what_suits_it():
    formats = {name: dialect.gpu_dtype for name, dialect in DIALECTS.items()}
    assert formats == {"vision_reasoner": None, "visurf": None, "qwen": "float16", "qwen2": "float16", "qwen3": None}


def test_the_router_is_asked_as_it_was_trained():
    system, user = router_messages("Find it.")
    assert system["content"] == "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"] == (
        "Given a user instruction, please classify which type of task it is and output the final answer after "
        '"####".. The types are: 1) Segmentation/detection, 2) Counting, 3) Editing, 4) Caption/QA. The user '
        "instruction is: Find it."
    )
    assert (system["content"], user["content"]) == (ROUTER_SYSTEM, ROUTER_PROMPT + "Find it.")
