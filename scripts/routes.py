"""Write docs/routes.md from the list of routes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lib.server.archive.archive_proxy import ArchiveProxy
from lib.server.endpoints.login_requests import LoginPages
from lib.server.login.local_users import LocalUsers
from lib.server.login.login import Login
from lib.server.login.login_sessions import LoginSessions
from lib.server.login.users_file import UsersFile
from lib.server.pages.pages import Pages
from lib.server.routes import Route, routes
from scripts.terminal import script_parser

PATH = Path(__file__).resolve().parents[1] / "docs" / "routes.md"

_HEAD = """# Routes

The server serves these requests and answers every other with 404. `python -m scripts.routes` writes this page from
`lib/server/routes.py`. Those below `/proxy/dicom` exist for archives only, those below `/login`, `/logout` and `/auth`
where a login is asked for, those below `/readings` and `/review` where several people read each study
([review.md](review.md)). [api.md](api.md) shows those of the annotation page with `curl`.

Roles hold where a login is asked for: an admin may do what a reviewer may, a reviewer what an annotator may, an
annotator what a user may. "Everybody" needs no login. What changes something is written into the audit log, under the
name in the fifth column.

| method | path | role | used by | audit log | |
|---|---|---|---|---|---|
"""


def all_routes() -> list[Route]:
    """Return the routes of a server on an archive, with login and readings."""
    nothing = Path("nothing")
    login = Login(LocalUsers(UsersFile(nothing)), LoginSessions(nothing, 0), "inextremis")
    proxy = ArchiveProxy("http://localhost/dicom-web")
    return routes(Pages("InExtremIS", True), proxy, LoginPages(login), has_readings=True)


def table() -> str:
    """Return the page as Markdown."""
    rows = []
    for route in all_routes():
        summary = (route.endpoint.__doc__ or "").strip().splitlines()[0]
        role = "everybody" if route.role is None else str(route.role)
        if route.role_to_store is not None:
            role += f"; {route.role_to_store} where it stores clicks"
        rows.append(
            f"| {route.method} | `{route.path}` | {role} | {route.used_by} | {route.records or ''} | {summary} |\n"
        )
    return _HEAD + "".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    script_parser(__file__, __doc__, "%(prog)s").parse_args(arguments)
    PATH.write_text(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
