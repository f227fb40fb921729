"""What storage-service reads from its environment and its ``.env``."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from shared.settings import MIB, Megabytes, Seconds, ServiceSettings, Url


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
    gcs_bucket: str | None = None

    @model_validator(mode="after")
    def _one_place_for_objects(self) -> Self:
        if self.gcs_bucket:
            raise ValueError(
                "GCS_BUCKET is set, but Google Cloud Storage is not supported yet: unset it to use a folder"
            )
        return self

    @property
    def max_storage_bytes(self) -> int:
        return int(self.max_storage_mb * MIB)
