"""Makes one HTML page of a project: what is annotated, by whom and when, how the model learns, the newest masks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from lib.annotations.atomic_write import write_atomically
from lib.report.annotated_project import ReportError, read_project
from lib.report.page import render
from lib.server.process.modes import set_umask
from lib.server.project import project_of

console = Console()
errors = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with Progress(console=errors, transient=True) as progress:
            progress.add_task("Reading the annotations", total=None)
            place = project_of(options.studies, options.project_dir)
            labels = [label.strip() for label in options.labels.split(",") if label.strip()]
            project = read_project(options.studies, place, options.model_dir or place.model, labels)
            bar = progress.add_task("Drawing the masks", total=len(project.images))
            page = render(project, options.max_pictures, lambda: progress.advance(bar))
        write_atomically(options.out, page.encode())
    except (ReportError, OSError) as error:
        errors.print(str(error), style="red", highlight=False, soft_wrap=True)
        return 2
    console.print(f"The report is {options.out}; it holds pictures of patients.", highlight=False, soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/report.sh", description=__doc__)
    parser.add_argument("studies", metavar="STUDIES", help="folder or address that the server was started with")
    parser.add_argument("--project-dir", type=Path, help="the server's project_dir, if it was given one")
    parser.add_argument(
        "--labels", default="", metavar="A,B", help="of the app (default: those that it had when the project began)"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="file to write (default: %(default)s)")
    parser.add_argument("--model-dir", type=Path, help="the server's model_dir, if it was given one")
    parser.add_argument(
        "--max-pictures", type=int, default=24, help="masks that are drawn at most (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    set_umask(group=False)  # pictures of patients
    sys.exit(main())
