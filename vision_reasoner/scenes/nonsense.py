"""Words that no language has, so that models learn from a sentence's structure and not from the words they know."""

from collections.abc import Callable
from random import Random

_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sc sh sk sl sn sp st str t th tr".split()
)
_VOWELS = "a e i o u a e i o u ai ea ee oo ou y".split()  # plain vowels twice as often
_CODAS = " b ck d ff g l ll m n nd ng nk nt p r rd rk rn s sh sk ss st t th x z".split(" ")
_CODA_SHARE = 0.6  # of syllables
_SYLLABLES = (1, 2, 2, 2, 3, 3)
_LETTERS = "eeettaaooiinnsshhrrddlluucmwfgypbvkjxqz"  # roughly by their frequency in English
_SHORTEST, _LONGEST = 2, 9


def pronounceable_word(rng: Random) -> str:
    """A word of one to three syllables that could be English."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < _CODA_SHARE else "")
        for _ in range(rng.choice(_SYLLABLES))
    )


def random_letters(below: Callable[[int], int]) -> str:
    """A string of 2 to 9 letters, which a tokenizer splits into short pieces.

    Args:
        below: draws a random integer from 0 up to its argument, exclusive.
    """
    length = _SHORTEST + below(_LONGEST + 1 - _SHORTEST)
    return "".join(_LETTERS[below(len(_LETTERS))] for _ in range(length))
