"""The published description of each service: valid, true to the code, and silent about what is internal."""

from pathlib import Path
from typing import Any

import pytest
from contract.video_storage.house import SERVICES, make_apps, make_settings
from fastapi.openapi.models import OpenAPI
from fastapi.routing import APIRoute

ERROR = {"message": "string", "code": "string"}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    apps = make_apps(make_settings(Path(tmp_path_factory.mktemp("apps"))))
    return {service: app.openapi() for service, app in apps.items()}


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, what) for path, methods in schema["paths"].items() for method, what in methods.items()]


def resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        found: Any = schema
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def references(part: Any) -> list[dict[str, Any]]:
    if isinstance(part, dict):
        return ([part] if "$ref" in part else []) + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


@pytest.mark.parametrize("service", SERVICES)
def test_the_description_is_valid(described: dict[str, dict[str, Any]], service: str) -> None:
    schema = described[service]
    OpenAPI.model_validate(schema)
    assert schema["openapi"].startswith("3.")
    assert schema["info"]["title"] == service
    assert all(resolved(schema, reference) for reference in references(schema))
    named = [what["operationId"] for _, _, what in operations(schema)]
    assert len(named) == len(set(named))
    for _, path, what in operations(schema):
        assert {parameter["name"] for parameter in what.get("parameters", []) if parameter["in"] == "path"} == {
            part.split("}")[0] for part in path.split("{")[1:]
        }


@pytest.mark.parametrize("service", SERVICES)
def test_every_error_of_every_call_is_described_as_message_and_code(
    described: dict[str, dict[str, Any]], service: str
) -> None:
    schema = described[service]
    for method, path, what in operations(schema):
        errors = {status: answer for status, answer in what["responses"].items() if status[0] in "45"}
        assert {"4XX", "5XX"} <= errors.keys(), f"{method} {path}"
        for answer in errors.values():
            model = resolved(schema, answer["content"]["application/json"]["schema"])
            assert {name: field["type"] for name, field in model["properties"].items()} == ERROR
            assert set(model["required"]) == ERROR.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_internal_is_not_described(described: dict[str, dict[str, Any]], service: str) -> None:
    assert not [path for path in described[service]["paths"] if "internal" in path]
    assert {"/health", "/ready"} <= described[service]["paths"].keys()


def test_the_calls_of_the_contract_are_described_and_want_a_token_where_they_do(
    described: dict[str, dict[str, Any]],
) -> None:
    wanted = {
        "video-service": {
            "post /api/videos/upload",
            "get /api/videos/stream",
            "get /api/videos/user/{user_id}",
            "get /api/videos/stream/{filename}",
            "delete /api/videos/delete/{filename}",
            "delete /api/videos/delete-all",
        },
        "storage-service": {"get /api/storage/usage"},
    }
    for service, calls in wanted.items():
        found = {f"{method} {path}": what for method, path, what in operations(described[service])}
        assert calls <= found.keys()
        assert {call for call, what in found.items() if "security" in what} == calls
    media = described["storage-service"]["paths"]
    for suffix in (".mp4", ".jpg"):
        assert {"get", "head"} <= media["/media/{capability}/{filename}" + suffix].keys()


def test_the_upload_is_described_as_the_form_that_the_page_sends(described: dict[str, dict[str, Any]]) -> None:
    body = described["video-service"]["paths"]["/api/videos/upload"]["post"]["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    assert (body["required"], set(form["required"]), list(form["properties"])) == (
        True,
        {"video", "title"},
        ["video", "title"],
    )


def test_media_are_described_as_bytes_and_parts_of_them(described: dict[str, dict[str, Any]]) -> None:
    for suffix, kind in ((".mp4", "video/mp4"), (".jpg", "image/jpeg")):
        get = described["storage-service"]["paths"]["/media/{capability}/{filename}" + suffix]["get"]
        assert {"200", "206", "304"} <= get["responses"].keys()
        assert kind in get["responses"]["200"]["content"]
        assert "application/json" not in get["responses"]["200"]["content"]


def test_no_path_ends_in_z_for_cloud_run_keeps_those(tmp_path: Path) -> None:
    for app in make_apps(make_settings(tmp_path)).values():
        assert not [route.path for route in app.routes if isinstance(route, APIRoute) and route.path.endswith("z")]
