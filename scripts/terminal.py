"""Declare the arguments that scripts share, and write to the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def tell(sentence: str) -> None:
    """Print a sentence as it is, without markup."""
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    errors.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def refuse(sentence: str) -> int:
    """Print the reason why a script did nothing, and return its exit status."""
    complain(sentence)
    return 2


def script_parser(module: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """Return the argument parser of a script.

    Args:
        module: `__file__` of the script.
        description: what the script does.
        example: shell commands; %(prog)s is replaced with the name of the script.
    """
    path = Path(module)
    program = f"scripts/{path.stem}.sh" if path.with_suffix(".sh").exists() else f"python -m scripts.{path.stem}"
    return argparse.ArgumentParser(
        # The command `inextremis` puts its own name there.
        prog=sys.argv[0] if sys.argv[0].startswith("inextremis ") else program,
        description=description,
        epilog="example:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_studies(parser: argparse.ArgumentParser, note: str = "") -> None:
    parser.add_argument("studies", metavar="STUDIES", help=f"folder or address that the server was started with{note}")


def add_project(parser: argparse.ArgumentParser, note: str = "", model_dir: bool = False) -> None:
    """Add the arguments that name a project.

    Args:
        note: appended to the help of STUDIES.
        model_dir: add `--model-dir` as well.
    """
    add_studies(parser, note)
    parser.add_argument("--project-dir", type=Path, help="project_dir of the server, if it was given one")
    if model_dir:
        parser.add_argument("--model-dir", type=Path, help="model_dir of the server, if it was given one")


def add_conf(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add `--conf NAME VALUE`, which may be repeated; the value is a list of pairs."""
    parser.add_argument(
        "--conf",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help=f"setting of the server; repeatable{note}",
    )


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=_names,
        default=(),
        metavar="A,B",
        help="labels of the server (default: those that the project began with)",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number in [least, most]."""
    expected = f"a whole number from {least}" + ("" if most is None else f" to {most}")

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected {expected}")
        return int(text)

    return parse


def number(least: float, above: bool = False) -> Callable[[str], float]:
    """Return the type of an option that takes a finite number >= least, or > least where `above`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf") or (above and value == least):
            expected = f"a number above {least:g}" if above else f"a number from {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected {expected}")
        return value

    return parse
