"""The outbox: what video-service owes the others, written in the transaction that caused it, sent until it is taken.

It is tried at once, so that the answer to the page comes when everything it promises can be read; what a peer does
not take then is tried again by the sweeper, with longer and longer pauses. Receivers take a repetition without a
second effect.

What an upload that fails gives back has no transaction, and if we die a lease ends it; so that is written down only if
the peer does not take it, and then nobody has to wait for the lease.
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
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
BATCH = 100


class Users(Protocol):
    async def unlock_upload(self, user_id: uuid.UUID, upload_id: str) -> None: ...


class Storage(Protocol):
    async def keep(self, filenames: Sequence[str]) -> None: ...
    async def delete(self, filenames: Sequence[str]) -> None: ...


class Usage(Protocol):
    async def release(self, upload_id: str) -> None: ...
    async def upload_done(self, upload_id: str, done: UploadDone) -> None: ...
    async def deletions(self, deletions: Deletions) -> None: ...


class _UploadDone(BaseModel):
    upload_id: str
    done: UploadDone


class _Unlock(BaseModel):
    user_id: uuid.UUID
    upload_id: str


class _Release(BaseModel):
    upload_id: str


def unlock(user_id: uuid.UUID, upload_id: str) -> Owed:
    """The upload lock back to user-service."""
    return Owed("unlock", _Unlock(user_id=user_id, upload_id=upload_id).model_dump_json())


def release_storage(upload_id: str) -> Owed:
    """The reservation, or what was stored in it, back to storage-service."""
    return Owed("delete", Filenames(filenames=[upload_id]).model_dump_json())


def release_day(upload_id: str) -> Owed:
    """The reservation of the day back to usage-service."""
    return Owed("release", _Release(upload_id=upload_id).model_dump_json())


def for_upload(filename: str, user_id: uuid.UUID, size: int, at: datetime) -> list[Owed]:
    """What a new video owes: storage keeps the object, usage counts its bytes, and its owner may upload again."""
    done = _UploadDone(upload_id=filename, done=UploadDone(user_id=user_id, size=size, at=at))
    return [
        Owed("keep", Filenames(filenames=[filename]).model_dump_json()),
        Owed("upload_done", done.model_dump_json()),
        unlock(user_id, filename),
    ]


def for_deletion(filenames: Sequence[str], user_id: uuid.UUID, at: datetime) -> list[Owed]:
    """What deleting videos of one user owes: storage removes the objects, usage counts the deletions."""
    deletions = [Deletion(id=filename, user_id=user_id, at=at) for filename in filenames]
    return [
        Owed("delete", Filenames(filenames=list(filenames)).model_dump_json()),
        Owed("deletions", Deletions(deletions=deletions).model_dump_json()),
    ]


class Outbox:
    def __init__(self, store: Store, users: Users, storage: Storage, usage: Usage, clock: Clock = utc_now) -> None:
        self._store = store
        self._users = users
        self._storage = storage
        self._usage = usage
        self._clock = clock

    def lease(self) -> datetime:
        """Until when what is sent now belongs to the sender."""
        return self._clock() + LEASE

    async def send(self, owed: Sequence[Owed]) -> int:
        """Try each once; how many were taken. Never fails: what is not taken stays."""
        return sum(await asyncio.gather(*(self._send(one) for one in owed)))

    async def give_back(self, owed: Owed) -> None:
        """Send it, or write it down to be sent soon. Never fails: a lease ends it in the worst case."""
        try:
            await self._call(owed)
        except Unavailable:
            try:
                await self._store.owe([owed], self._clock() + FIRST_PAUSE)
            except Unavailable:
                log.warning("%s is left to run out", owed.kind)
        except ServiceError as error:
            log.error("%s was refused, and is left to run out: %s", owed.kind, error.message)

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
            case "release":
                await self._usage.release(_Release.model_validate_json(owed.body).upload_id)
            case "unlock":
                lock = _Unlock.model_validate_json(owed.body)
                await self._users.unlock_upload(lock.user_id, lock.upload_id)

    async def _postpone(self, owed: Owed) -> None:
        pause = min(FIRST_PAUSE * 2 ** min(owed.attempts, 20), LONGEST_PAUSE)
        try:
            await self._store.postpone(owed, self._clock() + pause)
        except Unavailable:
            log.warning("an outbox entry stays leased until its lease is over")
