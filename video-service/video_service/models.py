"""What video-service gives."""

import uuid

from pydantic import AwareDatetime, BaseModel
from pydantic_core import to_json

from shared.media_url import MediaUrls
from shared.settings import MIB
from video_service.store import Page, Video


class VideoOut(BaseModel):
    """`filepath` is an absolute URL that a bare `<video>` can fetch; with `.jpg` for `.mp4` it is the thumbnail's.

    `size_mb` is in MB of 1,048,576 bytes, `duration` in seconds.
    """

    id: uuid.UUID
    user_id: uuid.UUID
    filename: str
    filepath: str
    title: str
    uploaded_at: AwareDatetime
    deleted_at: AwareDatetime | None
    size_mb: float
    duration: float | None
    width: int
    height: int

    @classmethod
    def of(cls, video: Video, urls: MediaUrls, viewer: uuid.UUID) -> "VideoOut":
        return cls(
            id=video.id,
            user_id=video.user_id,
            filename=video.filename,
            filepath=urls.mint(video.filename, viewer),
            title=video.title,
            uploaded_at=video.uploaded_at,
            deleted_at=video.deleted_at,
            size_mb=video.size / MIB,
            duration=video.duration,
            width=video.width,
            height=video.height,
        )


class VideoPage(BaseModel):
    """``total`` counts all the videos there are to page through; ``next`` is null at the end of the list."""

    videos: list[VideoOut]
    total: int
    next: str | None

    @staticmethod
    def written(page: Page, urls: MediaUrls, viewer: uuid.UUID) -> bytes:
        """The JSON of a page, as the model would write it, without a model for each row."""
        mint = urls.minter(viewer)
        videos = [
            {
                "id": video.id,
                "user_id": video.user_id,
                "filename": video.filename,
                "filepath": mint(video.filename),
                "title": video.title,
                "uploaded_at": video.uploaded_at.replace(".000000", ""),
                "deleted_at": None,
                "size_mb": video.size_mb,
                "duration": video.duration,
                "width": video.width,
                "height": video.height,
            }
            for video in page.videos
        ]
        next_page = page.next and page.next.encoded()
        return to_json({"videos": videos, "total": page.total, "next": next_page}, inf_nan_mode="null")


class Uploaded(BaseModel):
    message: str
    file: VideoOut


class VideoUrl(BaseModel):
    url: str


class DeletedAll(BaseModel):
    message: str
    deleted: int
