"""The check that our code uses libraries as they are documented finds what it is to find, and nothing else."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_libraries", ROOT / "scripts/check_libraries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(checker: ModuleType, root: Path, code: str, path: str = "shared/shared/thing.py") -> list[str]:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(code, encoding="utf-8")
    return list(checker.check(root, ["shared"]))


@pytest.mark.parametrize(
    "code",
    [
        "import httpx._client",
        "from httpx._client import Client",
        "from starlette import _utils",
        "import httpx as web\nweb._main()",
        "import google.cloud.storage\ngoogle.cloud.storage._signing.sign()",
        "import httpx\ngetattr(httpx, '_main')",
        "from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol",
        "from fastapi.dependencies.models import Dependant",
        "import httpx\nclass Ours(httpx.AsyncClient): ...",
        "from httpx import AsyncClient as Theirs\nclass Ours(Theirs): ...",
        "from pydantic import RootModel\nclass Ours(RootModel[int]): ...",
        "import httpx\nhttpx.AsyncClient.send = None",
        "import httpx\nhttpx.TIMEOUT += 1",
        "from httpx import AsyncClient\nsetattr(AsyncClient, 'send', None)",
        "from httpx import AsyncClient\ndel AsyncClient.send",
        "def swap(thing: object) -> None:\n    thing.__class__ = dict",
        "def swap(thing: object) -> None:\n    setattr(thing, '__class__', dict)",
    ],
)
def test_a_way_past_a_library_is_one_finding(checker: ModuleType, tmp_path: Path, code: str) -> None:
    (line,) = found(checker, tmp_path, code)
    assert line.startswith("shared/shared/thing.py:")


@pytest.mark.parametrize(
    "code",
    [
        "import httpx\nclient = httpx.AsyncClient()\nclient.timeout = 1",
        "from pydantic import BaseModel\nclass Ours(BaseModel): ...",
        "import logging\nclass Ours(logging.Formatter): ...\nlogging.logThreads = False",
        "from collections import _tuplegetter",
        "from shared.thing import _own\nclass Ours(_own.Base): ...\n_own._field = 1",
        "class Base:\n    def __init__(self) -> None:\n        self._own = type(self).__name__\nclass Ours(Base): ...",
        "import httpx\nprint(httpx.__version__)",
    ],
)
def test_what_libraries_are_made_for_and_our_own_is_none(checker: ModuleType, tmp_path: Path, code: str) -> None:
    assert found(checker, tmp_path, code) == []


def test_a_permission_is_for_one_file_and_one_thing_and_goes_with_what_needed_it(
    checker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "ALLOWED", {"shared/shared/thing.py": {"httpx.AsyncClient"}})
    code = "import httpx\nclass Ours(httpx.AsyncClient): ..."
    assert found(checker, tmp_path, code) == []
    assert len(found(checker, tmp_path, f"{code}\nclass More(httpx.Client): ...")) == 1
    assert len(found(checker, tmp_path, "import httpx")) == 1
    (tmp_path / "shared/shared/thing.py").unlink()
    assert len(found(checker, tmp_path, code, "shared/shared/other.py")) == 1
