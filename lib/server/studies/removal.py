"""Delete files by moving them into `removed/`, and restore them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lib.annotations.atomic_write import write_atomically
from lib.geometry.volume_files import EXTENSIONS
from lib.server.project import Project

_MANIFEST = "removed.json"


@dataclass(frozen=True)
class Removal:
    """Deletion that can be undone.

    Attributes:
        files: original path of each file, by its name in `folder`.
    """

    folder: Path
    image_id: str
    removed: str
    files: dict[str, Path]


def remove_files(project: Project, image_id: str, files: Sequence[Path], image_folder: Path) -> Path | None:
    """Move files and folders of an image into a new folder under `removed/`.

    The manifest is written first, so that an interrupted deletion can be undone too. Of a symbolic link, the link is
    moved and not the file that it points to.

    Args:
        image_folder: folder of the images.

    Returns:
        The new folder, or None if there are no files.

    Raises:
        OSError: a file cannot be moved; those before it are in `removed/`.
    """
    if not files:
        return None
    folder = project.removed / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}.{image_id}"
    places = {f"{number:02d}-{file.name}": file for number, file in enumerate(files)}
    content = {
        "image_id": image_id,
        "removed": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "files": {name: _written(file, project, image_folder) for name, file in places.items()},
    }
    write_atomically(folder / _MANIFEST, json.dumps(content, indent=1).encode())
    for name, file in places.items():
        _move(file, folder / name)
    return folder


def removals(project: Project, image_folder: Path) -> Iterator[Removal]:
    """Yield the deletions that can be undone, oldest first."""
    for folder in sorted(project.removed.glob("*")):
        try:
            content = json.loads((folder / _MANIFEST).read_bytes())
            files = {
                _file_name(name): _place(place[0], place[1], project, image_folder)
                for name, place in content["files"].items()
            }
            yield Removal(folder, str(content["image_id"]), str(content["removed"]), files)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue


def restore(removal: Removal) -> list[Path]:
    """Move the files of a deletion back.

    Returns:
        Paths of the restored files.

    Raises:
        FileExistsError: a file of the same name or image id exists; nothing was moved.
        OSError: a file cannot be moved.
    """
    left = {name: place for name, place in removal.files.items() if _exists(removal.folder / name)}
    for place in left.values():
        if newer := next((path for path in _of_same_id(place) if _exists(path)), None):
            raise FileExistsError(17, "There is a newer file at its place; move it away first", newer.name)
    for name, place in left.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        _move(removal.folder / name, place)
    (removal.folder / _MANIFEST).unlink()
    with suppress(OSError):  # the folder holds other files
        removal.folder.rmdir()
    return list(left.values())


def _of_same_id(place: Path) -> list[Path]:
    """Return the path, and the paths of files that would have the same image id."""
    extension = next((extension for extension in EXTENSIONS if place.name.endswith(extension)), None)
    if extension is None:
        return [place]
    return [place.with_name(place.name.removesuffix(extension) + other) for other in EXTENSIONS]


def _move(source: Path, target: Path) -> None:
    """Move a file, a folder or a link, also to another disk; the source is deleted last.

    Raises:
        OSError: it cannot be moved.
    """
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    part = target.with_name(f".{target.name}.part")
    try:
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, part, symlinks=True)
        else:
            shutil.copy2(source, part, follow_symlinks=False)
        os.rename(part, target)
    except BaseException:
        _remove(part)
        raise
    _remove(source)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _written(file: Path, project: Project, image_folder: Path) -> tuple[str, str]:
    """Return a path that stays valid if the project is moved: the name of a base folder, and the relative path."""
    if file.is_relative_to(project.folder):
        return "project", str(file.relative_to(project.folder))
    return "images", str(file.relative_to(image_folder))


def _file_name(name: str) -> str:
    if name in ("", "..") or name != Path(name).name:
        raise ValueError(f"{name} leaves its folder")
    return name


def _place(root: str, relative: str, project: Project, image_folder: Path) -> Path:
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise ValueError(f"{relative} leaves its folder")
    return {"project": project.folder, "images": image_folder}[root] / relative
