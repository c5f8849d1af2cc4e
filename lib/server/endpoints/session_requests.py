"""Create, show and remove sessions with an uploaded image."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import File, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from monailabel.interfaces.utils.app import app_instance

from lib.geometry.volume import VolumeError, read_geometry
from lib.server.http.upload_sessions import Session, Sessions
from lib.server.http.uploads import stored_upload


def sessions() -> Sessions:
    """Return the sessions of the running app."""
    return app_instance().upload_sessions


async def create_session(files: Annotated[list[UploadFile], File()], expiry: int = 0) -> dict[str, Any]:
    """Keep one uploaded volume for `expiry` seconds after its last use, at most an hour."""
    if len(files) != 1:
        raise HTTPException(422, f"There are {len(files)} files; expected one volume.")
    session = await run_in_threadpool(_create, files[0], expiry)
    return {"session_id": session.id, "session_info": session.info()}


def _create(file: UploadFile, expiry_s: int) -> Session:
    upload = stored_upload(file)
    try:
        read_geometry(upload)
        return sessions().add(upload, expiry_s)
    except VolumeError as error:
        upload.unlink(missing_ok=True)
        raise HTTPException(422, str(error)) from error


def open_session(session_id: str) -> Session:
    """Return a session; raise HTTPException 404 if it does not exist or has ended."""
    session = sessions().get(session_id)
    if session is None:
        raise HTTPException(404, f"There is no session {session_id[:80]!r}; it may have ended.")
    return session


def get_session(session_id: str, image: bool = False) -> Any:
    """Return the information about a session, or its file with `image=true`."""
    session = open_session(session_id)
    if image:
        return FileResponse(session.image, media_type="application/octet-stream", filename=session.image.name)
    return session.info()


def remove_session(session_id: str) -> dict[str, Any]:
    """End a session and delete its file."""
    session = open_session(session_id)
    sessions().remove(session_id)
    return session.info()
