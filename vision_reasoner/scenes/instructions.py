"""Instructions from a wide grammar: training examples of the router beyond the scenes' own requests, as people type.

The rules and words are in `wordings`. A nonsense word may take the place of a noun, an adjective or a verb, so that
the sentence's structure decides and not the words it happens to contain. This module does not know tokens or models.
"""

import re
from collections.abc import Sequence
from random import Random

from vision_reasoner.models.router import COUNTING, EDITING, OBJECTS, QUESTION
from vision_reasoner.scenes import wordings as phrases
from vision_reasoner.scenes.classes import CLASSES
from vision_reasoner.scenes.nonsense import pronounceable_word

_CHOICE = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
CATEGORIES = (OBJECTS, COUNTING, EDITING, QUESTION)


def _words(table: str) -> list[str]:
    return [word.replace("_", " ") for word in table.split()]


def _phrases(table: str) -> list[str]:
    return [" ".join(phrase.split()) for line in table.strip().splitlines() for phrase in line.split("|")]


def _plural(noun: str) -> str:
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def _third_person(verb: str) -> str:
    return verb + "es" if verb.endswith(("ch", "sh", "ss", "x", "go")) else _plural(verb)


def _nouns(table: str) -> list[tuple[str, str]]:
    """(singular, plural) pairs."""
    pairs = [word.partition("/") for word in _words(table)]
    return [(one, many or _plural(one)) for one, _, many in pairs]


def _alternatives(line: str) -> list[str]:
    """Split a line at each "|" outside brackets."""
    found, depth = [""], 0
    for character in line:
        depth += (character in "([") - (character in ")]")
        if character == "|" and not depth:
            found.append("")
        else:
            found[-1] += character
    return found


def _rules(text: str) -> dict[str, list[str]]:
    """The alternatives of each rule, by the rule's name."""
    rules: dict[str, list[str]] = {}
    name = ""
    for line in text.strip().splitlines():
        if line.startswith("="):
            name = line[1:].strip()
            rules[name] = []
        else:
            rules[name] += _alternatives(line)
    return rules


PEOPLE, ANIMALS, THINGS = _nouns(phrases.PEOPLE), _nouns(phrases.ANIMALS), _nouns(phrases.THINGS)
PARTS = _nouns(phrases.PARTS)
THINGS += [(c.name, c.plural) for c in CLASSES]
NOUNS = PEOPLE + ANIMALS + THINGS
NAMES = _words(phrases.NAMES)

LISTS: dict[str, Sequence[str]] = {
    "person": [one for one, _ in PEOPLE],
    "people": [many for _, many in PEOPLE],
    "part": [one for one, _ in PARTS],
    "parts": [many for _, many in PARTS],
    "stuff": _words(phrases.STUFF),
    "adjective": _words(phrases.ADJECTIVES),
    "color": _words(phrases.COLORS),
    "superlative": _words(phrases.SUPERLATIVES),
    "act": _words(phrases.ACTS),
    "deed": _words(phrases.DEEDS),
    "need": _phrases(phrases.NEEDS),
    "use": _phrases(phrases.USES),
    "place": _phrases(phrases.PLACES),
    "scene": _phrases(phrases.SCENES),
    "style": _phrases(phrases.STYLES),
    "quality": _words(phrases.QUALITIES),
    "looks": _words(phrases.LOOKS),
    "attribute": _words(phrases.ATTRIBUTES),
    "verb": phrases.VERBS.split(),
    "done": phrases.DONE.split(),
    "adverb": _words(phrases.ADVERBS),
    "preposition": _words(phrases.PREPOSITIONS),
    "number": phrases.NUMBERS,
    "ordinal": phrases.ORDINALS,
}

PHRASES = _rules(phrases.PHRASES)
REQUESTS: dict[int, dict[str, list[str]]] = {category: _rules(text) for category, text in phrases.REQUESTS.items()}

MAX_DEPTH = 3  # of nested phrases; deeper slots are filled by SIMPLEST, so that sentences end
SIMPLEST = {
    "np": "the {thing}", "obj": "the {thing}", "nps": "the {things}", "which": "{thing}", "after": "{place}",
    "clause": "it is {adj}", "is_phrase": "is {adj}", "deed_phrase": "{verb} it", "doing": "{act}",
}  # fmt: skip
COMPUTED_SLOTS = ("thing", "things", "adj", "verbs", "name")  # filled by methods of `InstructionSampler`
_SLOT = re.compile(r"\{(\w+)\}")


