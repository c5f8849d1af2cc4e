"""Run `monailabel start_server` for this app: check all arguments first, and print no password.

Other commands and other apps are passed on to MONAI Label.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import uvicorn
from pydantic import TypeAdapter, ValidationError

from lib.server.process.logs import configure_logging
from lib.server.process.modes import set_umask
from lib.server.process.network import (
    Listening,
    NetworkError,
    end_process,
    require_encryption_beyond_loopback,
    require_login_beyond_loopback,
)
from lib.server.process.offline import stay_offline

ROOT = Path(__file__).resolve().parents[2]
SERVED = "monailabel.app:app"
APP = ROOT / "apps" / "inextremis"
USERNAME, PASSWORD = "MONAI_LABEL_DICOMWEB_USERNAME", "MONAI_LABEL_DICOMWEB_PASSWORD"
EXPECTED_STUDIES = "expected a folder of .nii.gz, .nii or .nrrd images or a http(s):// address"
# Options of MONAI Label's command that this app refuses, with the reason.
REFUSED_OPTIONS = {
    "--dryrun": "it writes all settings, passwords too, into a file",
    "--log_config": "the log goes to the console and to the project's folder",
    "--uvicorn_app": "the app is served by MONAI Label's",
    "--workers": "annotations and trainings are kept track of in one process",
}
HELP = "see monailabel start_server --app apps/inextremis --help"
# Time stamps of files lag by up to a clock tick.
CLOCK_TICK_S = 0.1


class StartError(ValueError):
    """Arguments with which the server cannot start; the text states the reason and the remedy in one sentence."""


def main(arguments: Sequence[str]) -> None:
    """Run the command; exit with code 2 and a sentence if the server cannot start.

    Args:
        arguments: Arguments of `monailabel`.
    """
    stay_offline()
    if not _is_for_this_app(arguments):
        from monailabel.main import Main

        return Main().run()
    options, unknown = _parser().parse_known_args(arguments[1:])
    try:
        _require_known(unknown)
        _start(options)
    except (StartError, NetworkError) as error:
        end_process(str(error))


def refuse_missing_studies(folder: Path) -> None:
    """Remove a studies folder that MONAI Label has created because it was missing.

    Call this before anything is written to the folder.

    Raises:
        StartError: The folder is empty and was created by this process.
    """
    try:
        if folder.stat().st_ctime < _process_start() + CLOCK_TICK_S:
            return
        folder.rmdir()  # fails if the folder is not empty
    except OSError:
        return
    raise StartError(f"The studies folder {folder.name!r} is not there; {EXPECTED_STUDIES}.")


def require_studies(studies: str, project_dir: str | Path | None = None) -> str:
    """Return the absolute path of a studies folder, or the address of an archive without its login.

    A login in the address is moved to the environment, where MONAI Label reads it.

    Args:
        studies: Folder or address that the user gave.
        project_dir: Folder of the annotations, if it is not the studies folder.

    Raises:
        StartError: The studies cannot be served.
    """
    if studies.lower().startswith(("http://", "https://")):
        return _without_login(studies)
    if not studies:
        raise StartError(f"The studies are an empty name; {EXPECTED_STUDIES}.")
    if not os.path.lexists(studies):
        raise StartError(f"The studies folder '{studies}' is not there; {EXPECTED_STUDIES}.")
    if not os.path.isdir(studies):
        raise StartError(f"The studies '{studies}' are no folder; {EXPECTED_STUDIES}.")
    if not os.access(studies, os.R_OK | os.X_OK):
        raise StartError(f"The studies folder '{studies}' cannot be read; allow it.")
    if not project_dir and not os.access(studies, os.W_OK):
        raise StartError(
            f"The studies folder '{studies}' cannot be written, and annotations are kept in it; allow it, or name "
            "another folder for them with --conf project_dir /absolute/folder."
        )
    return os.path.realpath(studies)


def _start(options: argparse.Namespace) -> None:
    conf = dict(options.conf or ())
    _require_certificate(options)
    _require_login_or_loopback(options, conf)
    studies = require_studies(options.studies, conf.get("project_dir"))
    if studies.startswith("http") and studies != options.studies:
        # Restart without the login, as every user of this machine can read the arguments of a process.
        words = [word.replace(options.studies, studies) for word in sys.orig_argv[1:]]
        os.execv(sys.executable, [sys.executable, *words])
    set_umask(group=conf.get("file_access") == "group")
    configure_logging(None)
    _hand_to_monai_label(options.port, studies, conf)
    _serve(options, ["127.0.0.1", conf.get("trusted_proxies", "")])


def _hand_to_monai_label(port: int, studies: str, conf: Mapping[str, str]) -> None:
    """Set the environment of this process and its trainings, as MONAI Label's own command does."""
    # Waiting threads sleep; with the default, a prediction beside a training on two cores takes six times as long.
    # PyTorch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from monailabel.config import settings

    settings.MONAI_LABEL_SERVER_PORT = port
    settings.MONAI_LABEL_APP_DIR = str(APP)
    settings.MONAI_LABEL_STUDIES = studies
    settings.MONAI_LABEL_APP_CONF = dict(conf)
    for name, value in settings.model_dump(mode="json").items():
        if value is not None:
            os.environ[name] = json.dumps(value) if isinstance(value, dict | list) else str(value)
    # Nothing is imported from the working directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ["PYTHONPATH"] = _joined(str(ROOT), os.environ.get("PYTHONPATH"))
    # Programs of the environment are found even if it is not activated.
    os.environ["PATH"] = _joined(str(Path(sys.prefix) / "bin"), os.environ.get("PATH"))


