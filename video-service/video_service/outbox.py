"""The outbox: what video-service owes the others, written in the transaction that caused it, sent until it is taken.

It is tried at once, so that the answer to the page comes when everything it promises can be read; what a peer does
not take then is tried again by the sweeper, with longer and longer pauses. Receivers take a repetition without a
second effect.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from pydantic import BaseModel

from shared.clock import Clock, utc_now
from shared.contracts import Deletion, Deletions, Filenames, UploadDone
from shared.errors import ServiceError, Unavailable
from video_service.store import Owed, Store

log = logging.getLogger(__name__)

# Longer than all tries of one call to a peer, so that nobody sends what is just being sent.
LEASE = timedelta(seconds=60)
LONGEST_PAUSE = timedelta(minutes=5)
BATCH = 100


class Storage(Protocol):
    async def keep(self, filenames: Sequence[str]) -> None: ...
    async def delete(self, filenames: Sequence[str]) -> None: ...


class Usage(Protocol):
    async def upload_done(self, upload_id: str, done: UploadDone) -> None: ...
    async def deletions(self, deletions: Deletions) -> None: ...


class _UploadDone(BaseModel):
    upload_id: str
    done: UploadDone


def for_upload(filename: str, user_id: uuid.UUID, size: int, at: datetime) -> list[Owed]:
    """What a new video owes: storage keeps the object, usage counts its bytes."""
    done = _UploadDone(upload_id=filename, done=UploadDone(user_id=user_id, size=size, at=at))
    return [
        Owed("keep", Filenames(filenames=[filename]).model_dump_json()),
        Owed("upload_done", done.model_dump_json()),
    ]


def for_deletion(filenames: Sequence[str], user_id: uuid.UUID, at: datetime) -> list[Owed]:
    """What deleting videos of one user owes: storage removes the objects, usage counts the deletions."""
    deletions = [Deletion(id=filename, user_id=user_id, at=at) for filename in filenames]
    return [
        Owed("delete", Filenames(filenames=list(filenames)).model_dump_json()),
        Owed("deletions", Deletions(deletions=deletions).model_dump_json()),
    ]


class Outbox:
    def __init__(self, store: Store, storage: Storage, usage: Usage, clock: Clock = utc_now) -> None:
        self._store = store
        self._storage = storage
        self._usage = usage
        self._clock = clock

    def lease(self) -> datetime:
        """Until when what is sent now belongs to the sender."""
        return self._clock() + LEASE

    async def send(self, owed: Sequence[Owed]) -> int:
        """Try each once; how many were taken. Never fails: what is not taken stays."""
        return sum(await asyncio.gather(*(self._send(one) for one in owed)))

    async def sweep(self) -> int:
        """Send everything that is due; how many were taken."""
        taken = 0
        while due := await self._store.claim_owed(self._clock(), self.lease(), BATCH):
            taken += await self.send(due)
        return taken

    async def _send(self, owed: Owed) -> bool:
        try:
            await self._call(owed)
        except ServiceError as error:
            if not isinstance(error, Unavailable):
                log.error("%s was refused and will be tried again: %s", owed.kind, error.message)
            await self._postpone(owed)
            return False
        try:
            await self._store.paid(owed)
        except Unavailable:
            return False  # it will be sent once more, without a second effect
        return True

    async def _call(self, owed: Owed) -> None:
        match owed.kind:
            case "keep":
                await self._storage.keep(Filenames.model_validate_json(owed.body).filenames)
            case "delete":
                await self._storage.delete(Filenames.model_validate_json(owed.body).filenames)
            case "upload_done":
                body = _UploadDone.model_validate_json(owed.body)
                await self._usage.upload_done(body.upload_id, body.done)
            case "deletions":
                await self._usage.deletions(Deletions.model_validate_json(owed.body))

    async def _postpone(self, owed: Owed) -> None:
        pause = min(timedelta(seconds=2 ** min(owed.attempts, 20)), LONGEST_PAUSE)
        try:
            await self._store.postpone(owed, self._clock() + pause)
        except Unavailable:
            log.warning("an outbox entry stays leased until its lease is over")
