"""The models that cross a service boundary, each written once. Sizes are bytes; times carry a zone."""

import re
import uuid
from datetime import UTC, datetime
from typing import Annotated, Protocol

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_LOGS = 1000
MAX_BATCH = 500
# A piece of a body on its way: often a view of a larger one, for each copy of it costs.
Chunk = bytes | memoryview

_FILENAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")


def is_filename(text: str) -> bool:
    """Whether ``text`` can be a video's filename: it goes into URLs and paths unescaped."""
    return _FILENAME.fullmatch(text) is not None


def _printable(text: str) -> str:
    # JSON can spell both, no database can hold them, and nobody types them.
    if _UNPRINTABLE.search(text):
        raise ValueError("must not contain a NUL character or half of a character")
    return text


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # the first or the last hours there are, in another zone
        raise ValueError("must be a time that UTC has, too") from None


Filename = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
printable = AfterValidator(_printable)
Text = Annotated[str, printable]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Contract(BaseModel):
    model_config = ConfigDict(frozen=True)


# ── every service to its caller ──
class Message(Contract):
    message: str


# ── everything to logging-service ──
class Recorder(Protocol):
    """Records what a user did; never waits and never fails (see ``shared.audit``)."""

    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None: ...


class LogEntry(Contract):
    """One thing a user did. With an ``id`` it may be posted again without being written twice.

    An id that begins with the time (``shared.ids``) is written for a third of what a random one costs.
    """

    id: uuid.UUID | None = None
    user_id: uuid.UUID
    action: Annotated[Text, Field(min_length=1, max_length=64)]
    description: Annotated[Text, Field(max_length=2000)]
    service: Annotated[Text, Field(min_length=1, max_length=64)]
    created_at: Moment | None = None


class LogBatch(Contract):
    logs: Annotated[list[LogEntry], Field(min_length=1, max_length=MAX_LOGS)]


# ── video-service to user-service ──
class UploadLock(Contract):
    """``holder`` is the upload's id; the same holder may take the lock again, which renews it."""

    holder: Filename


# ── video-service to storage-service and usage-service: reservations ──
class Reservation(Contract):
    """A claim on a quota for an upload whose exact size is known only once its body has been parsed.

    Granted is the largest number of bytes in ``least`` … ``most`` that still fits; below ``least`` it is refused.
    """

    user_id: uuid.UUID
    least: Annotated[int, Field(ge=1, le=2**53)]
    most: Annotated[int, Field(ge=1, le=2**53)]

    @model_validator(mode="after")
    def _ordered(self) -> "Reservation":
        if self.least > self.most:
            raise ValueError("least must not exceed most")
        return self


class Grant(Contract):
    """``granted`` is in bytes."""

    granted: int


# ── video-service to storage-service: uploads and objects ──
class UploadTarget(Contract):
    """Where the bytes of one upload go, by Google's resumable protocol (PUT with Content-Range).

    ``url`` is absolute, or a path at storage-service. It is a secret: its holder may write. ``file`` is the absolute
    path of a file that takes the same bytes, if the caller runs on the same machine and can open it.
    https://cloud.google.com/storage/docs/performing-resumable-uploads
    """

    url: Annotated[str, Field(repr=False)]
    file: Annotated[str | None, Field(repr=False)] = None


class UploadGrant(Grant):
    target: UploadTarget


class SentVideo(Contract):
    """What was sent to a target: ``size`` in bytes, ``crc32c`` big-endian in base64, as Cloud Storage spells it."""

    size: Annotated[int, Field(ge=1, le=2**53)]
    crc32c: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{6}==$")]


class StoredVideo(Contract):
    """What inspection found in a stored object. ``duration`` is in seconds; width and height as they are displayed."""

    size: int
    content_type: str
    duration: float | None
    width: int
    height: int


class Filenames(Contract):
    filenames: Annotated[list[Filename], Field(min_length=1, max_length=MAX_BATCH)]


# ── storage-service to video-service ──
class VideoState(Contract):
    """Whether the catalogue holds a live video. Once it says no, that filename can never be added any more."""

    exists: bool


# ── video-service and storage-service to usage-service: what happened ──
class UploadDone(Contract):
    """An upload that became a video; it counts on the UTC day of ``at``, or of its reservation if there was one."""

    user_id: uuid.UUID
    size: Annotated[int, Field(ge=0, le=2**53)]
    at: Moment


class Deletion(Contract):
    id: Filename
    user_id: uuid.UUID
    at: Moment


class Deletions(Contract):
    deletions: Annotated[list[Deletion], Field(min_length=1, max_length=MAX_BATCH)]


class Streamed(Contract):
    """Bytes sent to one viewer since the last report; ``id`` makes a repeated report count once."""

    id: Filename
    user_id: uuid.UUID
    size: Annotated[int, Field(ge=0, le=2**53)]
    at: Moment


class StreamedBatch(Contract):
    streamed: Annotated[list[Streamed], Field(min_length=1, max_length=MAX_BATCH)]
