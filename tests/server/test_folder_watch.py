"""Looks at the folder of the bundles."""

import asyncio
from pathlib import Path

from attendant_server.folder_watch import watch_folder


def test_a_folder_that_could_not_be_looked_at_is_looked_at_again(tmp_path: Path):
    async def scenario() -> int:
        looks, has_looked = [], asyncio.Event()

        async def look() -> bool:
            looks.append(True)
            if len(looks) == 3:
                has_looked.set()
            return has_looked.is_set()

        watch = asyncio.ensure_future(watch_folder(tmp_path, 0.001, look))
        await has_looked.wait()
        watch.cancel()
        return len(looks)

    assert asyncio.run(scenario()) == 3
