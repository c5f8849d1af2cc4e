"""Writes docs/routes.md: what the server serves, made from its own list."""

from __future__ import annotations

from pathlib import Path

from lib.server.pages import Pages
from lib.server.proxy import ArchiveProxy
from lib.server.routes import routes

PATH = Path(__file__).resolve().parents[1] / "docs" / "routes.md"

_HEAD = """# Routes

The server serves these requests and answers every other with 404. `python -m scripts.routes` writes this page from
`lib/server/routes.py`. Roles hold where a login is asked for. Those below `/proxy/dicom` exist for archives only.

| method | path | role | used by | |
|---|---|---|---|---|
"""


def table() -> str:
    """The page, in Markdown."""
    rows = []
    for route in routes(Pages("InExtremIS", has_archive=True), ArchiveProxy("http://localhost/dicom-web")):
        summary = (route.endpoint.__doc__ or "").strip().splitlines()[0]
        role = (route.role or "everybody").removeprefix("monailabel-")
        rows.append(f"| {route.method} | `{route.path}` | {role} | {route.used_by} | {summary} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    PATH.write_text(table())
