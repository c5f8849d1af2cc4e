"""The published network and the ones that it replaced, as files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib.annotations.atomic_write import write_atomically
from lib.networks.checkpoint import CheckpointError, TrainedModel, TrainingState, load_checkpoint, save_checkpoint

VERSION_FILE = re.compile(r"(\d+)\.pt")


@dataclass(frozen=True)
class ModelVersions:
    """The file that requests are answered with, and beside it a folder of the last few versions of it.

    Attributes:
        published_path: `<name>.pt`; the versions are `<name>-versions/<number>.pt`.
        keep: at least 1, how many versions stay, the published one among them.
    """

    published_path: Path
    keep: int = 5

    @property
    def folder(self) -> Path:
        return self.published_path.with_name(f"{self.published_path.stem}-versions")

    def numbers(self) -> list[int]:
        """Those that are kept, in ascending order."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := VERSION_FILE.fullmatch(name)))

    def path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.pt"

    def next_number(self) -> int:
        """No version was ever published under it: after a roll-back, the newer ones keep their numbers."""
        return 1 + max([self._published_number(), *self.numbers()])

    def publish(self, model: TrainedModel, state: TrainingState) -> None:
        """Makes a model the one that requests are answered with, in one step for whoever reads.

        Raises:
            OSError: the disk is full or the folder cannot be written; the old model is then still published.
        """
        self._keep_published()
        save_checkpoint(self.path(model.version), model, state)
        write_atomically(self.published_path, self.path(model.version).read_bytes())
        for number in self.numbers()[: -self.keep]:
            self.path(number).unlink(missing_ok=True)

    def roll_back(self, number: int) -> None:
        """Publishes a kept version again; trainings go on from it.

        Raises:
            FileNotFoundError: no such version is kept.
            CheckpointError: its file cannot be used; what is published stays.
        """
        load_checkpoint(self.path(number))
        write_atomically(self.published_path, self.path(number).read_bytes())

    def _keep_published(self) -> None:
        """A model that came from elsewhere is not among the versions yet."""
        number = self._published_number()
        if number and not self.path(number).exists():
            write_atomically(self.path(number), self.published_path.read_bytes())

    def _published_number(self) -> int:
        try:
            return load_checkpoint(self.published_path).version
        except (FileNotFoundError, CheckpointError):
            return 0
