"""What logging-service reads from its environment and its ``.env``."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "logging-service"

    port: Annotated[int, Field(ge=0, le=65535)] = 3005
