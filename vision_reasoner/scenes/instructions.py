"""Instructions in a wide grammar: the router's examples beyond the scenes' own requests, as somebody may type them.

The rules and words are in `wordings`. In the place of a noun, an adjective or a verb a made-up word may stand, so
that a sentence's build decides and not the words it happens to hold. This module knows nothing of tokens or models.
"""

import re
from collections.abc import Sequence
from random import Random

from vision_reasoner.models.router import COUNTING, EDITING, OBJECTS, QUESTION
from vision_reasoner.scenes import wordings as phrases
from vision_reasoner.scenes.classes import CLASSES

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
    """What stands between the "|" that are in no brackets."""
    found, depth = [""], 0
    for character in line:
        depth += (character in "([") - (character in ")]")
        if character == "|" and not depth:
            found.append("")
        else:
            found[-1] += character
    return found


def _rules(text: str) -> dict[str, list[str]]:
    """The ways to say each rule, by its name."""
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

DEEPEST = 3  # phrases within phrases; below that the simplest will do
SIMPLEST = {
    "np": "the {thing}", "obj": "the {thing}", "nps": "the {things}", "which": "{thing}", "after": "{place}",
    "clause": "it is {adj}", "is_phrase": "is {adj}", "deed_phrase": "{verb} it", "doing": "{act}",
}  # fmt: skip
MADE = ("thing", "things", "adj", "verbs", "name")  # slots that `Writer` fills by rules of its own
_SLOT = re.compile(r"\{(\w+)\}")
_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sc sh sk sl sn sp st str t th tr".split()
)
_VOWELS = "a e i o u a e i o u ai ea ee oo ou y".split()
_CODAS = " b ck d ff g l ll m n nd ng nk nt p r rd rk rn s sh sk ss st t th x z".split(" ")


def made_up_word(rng: Random) -> str:
    """A word that no language has, of one to three syllables."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < 0.6 else "")
        for _ in range(rng.choice((1, 2, 2, 2, 3, 3)))
    )


class Writer:
    """Writes instructions of one category; `invented` is the share of made-up words among nouns."""

    def __init__(self, rng: Random, category: int, invented: float = 0.15) -> None:
        self.rng = rng
        self.rules = PHRASES | REQUESTS[category]
        self.invented = invented
        self.depth = 0

    def instruction(self) -> str:
        """One instruction, in lower case and without an end mark."""
        text = self.expand(self.rng.choice(self.rules[""]))
        if self.rng.random() < 0.06:
            text = f"{self._fill('context')} {text}"
        text = re.sub(r"\s+([,.;:?!])", r"\1", " ".join(text.split()))
        return re.sub(r"\ba(?= (?!one\b|uni|use|eu)[aeiou])", "an", text)

    def expand(self, text: str) -> str:
        """Choose among a rule's alternatives, then fill its slots."""
        while match := _CHOICE.search(text):
            among, maybe = match.groups()
            chosen = self.rng.choice(among.split("|")) if maybe is None else self._maybe(maybe)
            text = text[: match.start()] + chosen + text[match.end() :]
        return _SLOT.sub(lambda match: self._fill(match[1]), text)

    def _maybe(self, text: str) -> str:
        return self.rng.choice(text.split("|")) if self.rng.random() < 0.5 else ""

    def _fill(self, name: str) -> str:
        if name in ("thing", "things"):
            return self._noun(name == "things")
        if name == "adj":
            return self._adjective()
        if name in self.rules:
            if self.depth >= DEEPEST and name in SIMPLEST:
                return self.expand(SIMPLEST[name])
            self.depth += 1
            text = self.expand(self.rng.choice(self.rules[name]))
            self.depth -= 1
            return text
        if name == "name":
            return made_up_word(self.rng) if self.rng.random() < 0.4 else self.rng.choice(NAMES)
        if name == "verbs":
            return _third_person(self.rng.choice(LISTS["verb"]))
        if name in ("act", "deed") and self.rng.random() < self.invented / 3:
            return made_up_word(self.rng) + "ing"
        return self.rng.choice(LISTS[name])

    def _noun(self, plural: bool) -> str:
        chance = self.rng.random()
        if chance < self.invented:
            word = made_up_word(self.rng)
            return _plural(word) if plural else word
        table = PEOPLE if chance > 0.85 else ANIMALS if chance > 0.72 else THINGS
        noun = self.rng.choice(table)[plural]
        if chance < self.invented + 0.04:  # a compound of two: "car door", "coffee shop"
            noun = f"{self.rng.choice(NOUNS)[0]} {noun}"
        return noun

    def _adjective(self) -> str:
        chance = self.rng.random()
        if chance < self.invented / 2:
            return made_up_word(self.rng)
        if chance > 0.7:
            return self.rng.choice(LISTS["color"])
        return self.rng.choice(LISTS["adjective"])


# --- as people type --------------------------------------------------------------------------------------------------
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


def roughen(text: str, category: int, rng: Random) -> str:
    """The instruction with an end mark, capitals, slips and abbreviations, each now and then."""
    words = text.split(" ")
    if rng.random() < 0.06:  # small words left out
        words = [w for w in words if w not in _SMALL or rng.random() < 0.4] or words
    if len(words) > 4 and rng.random() < 0.03:  # any word lost
        words.pop(rng.randrange(1, len(words)))
    if len(words) > 4 and rng.random() < 0.04:  # a word that nobody knows
        words[rng.randrange(1, len(words))] = made_up_word(rng)
    if rng.random() < 0.12:
        for _ in range(rng.choice((1, 1, 2))):
            i = rng.randrange(len(words))
            words[i] = _slip(words[i], rng)
    text = " ".join(words)
    if rng.random() < 0.04:
        for long, short in _SHORT.items():
            text = re.sub(rf"\b{long}\b", short, text)
    if rng.random() < 0.25:
        text = text.replace("'", rng.choice(("", "’")))
    text = re.sub(r"\bi\b", "I", text) if rng.random() < 0.6 else text
    chance = rng.random()
    if chance < 0.5:
        text = re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    elif chance < 0.53:
        text = text.upper()
    elif chance < 0.56:
        text = text.title()
    end = rng.choice(_ENDS[category])
    if category != QUESTION and _ASKED.match(text) and rng.random() < 0.6:
        end = "?"
    return text if text[-1] in ".?!" else text + end


def _slip(word: str, rng: Random) -> str:
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
    """One instruction of the category (one of CATEGORIES), as somebody may type it."""
    return roughen(Writer(rng, category).instruction(), category, rng)
