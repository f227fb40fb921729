"""What user-service reads from its environment and its ``.env``."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.settings import Seconds, ServiceSettings, Url


class Settings(ServiceSettings):
    service: ClassVar[str] = "user-service"

    port: Annotated[int, Field(ge=0, le=65535)] = 3001
    logging_service_url: Url = "http://127.0.0.1:3005"
    token_seconds: Seconds = 3600
    upload_lock_seconds: Seconds = 300
