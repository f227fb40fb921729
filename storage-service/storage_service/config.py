"""What storage-service reads from its environment and its ``.env``."""

import json
import re
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from shared.settings import MIB, Megabytes, Seconds, ServiceSettings, Url

# Google's signed URLs may be good for a week, and one of ours lives for two windows.
LONGEST_WINDOW = 604_800 // 2


def _bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", value):
        raise ValueError("must be the name of a bucket such as my-videos, without gs://")
    return value


def _location(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9_-]+)+/", value):
        raise ValueError("must be the address of an internal location of nginx, such as /sent-by-nginx/")
    return value


class Settings(ServiceSettings):
    service: ClassVar[str] = "storage-service"

    port: Annotated[int, Field(ge=0, le=65535)] = 3003
    video_service_url: Url = "http://127.0.0.1:3002"
    usage_service_url: Url = "http://127.0.0.1:3004"
    logging_service_url: Url = "http://127.0.0.1:3005"
    max_storage_mb: Megabytes = 50
    reservation_seconds: Seconds = 300
    sweep_seconds: Seconds = 60
    streamed_report_seconds: Seconds = 5
    gcs_bucket: Annotated[str, AfterValidator(_bucket)] | None = None
    google_application_credentials: Path | None = None
    storage_emulator_host: Url | None = None
    storage_emulator_public_url: Url | None = None
    signed_url_seconds: Annotated[int, Field(ge=2, le=LONGEST_WINDOW)] = 900
    offer_upload_files: bool = False
    accel_redirect: Annotated[str, AfterValidator(_location)] | None = None

    @model_validator(mode="after")
    def _key_file(self) -> Self:
        """Others read this variable too, so it matters only with a bucket."""
        if self.gcs_bucket and self.google_application_credentials:
            try:
                key = json.loads(self.google_application_credentials.read_bytes())
            except (OSError, ValueError):
                key = None
            if not isinstance(key, dict) or key.get("type") != "service_account":
                raise ValueError("GOOGLE_APPLICATION_CREDENTIALS must be the path of a service account's key file")
        return self

    @property
    def needs_disk(self) -> bool:
        return super().needs_disk or self.gcs_bucket is None

    @property
    def max_storage_bytes(self) -> int:
        return int(self.max_storage_mb * MIB)
