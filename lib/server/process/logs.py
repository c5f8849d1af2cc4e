"""Configure the log: one line for each record, passwords masked, files of bounded size."""

from __future__ import annotations

import copy
import logging
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

FORMAT = "[%(asctime)s] [%(process)s] [%(threadName)s] [%(levelname)s] (%(name)s:%(lineno)d) - %(message)s"
# An indented line continues the record above it, or is the output of a training.
INDENT = "    "
# uvicorn logs the traceback of a failed start as a message.
TRACEBACK = "Traceback (most recent call last):\n"
MAX_CHARACTERS = 10_000
FILE_BYTES, OLD_FILES = 10 * 2**20, 10

logger = logging.getLogger(__name__)


def configure_logging(folder: Path | None) -> None:
    """Replace all handlers of this process by one for the console and one for a file.

    Levels are not changed. If the file cannot be opened, a warning is logged to the console.

    Args:
        folder: Folder of app.log, created if it is missing; None for the console only, as in a training, whose output
            the server logs.
    """
    logging.setLogRecordFactory(OneLineRecord)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    refused: OSError | None = None
    if folder is not None:
        try:
            handlers.append(_file_handler(folder))
        except OSError as error:
            refused = error
    for handler in handlers:
        handler.setFormatter(IndentingFormatter(FORMAT))
    _remove_handlers()
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    if refused is not None:
        logger.warning("The log file cannot be written (%s); the log goes to the console only.", refused.strerror)
    elif folder is not None:
        logger.info("The log is kept in %s.", folder / "app.log")


class OneLineRecord(logging.LogRecord):
    """Record whose message is a single line, so that it cannot imitate further records."""

    def getMessage(self) -> str:  # noqa: N802
        message = one_line(masked(super().getMessage().rstrip("\n")))
        left = len(message) - MAX_CHARACTERS
        return message if left <= 0 else f"{message[:MAX_CHARACTERS]} … ({left} more characters)"


class IndentingFormatter(logging.Formatter):
    """Formatter that indents tracebacks and the output of trainings."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name.startswith("task_"):
            return INDENT + record.getMessage()
        if not record.args and str(record.msg).startswith(TRACEBACK):
            record = copy.copy(record)
            record.exc_text, record.msg = record.msg, "The server failed:"
        first, *following = super().format(record).split("\n")
        return "\n".join([first, *(INDENT + one_line(masked(line)) for line in following)])


def one_line(text: str) -> str:
    """Escape line breaks and other unprintable characters as in a Python string."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def masked(text: str) -> str:
    """Mask logins in addresses, values of fields named as passwords or keys, and bearer tokens."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


# Bounded repetitions keep the matching fast.
_QUOTED = r""""(?:[^"\\]|\\.){0,500}"|'(?:[^'\\]|\\.){0,500}'"""
_NAME = r"(?:password|passwd|passphrase|secret|token|api[_-]?key|authorization)"
_SECRETS = [
    (re.compile(r"(?<=://)[^\s/?#]{0,500}@"), "***@"),
    # A password that contains a slash; a port is not a password.
    (re.compile(r"(?<=://)[^\s/?#@:]{0,200}:(?!\d{1,5}(?:[/?#\s]|$))[^\s@]{1,300}@"), "***@"),
    (
        re.compile(rf"""(?i)({_NAME}["']?)(\s*[=:]\s*|\s*,\s*(?=["']))(?:{_QUOTED}|(?:bearer|basic)\s+\S+)"""),
        r"\1\2***",
    ),
    # MONAI Label logs its arguments as "name = value", to the end of the line.
    (re.compile(rf"(?i)({_NAME} = )[^\r\n]+"), r"\1***"),
    (re.compile(rf"""(?i)({_NAME}["']?\s*[=:]\s*|--[\w-]{{0,30}}{_NAME}\s+)[^\s&,;*"'][^\s&]*"""), r"\1***"),
    # Parameters of the login at a realm, in logged requests.
    (re.compile(r"([?&](?:code|state)=)[^&\s]{1,2000}"), r"\1***"),
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]{4,}"), r"\1 ***"),
]


def _file_handler(folder: Path) -> logging.Handler:
    folder.mkdir(parents=True, exist_ok=True)
    return RotatingFileHandler(
        folder / "app.log", maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", errors="backslashreplace"
    )


def _remove_handlers() -> None:
    """Remove the handlers of all loggers, whose records are then propagated to the root."""
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for owner in [logging.getLogger(), *loggers]:
        if owner.handlers:
            owner.propagate = True
        for handler in list(owner.handlers):
            owner.removeHandler(handler)
            handler.close()
