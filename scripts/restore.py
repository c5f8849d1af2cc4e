"""List images, clicks and masks that were deleted through the server, and restore them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask_of
from lib.server.project import images_of, project_of
from lib.server.studies.removal import removals, restore
from scripts.terminal import add_project, refuse, script_parser, tell

EXAMPLE = """%(prog)s studies list
%(prog)s studies bring-back 20261128T101500123456.study_03"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    project = project_of(options.studies, options.project_dir)
    set_umask_of(project.labels)
    found = list(removals(project, images_of(options.studies)))
    if options.command == "list":
        for removal in found:
            files = ", ".join(place.name for place in removal.files.values())
            tell(f"{removal.folder.name}: {files}")
        if not found:
            tell(f"Nothing was deleted in {project.folder}.")
        return 0
    chosen = [removal for removal in found if removal.folder.name == options.name]
    if not chosen:
        return refuse(f"There is no deletion {options.name!r} in {project.removed}; the command list shows them.")
    try:
        places = restore(chosen[0])
        AuditLog(project.audit).write_script("restored", "scripts/restore.sh", name=options.name)
    except OSError as error:
        return refuse(f"{error.strerror}: {error.filename}.")
    tell(f"Restored: {', '.join(place.name for place in places)}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_project(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show deletions, oldest first")
    bring_back = commands.add_parser("bring-back", help="restore the files of one deletion")
    bring_back.add_argument("name", help="name of the deletion, as in the list")
    return parser


if __name__ == "__main__":
    sys.exit(main())
