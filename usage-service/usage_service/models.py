"""What usage-service gives; what other services send is in ``shared.contracts``."""

from pydantic import AwareDatetime, BaseModel


class DailyUsage(BaseModel):
    """One user's current UTC day. ``totalUsageMb`` counts finished uploads, deleted ones too; MB of 1,048,576 bytes."""

    totalUsageMb: float  # noqa: N815  the page reads these names
    dailyLimitMb: float  # noqa: N815
    isThresholdExceeded: bool  # noqa: N815
    message: str
    streamedMb: float  # noqa: N815
    uploads: int
    deletions: int
    resetsAt: AwareDatetime  # noqa: N815
