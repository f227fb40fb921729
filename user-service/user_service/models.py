"""What user-service takes and gives."""

import uuid
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, field_validator

from shared.auth import Role
from shared.contracts import Text
from user_service.service import MAX_EMAIL, MAX_PASSWORD, MIN_PASSWORD, valid_email, valid_password

MAX_USERNAME = 100


class Registration(BaseModel):
    email: Annotated[str, Field(max_length=MAX_EMAIL), AfterValidator(valid_email)]
    password: Annotated[
        str,
        AfterValidator(valid_password),
        Field(json_schema_extra={"minLength": MIN_PASSWORD, "maxLength": MAX_PASSWORD}),
    ]
    username: Annotated[Text | None, Field(json_schema_extra={"maxLength": MAX_USERNAME})] = None

    @field_validator("username")
    @classmethod
    def _fits(cls, value: str | None) -> str | None:
        value = (value or "").strip()
        if len(value) > MAX_USERNAME:
            raise ValueError(f"must have at most {MAX_USERNAME} characters")
        return value or None


class Login(BaseModel):
    email: str
    password: str


class LoggedIn(BaseModel):
    message: str
    token: str


class UserOut(BaseModel):
    id: uuid.UUID
    email: str
    username: str
    created_at: AwareDatetime
    role: Role


class UserAnswer(BaseModel):
    user: UserOut
