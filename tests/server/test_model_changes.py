"""Changes of models whose callers give up, that are given up, or that are too many."""

import asyncio

import pytest
from attendant_server.errors import QueueFull, Unavailable
from attendant_server.model_changes import MAX_CHANGES, ModelChanges


def test_a_change_goes_on_when_its_caller_gives_up():
    async def scenario() -> None:
        changes, may_end, ends = ModelChanges(), asyncio.Event(), []

        async def change() -> None:
            await may_end.wait()
            ends.append(True)

        caller = asyncio.ensure_future(changes.carried_out(change))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_end.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ends

    asyncio.run(scenario())


def test_the_caller_of_a_change_that_is_given_up_is_told_and_not_cancelled():
    async def scenario() -> None:
        changes = ModelChanges()
        caller = asyncio.ensure_future(changes.carried_out(asyncio.Event().wait))
        await asyncio.sleep(0)
        changes.give_up()
        with pytest.raises(Unavailable, match="the engine has died, or the server is stopping"):
            await caller

    asyncio.run(scenario())


def test_changes_beyond_the_limit_are_refused_until_others_end():
    async def scenario() -> None:
        changes, may_end = ModelChanges(), asyncio.Event()
        callers = [
            asyncio.ensure_future(changes.carried_out(may_end.wait)) for _ in range(MAX_CHANGES)
        ]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="32 changes of the models are waiting"):
            await changes.carried_out(may_end.wait)
        may_end.set()
        await asyncio.gather(*callers)
        assert await changes.carried_out(may_end.wait)

    asyncio.run(scenario())
