"""Publish a network, keep the last versions, and roll back."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from lib.annotations.atomic_write import write_atomically
from lib.networks.checkpoint import CheckpointError, TrainedModel, TrainingState, load_checkpoint, save_checkpoint

VERSION_FILE = re.compile(r"(\d+)\.pt")


@dataclass(frozen=True)
class ModelVersions:
    """The file that requests are answered with, and beside it a folder of the last few versions of it.

    A training and a roll-back, each in a process of its own, wait for each other.

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

    def published_number(self) -> int:
        """0 where nothing usable is published."""
        published = _load(self.published_path)
        return 0 if published is None else published.version

    def next_number(self) -> int:
        """No version that is kept has it: after a roll-back, the newer ones keep their numbers."""
        return 1 + max([self.published_number(), *self.numbers()])

    def publish(
        self,
        model: TrainedModel,
        state: TrainingState,
        *,
        base: int,
        spared: Collection[int] = (),
        replaced: int | None = None,
    ) -> tuple[int, bool]:
        """Keeps a model as the next version, and makes it the one that requests are answered with.

        Args:
            model: its `version` and `predecessors` are not looked at.
            base: number of the version that it was trained from, 0 for none. Where another one is published by now,
                somebody rolled back: the model is kept and not published.
            spared: versions that stay, however many there are.
            replaced: a version that goes in any case once this one is published, unless it is spared.

        Returns:
            Its number, and whether it is published.

        Raises:
            OSError: the disk is full or the folder cannot be written; the old model is then still published.
        """
        with self._lock():
            self._keep_published()
            number = self.next_number()
            copies = (_load(self.path(base)), _load(self.published_path))
            base_model = next((copy for copy in copies if copy is not None and copy.version == base), None)
            led_to_it = _led_to(base_model) or ((base,) if base else ())
            save_checkpoint(self.path(number), replace(model, version=number, predecessors=led_to_it), state)
            is_base = self.published_number() == base
            if is_base:
                write_atomically(self.published_path, self.path(number).read_bytes())
                if replaced is not None and replaced not in spared:
                    self.path(replaced).unlink(missing_ok=True)
            self._prune({*spared, number, self.published_number()})
            return number, is_base

    def led_to_published(self) -> list[int]:
        """The versions that are kept and led to the published one, it among them: none that was rolled back."""
        led_to_it = _led_to(_load(self.published_path))
        return [number for number in self.numbers() if number in led_to_it]

    def roll_back(self, number: int) -> None:
        """Publishes a kept version again; trainings go on from it.

        Raises:
            FileNotFoundError: no such version is kept.
            CheckpointError: its file cannot be used; what is published stays.
        """
        with self._lock():
            load_checkpoint(self.path(number))
            self._keep_published()
            write_atomically(self.published_path, self.path(number).read_bytes())

    def _prune(self, spared: set[int]) -> None:
        numbers = self.numbers()
        others = [number for number in numbers if number not in spared]
        for number in others[: max(0, len(numbers) - self.keep)]:
            self.path(number).unlink(missing_ok=True)

    def _keep_published(self) -> None:
        """A model that came from elsewhere is not among the versions yet."""
        number = self.published_number()
        if number and not self.path(number).exists():
            write_atomically(self.path(number), self.published_path.read_bytes())

    def _lock(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")


def _load(path: Path) -> TrainedModel | None:
    """None where there is nothing usable."""
    try:
        return load_checkpoint(path)
    except (FileNotFoundError, CheckpointError):
        return None


def _led_to(model: TrainedModel | None) -> tuple[int, ...]:
    """Numbers of a model and of all that led to it, kept or not, the oldest first."""
    return () if model is None else (*model.predecessors, model.version)
