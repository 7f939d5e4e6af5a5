"""Asking back whether what was found is there at all, and whether a reply contradicts itself.

A model that was not trained to say "nothing" lists objects all the same. Asked as a question about the image it often
says no, and sometimes its own thinking does. This module asks nothing itself; it makes the question and reads replies.
"""

import math
import re
from dataclasses import replace

from vision_reasoner.models.reasoner import Reply
from vision_reasoner.results import Prediction, Status

_ASKING = re.compile(
    r"^(?:(?:please|kindly|can you|could you|would you|will you|i want(?: you)? to|i am looking for|i'm looking for"
    r"|find|locate|detect|segment|highlight|mark|outline|show me|show|see|give me|point (?:out|at|to)|draw|identify"
    r"|select|pick out|count|how many|number of|where (?:is|are)|is there|are there|boxes|masks?|bounding box(?:es)?"
    r"|box|outlines?|around|all|every|each|any|of|for|the|a|an) +)+",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?: +(?:here|there|please|(?:are|is) (?:there|visible|shown|here)|(?:do|can) (?:you|we) see"
    r"|(?:in|on|of|from) (?:the|this|that|your) (?:picture|image|photo\w*|scene)))+$",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"\bthere (?:is|are|was|were) (?:no|not any|none|nothing)\b|\bthere (?:isn't|aren't) any\b|: nothing\."
    r"|\bnone of (?:them|these)\b|\bno \w+(?: \w+)? (?:is|are|can be) (?:visible|present|shown|seen|found)\b"
    r"|\b(?:does|do) not (?:contain|show|have) any\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_STATED = re.compile(rf"\b(\d{{1,3}}|{'|'.join(_NUMBERS)}) (\w+)", re.IGNORECASE)


def subject_of(query: str) -> str:
    """What a request is about: "dogs" for "please segment the dogs in this image"; else the request as it is.

    >>> subject_of("How many airplanes are there in this image?")
    'airplanes'
    """
    text = query.strip().strip('.?!"').strip()
    return _CLOSING.sub("", _ASKING.sub("", text)).strip(" ,;:") or text


def question_for(query: str) -> str:
    """The question that asks back."""
    return f"Is there any {subject_of(query)}?"


def presence_of(reply: Reply) -> float | None:
    """How probably there is such a thing, by the reply to `question_for`; None where it says neither yes nor no.

    Without log-probabilities it is 1 or 0.
    """
    found = _YES_OR_NO.search(reply.text, max(reply.text.rfind("</think>"), 0))
    if found is None:
        return None
    likelihood = reply.likelihood(*found.span())
    sure = 1.0 if likelihood is None else math.exp(likelihood)
    return sure if found[1].lower() == "yes" else 1 - sure


def contradiction(prediction: Prediction) -> str | None:
    """What the thinking says against the objects that are listed after it; None where nothing."""
    if _denies(prediction):
        return f"the thinking says that there is none, and {prediction.count} are listed"
    noun = subject_of(prediction.query).lower().split()[-1:]
    stated = [
        number.lower()
        for number, word in _STATED.findall(prediction.thinking)
        if noun and _same_noun(word.lower(), noun[0])
    ]
    if not stated:
        return None
    last = _NUMBERS.index(stated[-1]) if stated[-1] in _NUMBERS else int(stated[-1])
    return None if last == prediction.count else f"the thinking states {last}, and {prediction.count} are listed"


def _denies(prediction: Prediction) -> bool:
    """Whether the last sentence of the thinking says that there is no such thing, although objects are listed."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", prediction.thinking.strip()) if part]
    return bool(prediction.instances and sentences and _ABSENT.search(sentences[-1]))


def _same_noun(first: str, second: str) -> bool:
    """Whether two words are forms of one noun: all but an ending of up to three letters is the same."""
    letters = zip(first, second, strict=False)
    shared = next((i for i, (a, b) in enumerate(letters) if a != b), min(len(first), len(second)))
    return shared >= 3 and max(len(first), len(second)) - shared <= 3


def with_answer(prediction: Prediction, reply: Reply) -> Prediction:
    """The result with what the model said when it was asked back.

    Each object gets its `presence`. Where the model says no, or the thinking contradicts the list, a warning says so;
    where both deny that there is anything, nothing is left.
    """
    presence = presence_of(reply)
    warnings = list(prediction.warnings)
    if presence is None:
        said = reply.text.strip()[:60]
        warnings.append(f"asked back whether there is any, the model says neither yes nor no: {said!r}")
    denied = presence is not None and presence < 0.5
    if denied and prediction.instances:
        warnings.append("asked back whether there is any, the model says no")
    if (against := contradiction(prediction)) is not None:
        warnings.append(against)
    instances = [replace(instance, presence=presence) for instance in prediction.instances]
    if denied and _denies(prediction):
        return replace(prediction, instances=[], status=Status.NONE, warnings=warnings)
    return replace(prediction, instances=instances, warnings=warnings)
