"""Whether our code uses libraries as their documentation says. `make check` calls this; each finding is one line.

Refused, of every package that is neither ours nor Python's: private modules and names, modules that its documentation
does not name, subclasses of its classes, and assignments to attributes of its modules and classes. Refused everywhere:
an assignment to ``__class__``. What is allowed all the same stands below with its reason (rule "Libraries, not our own
framework": a shortcut must be worth at least 1.3 times of something a user feels, is one file, and can be removed).
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "shared",
    "user-service",
    "video-service",
    "storage-service",
    "usage-service",
    "logging-service",
    "scripts",
    "containers",
    "bench",
)
# Classes that their documentation tells to subclass.
BASES = {
    "pydantic.BaseModel": "every model is a subclass",
    "pydantic_settings.BaseSettings": "all settings are a subclass",
    "starlette.responses.Response": "https://fastapi.tiangolo.com/advanced/custom-response/#custom-response-class",
    "typing_extensions.TypedDict": "typing's own, as pydantic needs it before Python 3.12",
}
UNDOCUMENTED = ("fastapi.dependencies", "uvicorn.protocols")
# What one file may do: its path, and what it subclasses or imports. An entry that nothing needs is a finding, too.
ALLOWED = {
    # 1.4 to 1.6 times as many small requests; the figures are in the file.
    "shared/shared/routing.py": {"fastapi.routing.APIRoute", "fastapi.dependencies.models"},
}


class Findings(ast.NodeVisitor):
    """What one file does to libraries: ``found`` has pairs of the thing's qualified name and a sentence."""

    def __init__(self, ours: frozenset[str]) -> None:
        self.found: list[tuple[str, str]] = []
        self._ours = ours
        self._imported: dict[str, str] = {}  # a name in the file → what it is called where it comes from

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if self._is_foreign(name.name):
                self._check_import(node, name.name)
                bound = name.asname or name.name.partition(".")[0]
                self._imported[bound] = name.name if name.asname else bound

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level == 0 and self._is_foreign(module):
            for name in node.names:
                self._check_import(node, f"{module}.{name.name}", module)
                self._imported[name.asname or name.name] = f"{module}.{name.name}"

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            name = self._origin(base.value if isinstance(base, ast.Subscript) else base)
            if name is not None and name not in BASES:
                self._add(node, name, f"class {node.name} subclasses {name}")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._origin(node)
        if not isinstance(node.ctx, ast.Load):
            if node.attr == "__class__":
                self._add(node, "__class__", "assigns to __class__")
            elif name is not None:
                self._add(node, name, f"changes {name}")
        elif name is not None and _is_private(node.attr):
            self._add(node, name, f"uses the private {name}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """``getattr``, ``setattr`` and ``delattr`` are the same in other words."""
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "delattr" as what),
                args=[target, ast.Constant(value=str(attribute)), *_],
            ):
                name = self._origin(target)
                if what != "getattr" and attribute == "__class__":
                    self._add(node, "__class__", "assigns to __class__")
                elif name is not None and (what != "getattr" or _is_private(attribute)):
                    self._add(node, f"{name}.{attribute}", f"{what} of {name}.{attribute}")
        self.generic_visit(node)

    def _check_import(self, node: ast.stmt, name: str, module: str = "") -> None:
        if any(map(_is_private, name.split("."))):
            self._add(node, name, f"imports the private {name}")
        elif any((module or name) == one or name.startswith(f"{one}.") for one in UNDOCUMENTED):
            self._add(node, module or name, f"imports {name}, which no documentation names")

    def _origin(self, node: ast.expr) -> str | None:
        """What ``a.b.c`` is called in the library that it comes from; None if it comes from none."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._imported:
            return None
        return ".".join([self._imported[node.id], *attributes])

    def _is_foreign(self, module: str) -> bool:
        top = module.partition(".")[0]
        return top not in sys.stdlib_module_names and top not in self._ours

    def _add(self, node: ast.stmt | ast.expr, name: str, sentence: str) -> None:
        self.found.append((name, f"{node.lineno}: {sentence}"))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def check(root: Path, folders: Sequence[str] = FOLDERS) -> Iterator[str]:
    """A line for each finding in the Python files of ``folders`` below ``root``."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
    packages = {file.parent for file in files if file.name == "__init__.py"}
    # Beside packages there are scripts, which import each other by their bare names.
    ours = frozenset(file.stem if file.parent not in packages else file.parent.name for file in files)
    for file in files:
        path = file.relative_to(root).as_posix()
        findings = Findings(ours)
        findings.visit(ast.parse(file.read_bytes(), path))
        allowed = ALLOWED.get(path, set())
        yield from (f"{path}:{sentence}" for name, sentence in findings.found if name not in allowed)
        yield from (f"{path}: nothing needs its permission for {name}" for name in sorted(allowed - _names(findings)))


def _names(findings: Findings) -> set[str]:
    return {name for name, _ in findings.found}


def main() -> int:
    found = list(check(ROOT))
    print("\n".join([*found, f"{len(found)} findings"]) if found else "Libraries are used as they are documented.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
