"""Generators from text: every stream is its own, and the same wherever it is drawn."""

from vision_reasoner.seeds import seeded


def test_the_parts_decide_the_stream() -> None:
    assert seeded("vision", 1, 23).random() == seeded("vision", 1, 23).random() == 0.7892025786203558
    streams = {seeded(*parts).random() for parts in (("a", 1, 23), ("a", 12, 3), ("b", 1, 23), ("a", 1), ("a",))}
    assert len(streams) == 5
