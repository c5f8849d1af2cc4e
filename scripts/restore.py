"""Lists what was deleted through the server, and brings it back: images, clicks and masks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask_of
from lib.server.project import images_of, project_of
from lib.server.studies.removal import removals, restore

console = Console()
errors = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    project = project_of(options.studies, options.project_dir)
    set_umask_of(project.labels)
    found = list(removals(project, images_of(options.studies)))
    if options.command == "list":
        for removal in found:
            files = ", ".join(place.name for place in removal.files.values())
            console.print(f"{removal.folder.name}: {files}", markup=False, highlight=False, soft_wrap=True)
        if not found:
            console.print(f"Nothing was deleted in {project.folder}.", markup=False, highlight=False, soft_wrap=True)
        return 0
    chosen = [removal for removal in found if removal.folder.name == options.name]
    if not chosen:
        return _refuse(f"There is no deletion {options.name!r} in {project.removed}; the command list shows them.")
    try:
        places = restore(chosen[0])
        AuditLog(project.audit).write_script("restored", "scripts/restore.sh", name=options.name)
    except OSError as error:
        return _refuse(f"{error.strerror}: {error.filename}.")
    console.print(f"Brought back: {', '.join(place.name for place in places)}.", highlight=False, soft_wrap=True)
    return 0


def _refuse(sentence: str) -> int:
    errors.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/restore.sh", description=__doc__)
    parser.add_argument("studies", metavar="STUDIES", help="folder or address that the server was started with")
    parser.add_argument("--project-dir", type=Path, help="the server's project_dir, if it was given one")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what was deleted, oldest first")
    bring_back = commands.add_parser("bring-back", help="move the files of one deletion back")
    bring_back.add_argument("name", help="of the deletion, as the list shows it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
