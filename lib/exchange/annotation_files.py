"""Find the files of an import and their images, and collect all errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.exchange.study_images import visible_files, without_extension

Reader = Callable[[], Iterable[ClickRecord]]


@dataclass(frozen=True)
class NamingRule:
    """Rule for file names: `CASE<file_suffix>.nii.gz` belongs to the image `CASE<image_suffix>`.

    Attributes:
        file_suffix: end of the names of the files, before the extension; other files in a folder and hidden files, such
            as the `._case01.nii.gz` of macOS, are ignored.
        image_suffix: end of the ids of the images.
    """

    file_suffix: str = ""
    image_suffix: str = ""

    def files(self, paths: Iterable[Path], extensions: Sequence[str]) -> list[Path]:
        """Return the files among `paths`, and those with matching names in the folders among them.

        Raises:
            ImportRefusedError: a path does not exist, or a folder contains no such file.
        """
        endings = tuple(self.file_suffix + extension for extension in extensions)
        found: list[Path] = []
        for path in paths:
            if not path.exists():
                raise ImportRefusedError([f"{path} does not exist; expected a file or a folder."])
            files = visible_files(path, endings) if path.is_dir() else [path]
            if not files:
                raise ImportRefusedError([f"The folder {path} holds no file that ends in {' or '.join(endings)}."])
            found += files
        return found

    def image_of(self, path: Path) -> str:
        """Return the id of the image that a file belongs to."""
        return without_extension(path.name).removesuffix(self.file_suffix) + self.image_suffix


def read_all(readers: Iterable[Reader]) -> list[ClickRecord]:
    """Read the records of all files, with one reader each.

    Raises:
        ImportRefusedError: the errors of all files.
    """
    records: list[ClickRecord] = []
    refused: list[str] = []
    for read in readers:
        try:
            records += read()
        except ImportRefusedError as error:
            refused += error.sentences
    if refused:
        raise ImportRefusedError(refused)
    return records