def _serve(options: argparse.Namespace, proxies: Sequence[str]) -> None:
    logging.getLogger().setLevel(options.verbose)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    uvicorn.run(
        SERVED,
        host=options.host,
        port=options.port,
        root_path=options.root_path,
        forwarded_allow_ips=",".join(filter(None, proxies)),
        log_level=options.log_level,
        log_config=None,
        access_log=options.access_log,
        ssl_keyfile=options.ssl_keyfile,
        ssl_certfile=options.ssl_certfile,
        ssl_keyfile_password=options.ssl_keyfile_password,
        ssl_ca_certs=options.ssl_ca_certs,
        limit_concurrency=options.limit_concurrency,
    )


def _is_for_this_app(arguments: Sequence[str]) -> bool:
    if list(arguments[:1]) != ["start_server"]:
        return False
    finder = argparse.ArgumentParser(add_help=False)
    finder.add_argument("-a", "--app")
    app = finder.parse_known_args(arguments[1:])[0].app
    return app is not None and os.path.realpath(app) == str(APP)


def _parser() -> argparse.ArgumentParser:
    """Return a parser of the options of MONAI Label's `start_server` that apply to this app."""
    parser = argparse.ArgumentParser("monailabel start_server", allow_abbrev=False)
    add = parser.add_argument
    add("-a", "--app", required=True, help="folder of the app")
    add("-s", "--studies", required=True, help="folder of images, or address of a DICOMweb archive")
    add("-c", "--conf", nargs=2, action="append", metavar=("NAME", "VALUE"), help="setting of the app; any number")
    add("-i", "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("-p", "--port", default=8000, type=_port, help="port to listen on (default: 8000)")
    add("-v", "--verbose", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="level of the log")
    add("--ssl_keyfile", help="key of TLS")
    add("--ssl_certfile", help="certificate of TLS")
    add("--ssl_keyfile_password", help="of an encrypted key")
    add("--ssl_ca_certs", help="certificates that clients must have theirs from")
    add("--limit_concurrency", type=int, help="connections at a time")
    add("--access_log", action="store_true", help="log each request")
    add("--root_path", default="", help="path at which a proxy in front serves this")
    levels = ["critical", "error", "warning", "info", "debug", "trace"]
    add("--log_level", default="info", choices=levels, help="level of uvicorn's log")
    return parser


def _require_known(unknown: Sequence[str]) -> None:
    """Refuse unknown arguments; the message names only options, as a value beside a typo may be a password."""
    options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if options and options[0] in REFUSED_OPTIONS:
        raise StartError(f"The option {options[0]} is not for this app: {REFUSED_OPTIONS[options[0]]}; leave it out.")
    if options:
        raise StartError(f"There is no option '{options[0]}'; {HELP}.")
    if unknown:
        raise StartError(f"An argument belongs to no option; put quotes around one with blanks, or {HELP}.")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"'{text}' is no port; expected a whole number from 1 to 65535")
    return int(text)


def _require_certificate(options: argparse.Namespace) -> None:
    if not options.ssl_keyfile and not options.ssl_certfile:
        return
    if not options.ssl_certfile:
        raise StartError("TLS needs a certificate beside its key; give it with --ssl_certfile.")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, options.ssl_keyfile_password)
        if options.ssl_ca_certs:
            context.load_verify_locations(options.ssl_ca_certs)
    except OSError as error:
        reason = "not of the expected form" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartError(
            f"The certificate or the key for TLS cannot be used ({reason}); check --ssl_certfile, --ssl_keyfile and "
            "the key's password."
        ) from error


def _without_login(address: str) -> str:
    try:
        parts: SplitResult = urlsplit(address)
        login, _, server = parts.netloc.rpartition("@")
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError as error:
        # The message does not quote the address: it may hold a password.
        raise StartError(
            "The address of the archive cannot be read; expected one such as http://localhost:8042/dicom-web, and its "
            f"login, if it asks for one, in {USERNAME} and {PASSWORD}."
        ) from error
    if login:
        name, _, password = login.partition(":")
        _keep_login(unquote(name), unquote(password))
    return urlunsplit(parts._replace(scheme=parts.scheme.lower(), netloc=server))


def _keep_login(name: str, password: str) -> None:
    os.environ[USERNAME], os.environ[PASSWORD] = name, password
    if "monailabel.config" in sys.modules:  # which has read the environment
        from monailabel.config import settings

        settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD = name, password


def _require_login_or_loopback(options: argparse.Namespace, conf: Mapping[str, str]) -> None:
    from monailabel.config import settings

    config = uvicorn.Config(SERVED, host=options.host, ssl_certfile=options.ssl_certfile, log_config=None)
    if settings.MONAI_LABEL_AUTH_ENABLE or conf.get("users"):
        proxies = [proxy for proxy in conf.get("trusted_proxies", "").split(",") if proxy]
        return require_encryption_beyond_loopback(Listening(config), proxies)
    allowed = _is_true(conf.get("allow_network_without_login"))
    require_login_beyond_loopback(Listening(config), allowed=allowed)


def _is_true(value: str | None) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False  # the app reports the invalid value


def _process_start() -> float:
    """Return the start time of this process, in seconds since 1970."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


def _joined(first: str, others: str | None) -> str:
    return os.pathsep.join([first, *filter(None, [others])])


if __name__ == "__main__":
    main(sys.argv[1:])
