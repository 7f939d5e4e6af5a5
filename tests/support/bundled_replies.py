"""What an engine says to scenes of the bundled sets, as JSON: run by the Python of whatever environment has it.

python -m tests.support.bundled_replies vllm out.json
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from vision_reasoner.data.sources import open_source
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.engine import Watch
from vision_reasoner.results import Task

BUNDLED = Path(__file__).resolve().parents[2] / "pretrained_models/VisionReasoner-Tiny"
STOPPED_AFTER = 20  # characters

Scenes = tuple[list[Any], list[str], list[Task]]


def scenes(n: int = 15) -> Scenes:
    """Images, queries and tasks of the first `n` samples of each suite."""
    images, queries, tasks = [], [], []
    for name in ("segmentation", "detection", "counting", "vqa"):
        suite = SUITES[name]
        assert suite.data is not None
        samples = [Samples(suite, open_source(suite.data))[i] for i in range(n)]
        images += [sample.image for sample in samples]
        queries += [sample.query for sample in samples]
        tasks += [suite.task] * n
    return images, queries, tasks


def model_of(engine: str, **options: Any) -> VisionReasoner:
    """The bundled checkpoint, by an engine, with log-probabilities."""
    return VisionReasoner.from_pretrained(
        BUNDLED, engine=engine, device="cpu", dtype="float32", logprobs=True, **options
    )


def replies(model: VisionReasoner, asked: Scenes, watch: Watch | None = None) -> list[dict[str, Any]]:
    """The replies as plain values; `logprobs` are (end, log-probability) pairs."""
    return [
        {
            "text": reply.text,
            "model_size": list(reply.model_size),
            "finished": reply.finished,
            "n_tokens": reply.n_tokens,
            "logprobs": [list(pair) for pair in reply.logprobs],
        }
        for reply in model.ask(*asked, watch=watch)
    ]


def streamed_and_stopped(model: VisionReasoner, asked: Scenes) -> tuple[list[str], dict[str, Any]]:
    """The last text that was told of each scene; and the first scene's reply, stopped after some characters."""
    images, queries, tasks = asked
    seen: dict[int, str] = {}
    replies(model, asked, Watch(seen.__setitem__))
    stop = threading.Event()
    watch = Watch(lambda _, text: stop.set() if len(text) >= STOPPED_AFTER else None, stop)
    (stopped,) = replies(model, (images[:1], queries[:1], tasks[:1]), watch)
    return [seen[i] for i in range(len(images))], stopped


def main() -> None:
    """Ask all scenes together and a few one by one, and write what is said."""
    engine, out = sys.argv[1:]
    model = model_of(engine, batch_size=32)
    images, queries, tasks = asked = scenes()
    few = range(0, len(images), 10)
    streamed, stopped = streamed_and_stopped(model, asked)
    found = {
        "replies": replies(model, asked),
        "alone": [replies(model, ([images[i]], [queries[i]], [tasks[i]]))[0] for i in few],
        "streamed": streamed,
        "stopped": stopped,
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
