"""Whether the place for objects can be written, read, given out and cleared: tried with a small object."""

import secrets
from collections.abc import Mapping
from pathlib import Path

import httpx

from shared.check import Trial
from shared.errors import Unavailable
from storage_service.blobs import Blobs, SignedUrl, open_blobs
from storage_service.blobs.local import LocalBlobs
from storage_service.config import Settings

CONTENT = b"This object tries whether objects can be kept here; it may be removed."


def trials(settings: Settings) -> Mapping[str, Trial]:
    async def trial() -> str:
        async with open_blobs(settings) as blobs:
            await blobs.ping()
            await _try(blobs)
        return f"Google Cloud Storage, bucket {settings.gcs_bucket}" if settings.gcs_bucket else "a folder"

    return {"objects": trial}


async def _try(blobs: Blobs) -> None:
    filename = f"trial-{secrets.token_hex(8)}"
    opened = await blobs.open_target(filename, len(CONTENT), None)
    try:
        await _send(blobs, filename, opened.target.url)
        arrived = await blobs.arrived(filename)
        if arrived is None or arrived.size != len(CONTENT):
            raise _failed("an object that was sent has not arrived")
        source = blobs.source(filename, len(CONTENT))
        read = source.read_bytes() if isinstance(source, Path) else await source.read(0, len(CONTENT))
        if read != CONTENT:
            raise _failed("an object that was written is read otherwise")
        await blobs.finish(filename, len(CONTENT), CONTENT)
        address = await blobs.address(filename, "video", "text/plain", "GET")
        if isinstance(address, SignedUrl):
            await _fetch(address.url)
    finally:
        await blobs.remove(filename, opened.session)


async def _send(blobs: Blobs, filename: str, url: str) -> None:
    """To a bucket as video-service sends, in one piece; a folder needs no network."""
    if isinstance(blobs, LocalBlobs):
        async with blobs.writer(filename) as writer:
            await writer.write(CONTENT)
        return
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            span = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
            answer = await client.put(url, content=CONTENT, headers={"Content-Range": span})
    except httpx.HTTPError as error:
        raise _failed(f"the bucket's upload address cannot be reached ({type(error).__name__})") from error
    if answer.status_code not in (200, 201):
        raise _failed(f"the bucket's upload address answers {answer.status_code}")


async def _fetch(url: str) -> None:
    """As a browser would, who has nothing but the URL."""
    try:
        async with httpx.AsyncClient(timeout=10) as browser:
            answer = await browser.get(url)
    except httpx.HTTPError as error:
        raise _failed(f"a signed URL cannot be fetched ({type(error).__name__})") from error
    if answer.status_code != 200 or answer.content != CONTENT:
        raise _failed(f"a signed URL answers {answer.status_code}: may the signing account read the bucket's objects?")


def _failed(reason: str) -> Unavailable:
    return Unavailable("The storage does not answer; please try again later.", reason=reason)
