"""storage-service without HTTP, over a real ledger and a real folder; and a look at both that needs neither."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from unit.dying import Fate, Mortal
from unit.storage.fakes import ANN, LIMIT, RESERVATION, Audit, Catalogue, Clock, Inspector, film, pieces, sent

from shared.contracts import StoredVideo
from shared.disk import Disk
from storage_service.blobs.capability import UploadUrls
from storage_service.blobs.local import LocalBlobs
from storage_service.config import Settings
from storage_service.service import StorageService
from storage_service.store.sqlite import SqliteStore

T = TypeVar("T")
SETTINGS = Settings(_env_file=None, jwt_secret="what these suites sign with, and nothing else does")  # type: ignore[call-arg]


class MortalDisk(Disk):
    """Each thing that is done on the disk is one step."""

    fate = Fate()

    async def run(self, work: Callable[[], T], **more: Any) -> T:
        return await self.fate.step(lambda: Disk.run(self, work, **more))

    async def write(self, *given: Any) -> None:
        await self.fate.step(lambda: Disk.write(self, *given))


@dataclass
class House:
    """One life of storage-service; what outlives it is the folder, the clock and the catalogue."""

    path: Path
    clock: Clock = field(default_factory=Clock)
    catalogue: Catalogue = field(default_factory=Catalogue)
    inspector: Inspector = field(default_factory=Inspector)
    audit: Audit = field(default_factory=Audit)

    @asynccontextmanager
    async def open(self, fate: Fate | None = None) -> AsyncIterator[StorageService]:
        fate = fate or Fate()
        async with SqliteStore.open(self.path / "storage.db") as store:
            blobs = LocalBlobs(self.path, UploadUrls(SETTINGS))
            await blobs.make_folders()
            blobs.disk = MortalDisk(self.path)
            blobs.disk.fate = fate
            self.store, self.blobs = store, blobs
            yield StorageService(
                Mortal(store, fate),
                blobs,
                Mortal(self.inspector, fate),
                Mortal(self.catalogue, fate),
                self.audit,
                max_bytes=LIMIT,
                reservation_seconds=RESERVATION.total_seconds(),
                clock=self.clock,
            )

    def states(self) -> dict[str, str]:
        return dict(self._rows("SELECT filename, state FROM storage_objects"))

    def ledger(self) -> tuple[int, int]:
        """Bytes kept and reserved, of everybody."""
        ((kept, reserved),) = self._rows(
            "SELECT coalesce(sum(kept), 0), coalesce(sum(reserved), 0) FROM storage_ledger"
        )
        return kept, reserved

    def files(self, folder: str) -> set[str]:
        return {path.name for path in (self.path / folder).rglob("*") if path.is_file()}

    def no_file_without_a_row(self) -> bool:
        return {name.split(".")[0] for name in self.files("objects") | self.files("incoming")} <= self.states().keys()

    def holds_exactly(self, *filenames: str) -> bool:
        """These are kept, with both files each; there is no other file, and the ledger is exact."""
        kept = self._rows("SELECT filename, size FROM storage_objects WHERE state = 'kept'")
        others = self._rows("SELECT count(*) FROM storage_objects WHERE state IN ('reserved', 'stored')")
        wanted = {name + suffix for name in filenames for suffix in (".video", ".jpg")}
        return (
            {name for name, _ in kept} == set(filenames)
            and others == [(0,)]
            and self.files("objects") == wanted
            and self.files("incoming") == set()
            and self.ledger() == (sum(size for _, size in kept), 0)
        )

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path / "storage.db")) as connection:
            return connection.execute(query).fetchall()


async def stored(storage: StorageService, filename: str, size: int, *, reserved: int = 0) -> StoredVideo:
    """Reserved (``size`` bytes unless told), arrived, inspected and stored, not committed."""
    await storage.reserve(filename, ANN, reserved or size, reserved or size)
    return await received(storage, filename, film(size))


async def received(
    storage: StorageService, filename: str, content: bytes, chunks: AsyncIterator[bytes] | None = None
) -> StoredVideo:
    """What video-service does with a reservation: it sends ``content`` to the target, and has it finished."""
    blobs = storage._blobs
    assert isinstance(blobs, LocalBlobs)
    async with blobs.writer(filename) as writer:
        async for chunk in chunks or pieces(content):
            blobs.check_current(filename, writer)
            await writer.write(chunk)
    return await storage.finish(filename, sent(content))
