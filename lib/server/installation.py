"""Turn MONAI Label's application into this server: gate, routes, time-outs and folders."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastapi import FastAPI
from monailabel.config import settings as monai_label
from starlette.middleware import Middleware

from lib.geometry.volume_size import MAX_VOLUME_VARIABLE
from lib.server.archive.archive_proxy import ArchiveProxy
from lib.server.audit import AuditLog
from lib.server.endpoints.login_requests import LoginPages
from lib.server.http.guard import Guard
from lib.server.http.request_body import BodyLimits
from lib.server.http.request_gate import Gate
from lib.server.http.timeouts import limit_connections
from lib.server.jobs.training_process import fail_tasks_that_cannot_start
from lib.server.login.directory import Directory
from lib.server.login.login_setup import code_flow_of, directory_of, login_of, require_login
from lib.server.pages.pages import Pages
from lib.server.process.logs import configure_logging
from lib.server.process.network import (
    Listening,
    drop_server_header,
    require_encryption_beyond_loopback,
    require_login_beyond_loopback,
    starting_server,
)
from lib.server.process.private_folder import make_private_folder
from lib.server.routes import routes, serve
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.datastore import Studies
from lib.server.studies.open_studies import archive_login, archive_prefixes

logger = logging.getLogger(__name__)


class ServerSettings(Protocol):
    """Settings of the app that the server uses (explained in `lib.configs.settings.AppSettings`)."""

    @property
    def allow_network_without_login(self) -> bool: ...

    @property
    def allowed_hosts(self) -> tuple[str, ...]: ...

    @property
    def allowed_origins(self) -> tuple[str, ...]: ...

    @property
    def max_volume_gb(self) -> float: ...

    @property
    def users(self) -> Path | None: ...

    @property
    def session_hours(self) -> float: ...

    @property
    def n_readers(self) -> int: ...

    @property
    def trusted_proxies(self) -> tuple[str, ...]: ...


def has_event_loop() -> bool:
    """Tell whether this code runs in a server, rather than in a training process."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True)
class Installation:
    """Starting server."""

    listening: Listening | None
    private_folder: Path
    directory: Directory | None

    @classmethod
    def prepare(cls, settings: ServerSettings) -> Installation:
        """Check the login and the address that the server would listen on, before anything is opened.

        Raises:
            NetworkError: It would listen beyond this machine without a login, or with a login but unencrypted.
            LoginSetupError: The login cannot be used.
        """
        directory = directory_of(settings.users)
        if settings.n_readers > 1:
            require_login(directory)
        listening = starting_server()
        if directory is None:
            require_login_beyond_loopback(listening, allowed=settings.allow_network_without_login)
        else:
            require_encryption_beyond_loopback(listening, settings.trusted_proxies)
        # Trainings import nothing from their working directory.
        os.environ["PYTHONSAFEPATH"] = "1"
        os.environ[MAX_VOLUME_VARIABLE] = str(settings.max_volume_gb)
        return cls(listening, make_private_folder(), directory)

    def is_ending(self) -> bool:
        """Tell whether the server is shutting down and waits for the answers in progress."""
        server = self.listening.server if self.listening is not None else None
        return server is not None and server.should_exit

    def install(self, application: FastAPI, studies: Studies, settings: ServerSettings) -> None:
        """Replace the routes and the middleware of MONAI Label's application."""
        configure_logging(studies.project.logs)
        if self.listening is not None:
            limit_connections(self.listening.config)
            drop_server_header(self.listening.config)
        proxy = None
        if isinstance(studies, ArchiveStudies):
            prefixes = dict(zip(("qido", "wado", "stow"), archive_prefixes(), strict=True))
            timeout_s = monai_label.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT
            proxy = ArchiveProxy(studies.archive.url, archive_login(), prefixes, timeout_s)
        login = None if self.directory is None else login_of(self.directory, studies.project, settings.session_hours)
        has_readings = studies.readings.people > 1
        pages = Pages("InExtremIS", proxy is not None, asks_login=login is not None, has_readings=has_readings)
        login_pages = None if login is None else LoginPages(login, code_flow_of(login.directory))
        served = routes(pages, proxy, login_pages, has_readings=has_readings)
        serve(application, served, Guard(login, AuditLog(studies.project.audit)))
        gate = Middleware(
            Gate,
            hosts=settings.allowed_hosts,
            origins=settings.allowed_origins,
            limits=BodyLimits(upload_bytes=int(settings.max_volume_gb * 1e9)),
        )
        application.user_middleware = [gate]
        # MONAI Label creates the app when the application has already started; None makes it rebuild the stack.
        application.middleware_stack = None
        fail_tasks_that_cannot_start()

    def log_address(self) -> None:
        """Log the address of the annotation page."""
        url = self.listening.url if self.listening is not None else None
        if url is not None:
            logger.info("Open %s in a browser to annotate.", url)
