"""What logging-service gives; what it takes is in ``shared.contracts``."""

import uuid

from pydantic import AwareDatetime, BaseModel


class Message(BaseModel):
    message: str


class LogOut(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    action_type: str
    service_name: str
    description: str
    created_at: AwareDatetime


class LogPage(BaseModel):
    """``total`` counts all the logs there are to page through."""

    logs: list[LogOut]
    total: int
