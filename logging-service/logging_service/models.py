"""What logging-service takes and gives; what others must know of it is in ``shared.contracts``."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, GetCoreSchemaHandler, StringConstraints, TypeAdapter
from pydantic_core import to_json
from pydantic_core.core_schema import CoreSchema, ValidatorFunctionWrapHandler, no_info_wrap_validator_function
from typing_extensions import TypedDict

from logging_service.store import Log, Page
from shared.contracts import MAX_LOGS, LogBatch, LogEntry


class LogOut(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    action_type: str
    service_name: str
    description: str
    created_at: AwareDatetime


class LogPage(BaseModel):
    """``total`` counts all the logs there are to page through; ``next`` is null at the end of the list."""

    logs: list[LogOut]
    total: int
    next: str | None

    @staticmethod
    def written(page: Page) -> bytes:
        """The JSON of a page, as the model writes it: ``tests/unit/logging/test_page.py`` holds the two together.

        The model itself takes 1.45 times the processor time for a whole request of a hundred logs (650 µs in place of
        450). To remove this, give its caller ``LogPage.model_validate`` of the same dict.
        """
        logs = [
            {
                "id": log.id,
                "user_id": log.user_id,
                "action_type": log.action_type,
                "service_name": log.service_name,
                "description": log.description,
                "created_at": log.created_at.replace(".000000", ""),
            }
            for log in page.logs
        ]
        return to_json({"logs": logs, "total": page.total, "next": page.next and page.next.encoded()})


@dataclass(frozen=True, slots=True)
class Batch:
    """A ``LogBatch``, of which our own services' bodies are read the short way.

    An entry that is spelled as its row will be becomes that row at once. By the contract, which makes UUIDs, a time and
    a model of each, to be made text again, a second of processor time takes in 46,000 rows in place of 88,000. Every
    other body is validated by the contract, which also words every error; ``tests/unit/logging/test_batch.py`` holds
    the two together. To remove this, let the route take ``LogBatch``.
    """

    entries: Sequence[LogEntry | Log]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(body: Any, by_the_contract: ValidatorFunctionWrapHandler) -> "Batch":
            try:
                return cls(_logs(body))
            except ValueError:
                batch: LogBatch = by_the_contract(body)
                return cls(batch.logs)

        return no_info_wrap_validator_function(validate, handler(LogBatch))


_Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", min_length=1, max_length=64)]
_Description = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=2000)]
_Time = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
    ),
]


class _Spelled(TypedDict):
    """A ``LogEntry`` that is complete and spelled as ``Log`` is. Half of a character is no ``str`` to pydantic."""

    id: _Id
    user_id: _Id
    action: _Name
    description: _Description
    service: _Name
    created_at: _Time


class _SpelledBatch(TypedDict):
    logs: Annotated[list[_Spelled], Field(min_length=1, max_length=MAX_LOGS)]


_BATCH = TypeAdapter(_SpelledBatch)
_values: Callable[[_Spelled], tuple[str, ...]] = itemgetter(*_Spelled.__annotations__)


def _logs(body: Any) -> list[Log]:
    entries = _BATCH.validate_python(body)["logs"]
    for entry in entries:
        datetime.fromisoformat(entry["created_at"])  # raises at the 30th of February
    return [Log._make(_values(entry)) for entry in entries]
