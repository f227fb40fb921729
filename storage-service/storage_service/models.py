"""What storage-service gives."""

from pydantic import BaseModel


class StorageUsage(BaseModel):
    """MB of 1,048,576 bytes, unrounded; the percentage as text with two decimals."""

    totalSizeMb: float  # noqa: N815  the page's own name
    maxStorageMb: float  # noqa: N815
    usagePercentage: str  # noqa: N815
