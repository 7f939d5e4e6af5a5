"""Random generators from text, so that every use of randomness has a stream of its own."""

from random import Random


def seeded(*parts: object) -> Random:
    """A generator seeded by the parts joined as text, for example `seeded("vision", seed, step)`.

    Named streams do not overlap as sums of seeds and steps do, and reordering a table changes none of them. The same
    parts give the same numbers in every process and Python version (`random.seed`, version 2, hashes text by SHA-512).
    """
    return Random(" ".join(str(part) for part in parts))
