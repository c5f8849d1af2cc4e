"""Start the server on STUDIES: a folder of images (.nii.gz, .nii or .nrrd), or the address of a DICOMweb server.

MONAI_LABEL_AUTH_ENABLE=true and MONAI_LABEL_AUTH_REALM_URI in the environment let users log in by OpenID Connect.
With a login and a certificate, --host may be an address that other machines reach.

All MR and CT series of a DICOMweb server are served; --conf modalities MR,CT,PT adds PET. The environment variable
MONAI_LABEL_DICOMWEB_SEARCH_FILTER='{"PatientID": "7"}' filters by other DICOMweb attributes instead.
MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD hold the login of the DICOMweb server.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from lib.geometry.volume_files import EXTENSIONS
from lib.server import launch
from lib.server.process.network import (
    Listening,
    NetworkError,
    is_loopback,
    require_encryption_beyond_loopback,
    require_login_beyond_loopback,
)
from lib.server.project import is_archive
from scripts.terminal import add_conf, complain, refuse, script_parser, tell

EXAMPLE = """%(prog)s studies --labels tumour,cyst
%(prog)s http://localhost:8042/dicom-web --port 8001"""
EXPECTED = "expected a folder of images or a http(s):// address"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
TIMEOUT_S = 2.0


class RefusedError(ValueError):
    """Raised where the server cannot be started; the text says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    try:
        options = _options(parser, arguments)
        conf = dict(options.conf)
        tls = _tls(options)
        _require_safe_host(options, conf)
        studies = _checked_studies(options.studies, conf)
        _require_free(options.host, options.port)
    except (RefusedError, launch.StartError, NetworkError) as error:
        return refuse(f"{parser.prog}: {error}")
    if options.studies == studies or not is_archive(studies):  # else the launcher hides a login, and starts this again
        scheme = "https" if tls else "http"
        tell(
            f"Starting the server for {scheme}://{options.host}:{options.port} (OHIF, for DICOMweb studies: /ohif/); "
            "stop it with Ctrl-C."
        )
        sys.stdout.flush()
    if options.labels is not None:
        conf["labels"] = options.labels
    settings = [word for name, value in conf.items() for word in ("--conf", name, value)]
    place = ["--host", options.host, "--port", str(options.port)]
    launch.main(["start_server", "--app", str(launch.APP), "--studies", options.studies, *place, *tls, *settings])
    return 0


def _options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments. Raises: RefusedError: an argument has no meaning."""
    try:
        options, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise RefusedError(f"{error}; see {parser.prog} --help.") from error
    if unknown:
        # The word beside a mistyped option may be a password.
        name = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
        raise RefusedError(f"There is no option {name!r}; see {parser.prog} --help.")
    studies = options.studies
    if not studies:
        raise RefusedError(f"No studies are given; {EXPECTED}, see {parser.prog} --help.")
    if len(studies) > 1:
        raise RefusedError(f"The studies are given twice, {studies[0]!r} and {studies[1]!r}; give one.")
    options.studies = studies[0]
    return options


def _tls(options: argparse.Namespace) -> list[str]:
    """Return the launcher's options for HTTPS. Raises: RefusedError: a file is missing or cannot be read."""
    files = {"--ssl_certfile": options.tls_cert, "--ssl_keyfile": options.tls_key}
    if set(files.values()) == {None}:
        return []
    for file in files.values():
        if file is None:
            raise RefusedError("HTTPS needs both --tls-cert and --tls-key; give the other one too.")
        if not (file.is_file() and os.access(file, os.R_OK)):
            raise RefusedError(f"The file '{file}' for HTTPS cannot be read; correct its name, or allow it.")
    return [word for option, file in files.items() for word in (option, str(file.resolve()))]


def _require_safe_host(options: argparse.Namespace, conf: Mapping[str, str]) -> None:
    """Check the address. Raises: NetworkError: others would reach the server without a login or encryption."""
    listening = Listening(uvicorn.Config(launch.SERVED, host=options.host, ssl_certfile=options.tls_cert))
    if conf.get("users") or _is_yes(os.environ.get("MONAI_LABEL_AUTH_ENABLE")):
        proxies = [proxy for proxy in conf.get("trusted_proxies", "").split(",") if proxy]
        return require_encryption_beyond_loopback(listening, proxies)
    allowed = _is_yes(conf.get("allow_network_without_login"))
    require_login_beyond_loopback(listening, allowed=allowed)
    if not is_loopback(options.host):
        anybody = f"everybody who reaches this machine on {options.host}"
        complain(f"Warning: {anybody} can read and change the studies without a login.")


def _checked_studies(studies: str, conf: Mapping[str, str]) -> str:
    """Return the studies as `require_studies` does. Raises: RefusedError, StartError: they cannot be served."""
    if is_archive(studies):
        _require_answer(studies)
        return launch.require_studies(studies)
    folder = launch.require_studies(studies, conf.get("project_dir"))
    if not any(path.name.endswith(EXTENSIONS) and path.is_file() for path in Path(folder).iterdir()):
        raise RefusedError(
            f"The studies folder '{studies}' holds no {', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]} image, and "
            "subfolders are not searched; convert DICOM files to NIfTI, or give the address of a DICOMweb server that "
            "has them."
        )
    return folder


def _require_answer(address: str) -> None:
    """Connect to the DICOMweb server. Raises: RefusedError: it does not answer."""
    shown = re.sub("//.*@", "//", address)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        host = None
    if not host:
        raise RefusedError(
            f"The address '{shown}' cannot be read; expected one such as http://localhost:8042/dicom-web."
        )
    if not is_loopback(host) and any(os.environ.get(name) for name in PROXIES):
        return  # a proxy may reach what this machine cannot
    if not _answers(host, port):
        raise RefusedError(
            f"Nothing answers on port {port} of {host}; start the DICOMweb server there, or correct '{shown}'."
        )


def _require_free(host: str, port: int) -> None:
    """Check that a port is free. Raises: RefusedError: it is in use."""
    address = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    if _answers(address, port):
        raise RefusedError(
            f"Port {port} is in use on {address}; stop what listens there, or choose another with --port."
        )


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _is_yes(value: str | None) -> bool:
    return (value or "").lower() in ("true", "t", "yes", "y", "on", "1")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    parser.allow_abbrev = parser.exit_on_error = False
    parser.add_argument("studies", nargs="*", metavar="STUDIES", help="a folder of images or a http(s):// address")
    parser.add_argument("--labels", metavar="A,B", help="structures to segment: index 1, 2, ... (default: lesion)")
    parser.add_argument("--port", type=_port, default=8000, metavar="NUMBER", help="port (default: %(default)s)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s, not reached from other machines)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate for HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the certificate")
    add_conf(
        parser,
        ", all are in docs/settings.md. 'users /absolute/file' asks for a login. 'allow_network_without_login true' "
        "allows another --host without a login. 'project_dir /absolute/folder' holds annotations, models and logs, so "
        "that STUDIES may be read-only",
    )
    return parser


def _port(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"the port is '{text}'; expected a whole number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