# Shares of random choices: varied, but most samples should stay plausible.
NONSENSE_NOUNS = 0.15  # so that unknown nouns are common; adjectives and verbs carry less and get a part of it
NONSENSE_ADJECTIVES, NONSENSE_VERBS, NONSENSE_NAMES = NONSENSE_NOUNS / 2, NONSENSE_NOUNS / 3, 0.4
CONTEXT_SHARE = 0.06  # of instructions begin with what they are for
OPTIONAL_SHARE = 0.5  # of the optional parts, in square brackets, are there
COMPOUND_SHARE = 0.04  # of nouns are two: "car door", "coffee shop"
PEOPLE_ABOVE, ANIMALS_ABOVE = 0.85, 0.72  # a uniform draw above these is a person or an animal, below it is a thing
COLORS_ABOVE = 0.7  # likewise: an adjective is a color

# How people type: each is the share of requests that have it.
DROPPED_SMALL_WORDS, SMALL_WORD_KEPT = 0.06, 0.4
DROPPED_WORD, INSERTED_NONSENSE, TYPOS, ABBREVIATIONS, APOSTROPHE_CHANGED = 0.03, 0.04, 0.12, 0.04, 0.25
MIN_WORDS_TO_CHANGE = 5  # shorter requests would lose their meaning
CAPITAL_I = 0.6
SENTENCE_CASE, UPPER_CASE, TITLE_CASE = 0.5, 0.03, 0.03  # the rest stays as it is
BARE_NOUN_SHARE = 0.12  # of requests for objects are a noun with a word or two at most: what labelers type
BARE_NONSENSE = 0.4  # of which so many are unknown, so that it is the length that decides
BARE_NOUNS = "{thing}|{thing}|{thing}|{things}|{adj} {thing}|{person}|{part}|the {thing}|a {adj} {thing}".split("|")
QUESTION_MARK = 0.6  # of requests that are worded as a question and are none


class InstructionSampler:
    """Samples instructions of one category."""

    def __init__(self, rng: Random, category: int) -> None:
        self.rng = rng
        self.rules = PHRASES | REQUESTS[category]
        self.depth = 0

    def instruction(self) -> str:
        """One instruction, in lower case and without an end mark."""
        text = self.expand(self.rng.choice(self.rules[""]))
        if self.rng.random() < CONTEXT_SHARE:
            text = f"{self._fill('context')} {text}"
        text = re.sub(r"\s+([,.;:?!])", r"\1", " ".join(text.split()))
        return re.sub(r"\ba(?= (?!one\b|uni|use|eu)[aeiou])", "an", text)

    def bare_noun(self) -> str:
        """A request for objects that only names them."""
        if self.rng.random() < BARE_NONSENSE:
            return pronounceable_word(self.rng)
        return self.expand(self.rng.choice(BARE_NOUNS))

    def expand(self, text: str) -> str:
        """Choose among a rule's alternatives, then fill its slots."""
        while match := _CHOICE.search(text):
            among, maybe = match.groups()
            chosen = self.rng.choice(among.split("|")) if maybe is None else self._maybe(maybe)
            text = text[: match.start()] + chosen + text[match.end() :]
        return _SLOT.sub(lambda match: self._fill(match[1]), text)

    def _maybe(self, text: str) -> str:
        return self.rng.choice(text.split("|")) if self.rng.random() < OPTIONAL_SHARE else ""

    def _fill(self, name: str) -> str:
        if name in ("thing", "things"):
            return self._noun(name == "things")
        if name == "adj":
            return self._adjective()
        if name in self.rules:
            if self.depth >= MAX_DEPTH and name in SIMPLEST:
                return self.expand(SIMPLEST[name])
            self.depth += 1
            text = self.expand(self.rng.choice(self.rules[name]))
            self.depth -= 1
            return text
        if name == "name":
            return pronounceable_word(self.rng) if self.rng.random() < NONSENSE_NAMES else self.rng.choice(NAMES)
        if name == "verbs":
            return _third_person(self.rng.choice(LISTS["verb"]))
        if name in ("act", "deed") and self.rng.random() < NONSENSE_VERBS:
            return pronounceable_word(self.rng) + "ing"
        return self.rng.choice(LISTS[name])

    def _noun(self, plural: bool) -> str:
        chance = self.rng.random()
        if chance < NONSENSE_NOUNS:
            word = pronounceable_word(self.rng)
            return _plural(word) if plural else word
        table = PEOPLE if chance > PEOPLE_ABOVE else ANIMALS if chance > ANIMALS_ABOVE else THINGS
        noun = self.rng.choice(table)[plural]
        if chance < NONSENSE_NOUNS + COMPOUND_SHARE:
            noun = f"{self.rng.choice(NOUNS)[0]} {noun}"
        return noun

    def _adjective(self) -> str:
        chance = self.rng.random()
        if chance < NONSENSE_ADJECTIVES:
            return pronounceable_word(self.rng)
        if chance > COLORS_ABOVE:
            return self.rng.choice(LISTS["color"])
        return self.rng.choice(LISTS["adjective"])


