"""What storage-service asks the others."""

from shared.contracts import StreamedBatch, VideoState
from shared.http import Peer


class Catalogue:
    """video-service, which knows the videos."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def has(self, filename: str) -> bool:
        """Whether a live video has this file; after a no it never will. Raises ``Unavailable``."""
        return (await self._peer.ask("POST", f"/internal/videos/{filename}/settle", VideoState)).exists


class Usage:
    """usage-service, which counts what people watch."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def streamed(self, batch: StreamedBatch) -> None:
        await self._peer.call("POST", "/internal/streamed", batch)
