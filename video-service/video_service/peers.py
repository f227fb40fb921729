"""What video-service asks the others: one small class per peer, its methods named after the domain."""

import uuid
from collections.abc import AsyncIterator, Sequence

from shared.contracts import (
    Chunk,
    Deletions,
    Filenames,
    Grant,
    Reservation,
    SentVideo,
    StoredVideo,
    UploadDone,
    UploadGrant,
    UploadLock,
    UploadTarget,
)
from shared.http import Peer
from video_service.target import Targets

# An inspection may have to wait for others, and takes up to 15 s; in a bucket each range is a call.
FINISH_SECONDS = 60.0


class Users:
    """user-service, which lets each user upload one video at a time."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def lock_upload(self, user_id: uuid.UUID, upload_id: str) -> None:
        """Take or renew the lock; raises ``PeerRefused`` (409) while another upload has it."""
        await self._peer.call("PUT", f"/internal/users/{user_id}/upload-lock", UploadLock(holder=upload_id))

    async def unlock_upload(self, user_id: uuid.UUID, upload_id: str) -> None:
        await self._peer.call("DELETE", f"/internal/users/{user_id}/upload-lock/{upload_id}")


class Storage:
    """storage-service, which has the bytes and the storage quota; they go to it, or to its bucket, by ``targets``."""

    def __init__(self, peer: Peer, targets: Targets) -> None:
        self._peer = peer
        self._targets = targets

    async def reserve(self, upload_id: str, reservation: Reservation) -> UploadGrant:
        """The bytes granted and a target for them; raises ``PeerRefused`` (413) if the least does not fit. Repeated, it
        renews.
        """
        return await self._peer.ask("POST", f"/internal/reservations/{upload_id}", UploadGrant, reservation)

    async def send(self, target: UploadTarget, chunks: AsyncIterator[Chunk]) -> SentVideo:
        return await self._targets.send(target, chunks)

    async def finish(self, upload_id: str, sent: SentVideo) -> StoredVideo:
        """Have what was sent checked, inspected and stored; raises ``PeerRefused`` (415) if it is not a video."""
        path = f"/internal/objects/{upload_id}/finish"
        return await self._peer.ask("POST", path, StoredVideo, sent, seconds=FINISH_SECONDS)

    async def keep(self, filenames: Sequence[str]) -> None:
        await self._peer.call("POST", "/internal/keep", Filenames(filenames=list(filenames)))

    async def answers(self) -> None:
        """Raise ``Unavailable`` unless there is somebody to play from."""
        await self._peer.call("GET", "/internal/health")

    async def delete(self, filenames: Sequence[str]) -> None:
        """Remove objects, or release reservations; it is the same to storage-service."""
        await self._peer.call("POST", "/internal/delete", Filenames(filenames=list(filenames)))


class Usage:
    """usage-service, which has the daily limit."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def reserve(self, upload_id: str, reservation: Reservation) -> Grant:
        """Raises ``PeerRefused`` (429) if the least does not fit. Repeated, it renews."""
        return await self._peer.ask("POST", f"/internal/reservations/{upload_id}", Grant, reservation)

    async def release(self, upload_id: str) -> None:
        await self._peer.call("DELETE", f"/internal/reservations/{upload_id}")

    async def upload_done(self, upload_id: str, done: UploadDone) -> None:
        await self._peer.call("PUT", f"/internal/uploads/{upload_id}", done)

    async def deletions(self, deletions: Deletions) -> None:
        await self._peer.call("POST", "/internal/deletions", deletions)
