"""What logging-service takes and gives; what others must know of it is in ``shared.contracts``."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring as _quoted
from operator import itemgetter
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, GetCoreSchemaHandler, StringConstraints, TypeAdapter
from pydantic_core.core_schema import CoreSchema, ValidatorFunctionWrapHandler, no_info_wrap_validator_function
from typing_extensions import TypedDict

from logging_service.store import Page, Row
from shared.contracts import MAX_LOGS, LogBatch, LogEntry


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

    @staticmethod
    def written(page: Page) -> str:
        """The JSON of a page, as the model would write it.

        The rows are text that was judged when it came: a model for each of a hundred costs more than the whole request.
        """
        logs = ",".join(
            [
                f'{{"id":"{id}","user_id":"{user_id}","action_type":{_quoted(action_type)},'
                f'"service_name":{_quoted(service_name)},"description":{_quoted(description)},'
                f'"created_at":"{created_at.replace(".000000", "")}"}}'
                for id, user_id, action_type, description, service_name, created_at in page.logs
            ]
        )
        return f'{{"logs":[{logs}],"total":{page.total}}}'


@dataclass(frozen=True, slots=True)
class Batch:
    """A ``LogBatch``. Where every entry is spelled as it will be kept, which is how our services spell it, they are
    rows already; every other body is judged by the contract, and so is every error.
    """

    entries: Sequence[Row | LogEntry]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def judge(body: Any, by_the_contract: ValidatorFunctionWrapHandler) -> "Batch":
            try:
                return cls(_rows(body))
            except ValueError:
                batch: LogBatch = by_the_contract(body)
                return cls(batch.logs)

        return no_info_wrap_validator_function(judge, handler(LogBatch))


_Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", min_length=1, max_length=64)]
_Description = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=2000)]
_Time = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
    ),
]


class _Row(TypedDict):
    """A ``LogEntry`` that is all there and spelled as it will be kept. Half a character is no ``str`` to pydantic."""

    id: _Id
    user_id: _Id
    action: _Name
    description: _Description
    service: _Name
    created_at: _Time


class _Rows(TypedDict):
    logs: Annotated[list[_Row], Field(min_length=1, max_length=MAX_LOGS)]


_ROWS = TypeAdapter(_Rows)
_columns: Callable[[_Row], Row] = itemgetter("id", "user_id", "action", "description", "service", "created_at")


def _rows(body: Any) -> list[Row]:
    rows = _ROWS.validate_python(body)["logs"]
    for row in rows:
        datetime.fromisoformat(row["created_at"])  # raises at the 30th of February
    return list(map(_columns, rows))
