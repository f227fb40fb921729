"""What usage-service reads from its environment and its ``.env``."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.settings import MIB, Megabytes, Seconds, ServiceSettings, Url


class Settings(ServiceSettings):
    service: ClassVar[str] = "usage-service"

    port: Annotated[int, Field(ge=0, le=65535)] = 3004
    logging_service_url: Url = "http://127.0.0.1:3005"
    daily_bandwidth_mb: Megabytes = 100
    reservation_seconds: Seconds = 300
    sweep_seconds: Seconds = 60

    @property
    def daily_limit(self) -> int:
        """In bytes."""
        return int(self.daily_bandwidth_mb * MIB)
