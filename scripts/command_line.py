"""Run InExtremIS: start the server, import annotations, export masks, manage users and models."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the modules import each other from here, in a checkout and where this is installed

from lib import __version__

# Module in this folder, and help, of each command.
COMMANDS = {
    "start": ("start", "start the server on a folder of images or on a DICOMweb archive"),
    "demo": ("demo", "show the main steps on demo studies"),
    "export": ("export", "write the masks of annotated studies, from a running server"),
    "export-dataset": ("export_dataset", "write annotated scans as a dataset of nnU-Net or BIDS"),
    "export-model": ("export_model", "write a model as a MONAI bundle, ONNX or TorchScript"),
    "import": ("import_annotations", "read annotations from files or an archive"),
    "models": ("models", "list the versions of the model, publish an earlier one again"),
    "pre-annotate": ("pre_annotate", "segment all studies with the published model"),
    "report": ("report", "write an HTML page about a project"),
    "restore": ("restore", "list deleted files, restore them"),
    "train": ("train", "train on the annotations of a project, without a server"),
    "users": ("users", "add, change, remove and list users"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status."""
    options = _parser().parse_args(arguments)
    sys.argv = [f"inextremis {options.command}", *options.arguments]  # name of the program in help and messages
    # For the processes that a command starts.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    status: int = import_module(f"scripts.{COMMANDS[options.command][0]}").main(options.arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:<16}{summary}" for name, (_, summary) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="inextremis",
        usage="%(prog)s [-h] [--version] COMMAND [ARGUMENT ...]",
        description=__doc__,
        epilog=f"commands:\n{rows}\n\nexample:\n  %(prog)s start studies --labels tumour,cyst\n  %(prog)s start --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="arguments of the command")
    return parser


if __name__ == "__main__":
    sys.exit(main())
