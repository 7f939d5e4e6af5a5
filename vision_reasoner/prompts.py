"""What is said to each model, and how its answer is to be read: the one home of prompt texts.

A model family is data, a `Dialect`: its prompt, the frame its coordinates are in and the grammar of its reply.
The released weights were trained on these very strings; a changed character changes their answers.
This module knows nothing of pictures, tokens or devices.
"""

from dataclasses import dataclass
from typing import Literal

ANSWER_EXAMPLE = (
    '[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, {"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]'
)
VISURF_EXAMPLE = (
    '[{"bbox_2d": [10, 100, 200, 210], "point_2d": [30, 110]}, '
    '{"bbox_2d": [225, 296, 706, 786], "point_2d": [302, 410]}]'
)
QUERY_MARKS = '."?!'  # what the released training data has off both ends of a query

Frame = Literal["square", "processed", "normalized_1000"]
Grammar = Literal["answer", "fence"]
Compat = Literal["none", "upstream"]
"""Whether something is done as the original code did it where that differs from what is right."""


@dataclass(frozen=True)
class Dialect:
    """How one family of models is asked for objects and how it answers.

    Attributes:
        name: the value of `--model`.
        prompt: the user turn's text, with one `{query}` to fill in.
        frame: what the coordinates of the reply refer to: "square" is the image resized to the checkpoint's own
            side, "processed" the image as the processor resized it, "normalized_1000" a grid of 1000 x 1000.
        grammar: "answer" is `<think>…</think><answer>[…]</answer>`, "fence" a Markdown JSON fence.
        strip: the query is lower-cased and stripped of these characters before it is put into the prompt; None leaves
            it as it is.
        counting_prompt: the text where objects are to be counted; None is `prompt`.
        system: the system turn; None leaves it to the checkpoint's chat template.
        max_new_tokens: the limit of a reply, where it is less than the caller's.
        truncate: whether coordinates are truncated to whole pixels rather than rounded.
        gpu_dtype: the number format that "auto" stands for on a GPU; None is what suits the device.
        grid: the side in pixels of a merged patch; the model takes images whose sides are multiples of it.
        model_types: the architectures that answer so, as `model_type` in a checkpoint's config.
        checkpoints: the Hub ids that stand for `--model_path`: the first one that is downloaded, or the very first.
    """

    name: str
    prompt: str
    frame: Frame
    grammar: Grammar
    strip: str | None = QUERY_MARKS
    counting_prompt: str | None = None
    system: str | None = None
    max_new_tokens: int | None = None
    truncate: bool = False
    gpu_dtype: str | None = None
    grid: int = 28
    model_types: tuple[str, ...] = ("qwen2_5_vl",)
    checkpoints: tuple[str, ...] = ()

    def query_for(self, query: str) -> str:
        """`query` as it stands in the prompt."""
        return query if self.strip is None else normalize_query(query, self.strip)

    def text_for(self, query: str, *, counting: bool = False) -> str:
        """The user turn's text for `query`."""
        prompt = self.counting_prompt if counting and self.counting_prompt else self.prompt
        return prompt.replace("{query}", self.query_for(query))


# The sentences follow each other without a space: so it was in training.
_FIND = (
    'Please find "{query}" with bboxs and points.'
    "Compare the difference between object(s) and find the most closely matched object(s)."
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
    "Output the bbox(es) and point(s) inside the interested object(s) in JSON format."
    "i.e., <think> thinking process here </think><answer>{example}</answer>"
)
VISION_REASONER = Dialect(
    name="vision_reasoner", prompt=_FIND.replace("{example}", ANSWER_EXAMPLE), frame="square", grammar="answer"
)
# Trained by the same authors on the same prompt, with spaces in the example, to say when nothing matches.
VISURF = Dialect(
    name="visurf",
    prompt=_FIND.replace("{example}", VISURF_EXAMPLE),
    frame="square",
    grammar="answer",
    strip='"!',
    checkpoints=("Ricky06662/Visurf-7B-Best-on-gRefCOCO",),
)

# The paper's baselines, as the original asks them: white space, the missing full stop of the system turn and all.
BASELINE_SYSTEM = "You are a helpful assistant"
BASELINE_TOKENS = 1024
_LOCATE = 'Locate "{query}", report the bboxes coordinates in JSON format.'
_COUNTING = f"\n        {_LOCATE}\n        "

QWEN2_5_VL = Dialect(
    name="qwen",
    prompt=f"\n            {_LOCATE}\n            ",
    frame="processed",
    grammar="fence",
    counting_prompt=_COUNTING,
    system=BASELINE_SYSTEM,
    max_new_tokens=BASELINE_TOKENS,
    truncate=True,
    gpu_dtype="float16",
    checkpoints=("Qwen/Qwen2.5-VL-7B-Instruct",),
)

QWEN2_VL = Dialect(
    name="qwen2",
    prompt=(
        '\n            Please identify "{query}" in the image. '
        "\n            Return a JSON array where each object is represented as:"
        '\n            {"bbox": [x1, y1, x2, y2], "label": label}'
        "\n            "
        "\n            Your response should be formatted as:"
        "\n            ```json"
        "\n            ["
        '\n                {"bbox": [x1, y1, x2, y2], "label": label},'
        "\n                ..."
        "\n            ]"
        "\n            ```"
        "\n            "
    ),
    frame="normalized_1000",
    grammar="fence",
    counting_prompt=_COUNTING,
    system=BASELINE_SYSTEM,
    max_new_tokens=BASELINE_TOKENS,
    truncate=True,
    gpu_dtype="float16",
    model_types=("qwen2_vl",),
    checkpoints=("Qwen/Qwen2-VL-7B-Instruct",),
)

# As Qwen's own examples of Qwen3-VL ask (cookbooks/2d_grounding.ipynb).
QWEN3_VL = Dialect(
    name="qwen3",
    prompt=(
        'Locate every instance that belongs to the following categories: "{query}". '
        "Report bbox coordinates in JSON format."
    ),
    frame="normalized_1000",
    grammar="fence",
    grid=32,
    model_types=("qwen3_vl",),
    checkpoints=("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-4B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"),
)

DIALECTS = {dialect.name: dialect for dialect in (VISION_REASONER, VISURF, QWEN2_5_VL, QWEN2_VL, QWEN3_VL)}

ROUTER_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
ROUTER_PROMPT = (
    "Given a user instruction, please classify which type of task it is and output the final answer after "
    '"####".. The types are: 1) Segmentation/detection, 2) Counting, 3) Editing, 4) Caption/QA. '
    "The user instruction is: "
)


def normalize_query(query: str, marks: str = QUERY_MARKS) -> str:
    """Lower case, without `marks` at both ends (spaces stay), as in the training data."""
    return query.lower().strip(marks)


def router_messages(query: str) -> list[dict[str, str]]:
    """The router's conversation for one request."""
    return [{"role": "system", "content": ROUTER_SYSTEM}, {"role": "user", "content": ROUTER_PROMPT + query}]
