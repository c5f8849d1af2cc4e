"""Write an HTML page about a project: annotations by annotator and date, learning curves, the newest masks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from lib.annotations.atomic_write import write_atomically
from lib.report.annotated_project import ReportError, read_project
from lib.report.page import render
from lib.server.process.modes import set_umask
from lib.server.project import project_of
from scripts.terminal import add_labels, add_project, errors, refuse, script_parser, tell, whole_number

EXAMPLE = "%(prog)s studies --out report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    set_umask(group=False)  # pictures of patients
    try:
        with Progress(console=errors, transient=True) as progress:
            progress.add_task("Reading the annotations", total=None)
            place = project_of(options.studies, options.project_dir)
            project = read_project(options.studies, place, options.model_dir or place.model, options.labels)
            bar = progress.add_task("Drawing the masks", total=len(project.images))
            page = render(project, options.max_pictures, lambda: progress.advance(bar))
        write_atomically(options.out, page.encode())
    except (ReportError, OSError) as error:
        return refuse(str(error))
    tell(f"The report is {options.out}; it holds pictures of patients.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_project(parser, model_dir=True)
    add_labels(parser)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="file to write (default: %(default)s)")
    parser.add_argument(
        "--max-pictures", type=whole_number(0), default=24, help="maximum number of drawn masks (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
