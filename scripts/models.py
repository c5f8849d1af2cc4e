"""List the versions of the model, and publish an earlier one again; a running server loads it at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.table import Table

from lib.networks.checkpoint import CheckpointError, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask_of
from lib.server.project import project_of
from lib.training.model_folder import ModelFolder
from lib.training.record import TrainingRecord
from lib.training.version_list import NoVersionError, kept_versions, roll_back
from scripts.terminal import add_project, console, refuse, script_parser

EXAMPLE = """%(prog)s studies list
%(prog)s studies roll-back 3"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    project = project_of(options.studies, options.project_dir)
    model_dir = options.model_dir or project.model
    set_umask_of(model_dir)
    models = ModelFolder(model_dir)
    versions = models.versions
    try:
        if options.command == "roll-back":
            roll_back(versions, options.version)
            AuditLog(project.audit).write_script("roll back", "scripts/models.sh", version=options.version)
            console.print(
                f"Version {options.version} is published again; the next training with the same labels and network "
                "starts from it."
            )
        else:
            console.print(_table(versions, TrainingRecord.load(models.trainings.record)))
    except NoVersionError as error:
        return refuse(f"{error} Searched in {model_dir}; --model-dir names another folder.")
    except FileNotFoundError as error:
        kept = ", ".join(map(str, versions.numbers()))
        found = f"these are kept: {kept}" if kept else "none is kept"
        return refuse(f"There is no model ({error}) in {model_dir}; {found}. --model-dir names another folder.")
    except (CheckpointError, OSError) as error:
        return refuse(str(error))
    return 0


def _table(versions: ModelVersions, record: TrainingRecord) -> Table:
    """Make the table. Raises: FileNotFoundError, CheckpointError: nothing usable is published."""
    published = load_checkpoint(versions.published_path)
    table = Table(title=f"Models in {versions.published_path.parent}")
    for heading in ("version", "trained", "scans", "iterations", "score", "judged on", ""):
        table.add_column(heading)
    for version in kept_versions(versions, record, published.version):
        run = version.run
        figures = ["", "", "", "", ""]
        if run is not None:
            score = "" if run.score is None else f"{run.score:.2f}"
            judged_on = f"{run.judged_on[0]} {run.judged_on[1]}"
            figures = [run.ended, str(run.scans), str(run.iterations), score, judged_on]
        table.add_row(str(version.number), *figures, "published" if version.is_published else "")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_project(parser, model_dir=True)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show versions with their trainings and scores")
    roll_back = commands.add_parser("roll-back", help="publish an earlier version again")
    roll_back.add_argument("version", type=int, help="number of the version, as in the list")
    return parser


if __name__ == "__main__":
    sys.exit(main())
