"""List the images of a studies folder by the ids that the server gives them."""

from __future__ import annotations

from pathlib import Path

from lib.geometry.volume_files import EXTENSIONS


class StudyImages:
    """Images of a folder; its subfolders are not searched.

    Raises:
        ValueError: the folder does not exist, or contains no image.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"The studies folder {folder} does not exist; expected a folder of images.")
        self.folder = folder
        self.paths = {without_extension(path.name): path for path in visible_files(folder, EXTENSIONS)}
        if not self.paths:
            raise ValueError(
                f"The studies folder {folder} holds no {', '.join(EXTENSIONS)} image, and subfolders are not searched."
            )

    def id_of(self, name: str) -> str | None:
        """Return the id of the image with this id or file name; None if there is none."""
        image_id = name if name in self.paths else without_extension(name)
        return image_id if image_id in self.paths else None


def without_extension(file_name: str) -> str:
    """Return the name without the extension of an image, if it has one."""
    extension = next((end for end in EXTENSIONS if file_name.endswith(end)), "")
    return file_name.removesuffix(extension)


def visible_files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files in a folder, or links to files, with one of these endings and without a leading dot."""
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(endings) and path.name[0] != ".")
    return [path for path in paths if path.is_file()]