# --- typing noise -----------------------------------------------------------------------------------------------------
_SHORT = {"please": "pls", "you": "u", "are": "r", "what is": "whats", "i am": "im", "people": "ppl", "and": "&"}
_SMALL = {"the", "a", "an", "of", "is", "are", "there", "all", "this", "my", "to"}
_ENDS = {
    OBJECTS: ("", "", "", "", ".", ".", "?", "!", " .", "..."),
    COUNTING: ("", "", "", "?", "?", "?", "??", ".", "!"),
    EDITING: ("", "", "", "", ".", ".", ".", "!", "?"),
    QUESTION: ("", "", "", "?", "?", "?", "?", ".", " ?", "??", "!"),
}
_ASKED = re.compile(
    r"^(what|which|who|whose|where|when|why|how|is|are|does|do|did|can|could|would|will|has|have)\b", re.I
)


def add_typing_noise(text: str, category: int, rng: Random) -> str:
    """The instruction with an end mark and, now and then, other capitals, typos, lost words and abbreviations."""
    words = text.split(" ")
    if rng.random() < DROPPED_SMALL_WORDS:
        words = [w for w in words if w not in _SMALL or rng.random() < SMALL_WORD_KEPT] or words
    if len(words) >= MIN_WORDS_TO_CHANGE and rng.random() < DROPPED_WORD:
        words.pop(rng.randrange(1, len(words)))
    if len(words) >= MIN_WORDS_TO_CHANGE and rng.random() < INSERTED_NONSENSE:
        words[rng.randrange(1, len(words))] = pronounceable_word(rng)
    if rng.random() < TYPOS:
        for _ in range(rng.choice((1, 1, 2))):
            i = rng.randrange(len(words))
            words[i] = _with_typo(words[i], rng)
    text = " ".join(words)
    if rng.random() < ABBREVIATIONS:
        for long, short in _SHORT.items():
            text = re.sub(rf"\b{long}\b", short, text)
    if rng.random() < APOSTROPHE_CHANGED:
        text = text.replace("'", rng.choice(("", "’")))
    text = re.sub(r"\bi\b", "I", text) if rng.random() < CAPITAL_I else text
    chance = rng.random()
    if chance < SENTENCE_CASE:
        text = re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    elif chance < SENTENCE_CASE + UPPER_CASE:
        text = text.upper()
    elif chance < SENTENCE_CASE + UPPER_CASE + TITLE_CASE:
        text = text.title()
    end = rng.choice(_ENDS[category])
    if category != QUESTION and _ASKED.match(text) and rng.random() < QUESTION_MARK:
        end = "?"
    return text if text[-1] in ".?!" else text + end


def _with_typo(word: str, rng: Random) -> str:
    """The word with two letters swapped, one lost, one doubled or one replaced; short words stay as they are."""
    if len(word) < 4:
        return word
    i = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
            word[:i] + word[i + 1 :],
            word[:i] + word[i] + word[i:],
            word[:i] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[i + 1 :],
        )
    )


def random_instruction(category: int, rng: Random) -> str:
    """One instruction of the category (one of CATEGORIES), as a person may type it."""
    sampler = InstructionSampler(rng, category)
    bare = category == OBJECTS and rng.random() < BARE_NOUN_SHARE
    return add_typing_noise(sampler.bare_noun() if bare else sampler.instruction(), category, rng)
