"""One house of five services for all tests of a file: everybody in it is somebody new, and plugs are put back."""

from collections.abc import AsyncIterator

import pytest_asyncio
from contract.video_storage.house import House, Person, open_house
from quickfolder import quick_folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_house() -> AsyncIterator[House]:
    with quick_folder() as folder:
        async with open_house(folder) as opened:
            yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def house(the_house: House) -> AsyncIterator[House]:
    yield the_house
    the_house.switchboard.down.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anybody(the_house: House) -> Person:
    """Somebody who does nothing that another test could notice."""
    return await the_house.person()


@pytest_asyncio.fixture(loop_scope="module")
async def ann(house: House) -> Person:
    return await house.person()


@pytest_asyncio.fixture(loop_scope="module")
async def ben(house: House) -> Person:
    return await house.person()
