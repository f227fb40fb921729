"""What video-service reads from its environment and its ``.env``."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from shared.settings import MIB, Megabytes, Seconds, ServiceSettings, Url


def _without_mp4(url: str) -> str:
    if ".mp4" in url:
        raise ValueError("must not contain .mp4: the page finds a thumbnail by replacing the first one in a media URL")
    return url


class Settings(ServiceSettings):
    service: ClassVar[str] = "video-service"

    port: Annotated[int, Field(ge=0, le=65535)] = 3002
    http2: bool = False
    user_service_url: Url = "http://127.0.0.1:3001"
    storage_service_url: Url = "http://127.0.0.1:3003"
    usage_service_url: Url = "http://127.0.0.1:3004"
    logging_service_url: Url = "http://127.0.0.1:3005"
    storage_public_url: Annotated[Url, AfterValidator(_without_mp4)] = "http://localhost:3003"
    media_url_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 21_600
    max_upload_mb: Megabytes = 50
    upload_idle_seconds: Seconds = 30
    renew_seconds: Seconds = 60
    sweep_seconds: Seconds = 5

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * MIB)
