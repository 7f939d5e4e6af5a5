"""The queue: together, fair, bounded, each failing for itself."""

import asyncio
import threading

import pytest

from tests.support.service import wait_until
from vision_reasoner.serving.batching import Batcher, FullError


class Work:
    """Doubles numbers; a text raises. Holds while the gate is shut."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.stops = []

    def __call__(self, requests, watch):
        self.batches.append(list(requests))
        self.stops.append(watch.stop)
        while not self.gate.wait(0.005):
            if watch.stopped:
                break
        for i, request in enumerate(requests):
            watch.on_text(i, f"{request}…")
        return [2 * int(request) for request in requests]


@pytest.fixture
def work():
    return Work()


def batcher_of(work, size=4, **options):
    batcher = Batcher("test", work, size=size, **options)
    batcher.start()
    return batcher


async def until(holds):
    await asyncio.to_thread(wait_until, holds)


def test_what_comes_while_the_model_is_busy_is_answered_together(work):
    async def run():
        batcher = batcher_of(work)
        first = batcher.submit(0, "a")
        await until(lambda: work.batches)
        others = [batcher.submit(i, "a") for i in range(1, 7)]
        work.gate.set()
        assert [await job.result() for job in (first, *others)] == [0, 2, 4, 6, 8, 10, 12]
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_clients_take_turns(work):
    async def run():
        batcher = batcher_of(work, size=2)
        jobs = [batcher.submit(0, "busy")]
        await until(lambda: work.batches)
        jobs += [batcher.submit(i, "busy") for i in range(1, 5)] + [batcher.submit(9, "other")]
        work.gate.set()
        for job in jobs:
            await job.result()
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())
    assert work.batches == [[0], [1, 9], [2, 3], [4]]


def test_of_a_batch_that_fails_only_the_culprit_fails(work):
    async def run():
        batcher = batcher_of(work)
        work.gate.set()
        jobs = [batcher.submit(request, "a") for request in (1, "x", 3)]
        assert await jobs[0].result() == 2
        with pytest.raises(ValueError, match="invalid literal"):
            await jobs[1].result()
        assert await jobs[2].result() == 6
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())


def test_a_batch_that_fails_is_tried_in_halves_without_those_that_are_canceled(work):
    gate, batches = threading.Event(), []

    def held(requests, watch):
        batches.append(list(requests))
        if requests == [1, 2]:
            gate.wait(60)
        return work(requests, watch)

    async def run():
        batcher = batcher_of(held, size=4)
        jobs = [batcher.submit(request, "a") for request in (1, 2, "x", 4)]
        await until(lambda: len(batches) == 2)
        batcher.cancel(jobs[3])
        gate.set()
        assert [await job.result() for job in jobs[:2]] == [2, 4]
        with pytest.raises(ValueError, match="invalid literal"):
            await jobs[2].result()
        await asyncio.to_thread(batcher.close)

    work.gate.set()
    asyncio.run(run())
    assert batches == [[1, 2, "x", 4], [1, 2], ["x"]]


def test_there_is_room_for_so_many_and_no_more(work):
    async def run():
        batcher = batcher_of(work, size=1, max_waiting=2)
        batcher.submit(0, "a")
        await until(lambda: work.batches)
        batcher.submit(1, "a")
        batcher.submit(2, "b")
        with pytest.raises(FullError) as full:
            batcher.submit(3, "c")
        assert full.value.seconds >= 1
        work.gate.set()
        await until(lambda: not batcher.waiting)
        assert await batcher.submit(4, "c").result() == 8
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())


def test_costs_are_bounded_and_given_back(work):
    async def run():
        batcher = batcher_of(work, size=1, max_cost=10)
        first = batcher.submit(0, "a", cost=50)  # alone it may be as large as it likes
        with pytest.raises(FullError):
            batcher.submit(1, "a", cost=1)
        work.gate.set()
        await first.result()
        await until(lambda: batcher._cost == 0)
        assert await batcher.submit(2, "a", cost=10).result() == 4
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())


def test_a_canceled_request_that_waits_is_never_worked_on(work):
    async def run():
        batcher = batcher_of(work, size=1)
        first, second = batcher.submit(0, "a"), batcher.submit(1, "a")
        await until(lambda: work.batches)
        batcher.cancel(second)
        assert batcher.waiting == 0
        work.gate.set()
        await first.result()
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())
    assert work.batches == [[0]]


def test_a_batch_is_stopped_when_nobody_waits_for_any_of_it(work):
    async def run():
        batcher = batcher_of(work, size=2)
        jobs = [batcher.submit(0, "a"), batcher.submit(1, "b")]
        await until(lambda: work.batches)
        batcher.cancel(jobs[0])
        assert not work.stops[0].is_set()
        batcher.cancel(jobs[1])
        assert work.stops[0].is_set()
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())


def test_closing_finishes_what_runs_and_turns_away_what_waits(work):
    async def run():
        batcher = batcher_of(work, size=1)
        running, waiting = batcher.submit(3, "a"), batcher.submit(4, "a")
        await until(lambda: work.batches)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await until(lambda: batcher._closed)
        work.gate.set()
        assert await running.result() == 6
        with pytest.raises(FullError):
            await waiting.result()
        with pytest.raises(FullError):
            batcher.submit(5, "a")
        await closing

    asyncio.run(run())


def test_texts_are_told_while_they_are_written(work):
    async def run():
        batcher = batcher_of(work)
        work.gate.set()
        job = batcher.submit(7, "a")
        await job.result()
        assert job.text == "7…"
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())
