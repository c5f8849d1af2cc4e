"""What the scripts have in common: how they read arguments and how they write to the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def tell(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    errors.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def refuse(sentence: str) -> int:
    """Says why a script did nothing. Returns: its exit status."""
    complain(sentence)
    return 2


def script_parser(module: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """The parser of a script.

    Args:
        module: its `__file__`.
        description: what the script does.
        example: lines of a shell, in which %(prog)s stands for the script.
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


def add_project(parser: argparse.ArgumentParser, note: str = "", model_dir: bool = False) -> None:
    """Adds the arguments that name a project.

    Args:
        note: on the studies.
        model_dir: can the folder of the model be given, too?
    """
    parser.add_argument("studies", metavar="STUDIES", help=f"folder or address that the server was started with{note}")
    parser.add_argument("--project-dir", type=Path, help="the server's project_dir, if it was given one")
    if model_dir:
        parser.add_argument("--model-dir", type=Path, help="the server's model_dir, if it was given one")


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=_names,
        default=(),
        metavar="A,B",
        help="of the app (default: those that it had when the project began)",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes a whole number within limits."""
    expected = f"a whole number from {least}" + ("" if most is None else f" to {most}")

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected {expected}")
        return int(text)

    return number


def number(least: float, above: bool = False) -> Callable[[str], float]:
    """The type of an option that takes a finite number of at least `least`, or above it."""

    def found(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf") or (above and value == least):
            expected = f"a number above {least:g}" if above else f"a number from {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected {expected}")
        return value

    return found
