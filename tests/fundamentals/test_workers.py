"""Workers: they hold no state, so you can start any number of them, and kill them."""

from tests.fundamentals.loom import Loom, refusal


async def test_two_workers_share_one_stream(loom: Loom) -> None:
    """Any worker may process any event, since the deltas of a text meet in Redis, not in a worker."""
    deltas = refusal(*["No. "] * 10_000)  # more than it will take
    published = 0
    async with loom.worker_processes(2) as (one, other):
        while not (one.has_logged("batch committed") and other.has_logged("batch committed")):
            await loom.publish(deltas[published])
            published += 1
        *_, done = refusal(*["No. "] * published)
        await loom.publish(done)
        await loom.all_is_processed()

    (text,) = await loom.texts()
    assert text.text == "No. " * published
    assert text.integrity == "verified"


async def test_a_killed_worker_loses_nothing_and_doubles_nothing(loom: Loom) -> None:
    """The next worker processes the events that a killed one had read but not yet processed."""
    deltas = refusal(*["No. "] * 10_000)  # more than it will take
    published = 0
    async with loom.worker_processes(1) as (worker,):
        while not await loom.freeze_in_mid_work(worker):
            await loom.publish(deltas[published])
            published += 1
        await worker.kill()

    *_, done = refusal(*["No. "] * published)
    async with loom.worker():
        await loom.publish(done)
        await loom.all_is_processed()

    (text,) = await loom.texts()
    assert text.text == "No. " * published
    assert (text.integrity, text.delta_count, text.duplicate_count) == ("verified", published, 0)
    opened, finished = await loom.alerts()
    assert (opened.type, finished.type) == ("deltaloom.refusal.opened", "deltaloom.refusal.finished")
