"""From a reply to a result: what the text of a reply says about an image, still without masks."""

from dataclasses import replace

from vision_reasoner.geometry import Size
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.parsing import parse_reply, split_thinking, stated_count
from vision_reasoner.prompts import Dialect
from vision_reasoner.results import Prediction, Status, Task
from vision_reasoner.settings import RunSettings


def read_reply(
    reply: Reply,
    size: Size,
    query: str,
    task: Task,
    *,
    dialect: Dialect,
    settings: RunSettings,
    stopped: bool = False,
) -> Prediction:
    """What a reply says, without masks.

    Args:
        reply: with the frame that its coordinates are in.
        size: (width, height) of the original image.
        query: what was asked.
        task: what kind of request it was.
        dialect: in whose grammar the reply is.
        settings: its `max_objects` and `compat` count here.
        stopped: whether an unfinished reply was stopped, and not cut off at the token limit.
    """
    warnings = []
    timings = {"prefill": reply.prefill_seconds, "decode": reply.decode_seconds}
    if not reply.finished and stopped:
        warnings.append(f"the reply was stopped after {reply.n_tokens} tokens")
    elif not reply.finished:
        warnings.append(f"the reply was cut off after {reply.n_tokens} tokens (--max_new_tokens)")
    if task is Task.VQA:
        thinking, answer = split_thinking(reply.text)
        status = Status.NO_ANSWER if not answer else Status.OK if reply.finished else Status.TRUNCATED
        return Prediction(size, query, task, thinking, reply.text, status, warnings, answer=answer, timings=timings)
    parsed = parse_reply(
        reply.text,
        model_size=reply.model_size,
        image_size=size,
        grammar=dialect.grammar,
        max_objects=settings.max_objects,
        compat=settings.compat,
        truncate=dialect.truncate,
    )
    stated = None
    if task is Task.COUNTING and dialect.grammar == "fence" and not parsed.instances:
        stated = stated_count(reply.text)
    if stated is not None and parsed.status is not Status.NONE:
        said = "the reply lists no objects; the count is the number that it states"
        parsed = replace(parsed, status=Status.OK, warnings=[said])
    return Prediction(
        size,
        query,
        task,
        thinking=parsed.thinking,
        reply=reply.text,
        status=parsed.status,
        warnings=warnings + parsed.warnings,
        instances=[
            replace(instance, likelihood=reply.likelihood(*span))
            for instance, span in zip(parsed.instances, parsed.spans, strict=True)
        ],
        answer=None if stated is None else str(stated),
        timings=timings,
    )
