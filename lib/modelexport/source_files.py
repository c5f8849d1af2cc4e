"""Copy modules of this library under another package's name, to run without the library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import lib

LIBRARY = Path(lib.__file__).parent
_IMPORT = re.compile(r"^(\s*(?:from|import)\s+)lib(?=[.\s])", re.MULTILINE)


def copied_sources(modules: Iterable[str], package: str) -> dict[str, str]:
    """Return the source of modules and of all modules of this library that they import, at any depth.

    Args:
        modules: such as "lib.data.grid".
        package: name of the package that replaces `lib`.

    Returns:
        The text of each file by its path, such as "package/data/grid.py".
    """
    waiting, files = [name for module in modules for name in _with_packages(module)], {}
    while waiting:
        path = _file_of(waiting.pop())
        name = f"{package}/{path.relative_to(LIBRARY).as_posix()}"
        if name not in files:
            text = path.read_text()
            files[name] = _IMPORT.sub(rf"\g<1>{package}", text)
            waiting += _imported(text)
    return files


def _imported(text: str) -> Iterator[str]:
    """Yield the modules of this library that a text imports, and their packages."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [node.module, *(name for name in within if _exists(name))]
        for name in names:
            if name.split(".")[0] == LIBRARY.name:
                yield from _with_packages(name)


def _with_packages(module: str) -> list[str]:
    """Return a module and its packages."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _exists(module: str) -> bool:
    return module.startswith(f"{LIBRARY.name}.") and any(path.is_file() for path in _candidates(module))


def _file_of(module: str) -> Path:
    return next(path for path in _candidates(module) if path.is_file())


def _candidates(module: str) -> tuple[Path, Path]:
    place = LIBRARY.joinpath(*module.split(".")[1:])
    return place / "__init__.py", place.with_suffix(".py")
