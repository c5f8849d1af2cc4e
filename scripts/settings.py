"""Write docs/settings.md from the code: every setting with its default and meaning."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from lib.configs.settings import AppSettings
from lib.training.hyperparameters import Hyperparameters
from scripts.terminal import script_parser, tell

PATH = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

# Defaults that the server computes when it starts.
_DEFAULTS = {"project_dir": "`STUDIES`", "model_dir": "`STUDIES/model`", "users": " "}

_HEAD = """# Settings

For administrators. Give them as `--conf NAME VALUE`, repeatable; wrong ones are refused at the start, except
`network` and `network_arguments`, which a training checks. Those of the training can also be given with each training
(*Options* in the viewers, or the body of `POST /train/inextremis`). `python -m scripts.settings` writes this page from
`lib/configs/settings.py` and `lib/training/hyperparameters.py`.

## The server

For an archive the project lies in `~/.local/share/inextremis/` instead of `STUDIES` ([archives.md](archives.md)).

| name | default | meaning |
|---|---|---|
"""

_TRAINING = """
## Trainings

`preset` chooses a column; a setting of its own overrides it. A training by `cpu` takes at most five minutes on one
core, one by `gpu` at most ten minutes; `paper` is the training of the paper. [method.md](method.md) explains the terms.

| of the training | `gpu` | `cpu` | `paper` | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    app = "".join(
        f"| `{name}` | {_DEFAULTS.get(name) or _code(_text(value))} | {_meaning(AppSettings, name)} |\n"
        for name, value in AppSettings()
    )
    presets = [Hyperparameters.of_preset(preset).model_dump(mode="json") for preset in ("gpu", "cpu", "paper")]
    training = "".join(
        f"| `{name}` | {' | '.join(_value(preset[name]) for preset in presets)} | {_meaning(Hyperparameters, name)} |\n"
        for name in Hyperparameters.model_fields
    )
    return _HEAD + app + _TRAINING + training


def _meaning(settings: type[BaseModel], name: str) -> str:
    return settings.model_fields[name].description or ""


def _text(value: object) -> str:
    """Return a value as `--conf` reads it."""
    if isinstance(value, dict | tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else _number(value)


def _value(value: object) -> str:
    """Format the value of a hyper-parameter: words as code, numbers as text."""
    text = _text(value)
    return _code(text) if isinstance(value, str) and not text[0].isdigit() else text


def _number(value: object) -> str:
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def main(arguments: Sequence[str] | None = None) -> int:
    script_parser(__file__, __doc__, "%(prog)s").parse_args(arguments)
    PATH.write_text(page())
    tell(f"{PATH.name} is written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
