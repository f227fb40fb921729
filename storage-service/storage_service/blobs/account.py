"""As whom storage-service speaks to Google Cloud Storage, and who signs its URLs.

STORAGE_EMULATOR_HOST           nobody asks; URLs are signed if there is a key file, else plain
GOOGLE_APPLICATION_CREDENTIALS  the account of that key file, which signs by itself
neither                         the machine's own account (on Cloud Run the service's), for which IAM signs
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import google.auth
import google.auth.credentials
import requests
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import Request
from google.cloud.storage import Client  # type: ignore[import-untyped]
from google.oauth2.service_account import Credentials as KeyFile

from shared.settings import SettingsError
from storage_service.blobs.signing import IamSigning, PlainUrls, SignedUrls, Signing
from storage_service.config import Settings

ENDPOINT = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"  # signBlob wants no less; the account's roles are the limit
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Account:
    client: Client
    urls: SignedUrls | PlainUrls
    http: requests.Session  # for calls that carry their own right


@asynccontextmanager
async def open_account(settings: Settings) -> AsyncIterator[Account]:
    """Raises ``SettingsError`` where there are no credentials, or none that can sign."""
    emulator, bucket = settings.storage_emulator_host, settings.gcs_bucket
    assert bucket is not None
    # Or the library asks about the bucket on the side, for traces nobody makes, in a thread that nobody can stop.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    async with AsyncExitStack() as stack:
        session = stack.enter_context(requests.Session())
        credentials = await asyncio.to_thread(_credentials, settings)
        endpoint = emulator or ENDPOINT
        # A browser may have another way to an emulator than we.
        public = (settings.storage_emulator_public_url or emulator) if emulator else ENDPOINT
        urls: SignedUrls | PlainUrls = PlainUrls(public, bucket)
        if credentials is not None:
            urls = SignedUrls(_signing(credentials, session), public, bucket, settings.signed_url_seconds)
        stack.callback(urls.close)
        client = Client(
            # Only buckets belong to a project. Left out, the library would search for one, in the network too.
            project=settings.google_cloud_project or "-",
            credentials=google.auth.credentials.AnonymousCredentials() if emulator else credentials,  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": endpoint},
        )
        stack.callback(client.close)
        yield Account(client, urls, session)


def _credentials(settings: Settings) -> Any:
    """None for an emulator without a key file."""
    if settings.google_application_credentials is not None:
        try:
            return KeyFile.from_service_account_file(  # type: ignore[no-untyped-call]
                str(settings.google_application_credentials), scopes=[SCOPE]
            )
        except (OSError, ValueError):
            raise SettingsError(
                "storage-service: GOOGLE_APPLICATION_CREDENTIALS is not the key file of a service account"
            ) from None
    if settings.storage_emulator_host is not None:
        return None
    try:
        return google.auth.default(scopes=[SCOPE])[0]
    except DefaultCredentialsError:
        raise SettingsError(
            "storage-service: GCS_BUCKET is set, but there are no credentials: set GOOGLE_APPLICATION_CREDENTIALS"
        ) from None


def _signing(credentials: Any, session: requests.Session) -> Signing:
    if isinstance(credentials, google.auth.credentials.Signing):
        return credentials
    if not hasattr(credentials, "service_account_email"):
        raise SettingsError("storage-service: these Google credentials are a person's, and only an account can sign")
    return IamSigning(credentials, partial(Request(session), timeout=SECONDS))
