"""Work in portions and in several threads, with the results as they are done."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def portioned(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last may be shorter."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], n: int) -> Iterator[Result]:
    """What `work` gives for each item, in the order in which they are done.

    Items are taken one by one, as threads become free, so that there may be very many.

    Args:
        work: called in one of the threads; the first error that it raises ends all.
        items: what to work on.
        n: how many threads; 1 is this one.
    """
    if n == 1:
        yield from map(work, items)
        return
    todo = iter(items)
    with ThreadPoolExecutor(n) as pool:
        under_way = {pool.submit(work, item) for item in islice(todo, n)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            under_way |= {pool.submit(work, item) for item in islice(todo, len(done))}
            for future in done:
                yield future.result()
