"""What a run's files hold, as types: manifest.json, the lines of samples.jsonl, metrics.json.

All values are plain: they are written as JSON and read back. `records` reads and writes the files.
"""

from typing import Any, NotRequired, Required, TypedDict

from vision_reasoner.masks import RunLengths
from vision_reasoner.models.checkpoints import Part

Truth = dict[str, Any]
"""What scoring needs of a row; its keys are the suite's."""


# --- samples.jsonl ----------------------------------------------------------------------------------------------------
class InstanceRecord(TypedDict):
    """An object that was found; `box` (x1, y1, x2, y2) and `point` (x, y) are pixels of the image."""

    box: list[int]
    point: list[int] | None
    mask: RunLengths | None
    score: float | None
    likelihood: float | None
    votes: NotRequired[list[int]]
    presence: NotRequired[float]
    confidence: NotRequired[float | None]
    """These where there were several looks, or the model was asked back."""


class Record(TypedDict, total=False):
    """A sample that is done. Below `error` nothing is there where that is not None."""

    index: Required[int]
    """The row's number."""
    id: Required[str]
    """Unique in the run."""
    image_id: Required[str]
    """The same for all samples of one image."""
    query: Required[str]
    task: Required[str]
    size: Required[list[int]]
    """[width, height] of the image."""
    columns: dict[str, Any]
    """The row's short values, by the data set's names."""
    error: Required[str | None]
    """Why there is no answer, in one line; the sample is then in no figure."""
    status: str
    warnings: list[str]
    thinking: str
    reply: str
    answer: str | None
    instances: list[InstanceRecord]
    timings: dict[str, float]
    """Seconds by stage."""
    truth: Truth
    truth_digest: str
    scores: dict[str, float]
    """What the original repository measured, instead of scores of ours."""


# --- manifest.json ----------------------------------------------------------------------------------------------------
class Data(TypedDict):
    """Which data set."""

    name: str
    split: str
    fingerprint: str
    rows: int
    columns: dict[str, str]
    annotations: str | None
    """SHA-256 of the instances file."""


class Checkpoint(TypedDict):
    """One part's weights; of those that a server runs nothing is known but what it calls them.

    Where replies were made elsewhere, `replies` is the digest of their files.
    """

    name: str
    digest: NotRequired[str]
    served_as: NotRequired[str]
    replies: NotRequired[str]


class Settings(TypedDict):
    """What decides the model's numbers, with "auto" resolved; what a server decides is called "server" here.

    Where replies were made elsewhere it is what decides how they are read.
    """

    compat: str
    engine: NotRequired[str]
    """"server" or "vllm" where one runs the reasoner, otherwise nothing."""
    frame_side: NotRequired[int]
    vqa_frame_side: NotRequired[int | None]
    """The frames in which a server is sent images."""
    device: NotRequired[str]
    dtype: NotRequired[str]
    attn_implementation: NotRequired[str]
    compile: NotRequired[str]
    quantize: NotRequired[str]
    max_new_tokens: NotRequired[int]
    max_objects: int
    max_image_pixels: NotRequired[int]
    views: NotRequired[dict[str, Any]]
    """Looks, tiles, how they are merged, and the calibration's digest, where an image is looked at more than once."""
    id_column: NotRequired[str]
    """Of the data set, by which replies that were made elsewhere are found."""


class Places(TypedDict):
    """Where things lie on this machine."""

    data: str
    config: str | None
    annotations: NotRequired[str | None]
    reasoner: NotRequired[str]
    """A folder, or a server's address."""
    segmenter: NotRequired[str]


class Shard(TypedDict):
    """Which part of a run: of its batches of `batch_size` the `number`-th (from 1), and every `of`-th after it."""

    number: int
    of: int
    batch_size: int


class Manifest(TypedDict):
    """What a run is of. A folder is continued when all of it but `places` and `batch_sizes` is the same."""

    suite: str
    n: int
    """How many of the samples, from the first."""
    data: Data
    checkpoint: dict[Part, Checkpoint]
    model: str
    """How the reasoner is asked: a name of `prompts.DIALECTS`."""
    prompt: str
    """Digest of its prompts and the suite's instruction."""
    settings: Settings
    versions: dict[str, str]
    batch_sizes: NotRequired[list[int]]
    """How many samples went through the model together; several where a run was continued with another size."""
    suite_file: NotRequired[str]
    """SHA-256 of the suite's file, where it is none of ours."""
    submission: NotRequired[bool]
    """True where the truth is not known, and the answers are for a test server."""
    shard: NotRequired[Shard]
    """Where it is not a whole run."""
    places: Places


# --- metrics.json -----------------------------------------------------------------------------------------------------
class Metric(TypedDict):
    """A figure of a run with its 95 % interval; None stands for "there is none"."""

    name: str
    protocol: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    """How many it is of,"""
    n_of: NotRequired[str]
    """and of what: samples, replies, boxes, images."""
    unit: str
    """"fraction" or what it counts."""
    label: str | None
    """What the original repository prints it as, where that is another name."""
    published: NotRequired[dict[str, float] | None]
    """By model."""


class Group(TypedDict):
    """The samples with one value of a column, and their figures."""

    value: str
    n: int
    errors: int
    figures: list[Metric]


class Grouped(TypedDict):
    """A column of the data set, and the groups of its values."""

    column: str
    groups: list[Group]


class Metrics(TypedDict):
    """All figures of a run."""

    suite: str
    data: Data
    checkpoint: dict[Part, Checkpoint]
    model: str
    n: int
    compat: str
    errors: int
    status: dict[str, int]
    """How many replies of each status."""
    interval: str
    figures: list[Metric]
    notes: NotRequired[list[str]]
    """What a reader of the figures should know."""
    by: NotRequired[list[Grouped]]
    """Of parts of the samples, where asked for."""
