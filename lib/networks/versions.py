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
    """Published model, and a folder of its last versions.

    Publications and roll-backs of several processes are serialised by a lock.

    Attributes:
        published_path: `<name>.pt`; the versions are `<name>-versions/<number>.pt`.
        keep: number of versions to keep, at least 1, including the published one.
    """

    published_path: Path
    keep: int = 5

    @property
    def folder(self) -> Path:
        return self.published_path.with_name(f"{self.published_path.stem}-versions")

    def numbers(self) -> list[int]:
        """List the numbers of kept versions, in ascending order."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := VERSION_FILE.fullmatch(name)))

    def path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.pt"

    def published_number(self) -> int:
        """Return the number of the published version; 0 if no usable model is published."""
        published = _load(self.published_path)
        return 0 if published is None else published.version

    def next_number(self) -> int:
        """Return an unused number: after a roll-back, newer versions keep their numbers."""
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
        """Store a model as the next version, and publish it.

        Args:
            model: its `version` and `predecessors` are ignored.
            base: number of the version that it was trained from, 0 for none. If another version is published, because
                of a roll-back, the model is stored but not published.
            spared: versions to keep regardless of `keep`.
            replaced: version to delete once this one is published, unless it is spared.

        Returns:
            The number of the new version, and True if it is published.

        Raises:
            OSError: the disk is full or the folder is not writable; the old model stays published.
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
        """List the kept versions that led to the published one, including it; none that was rolled back."""
        led_to_it = _led_to(_load(self.published_path))
        return [number for number in self.numbers() if number in led_to_it]

    def roll_back(self, number: int, labels: tuple[str, ...] | None = None) -> None:
        """Publish a kept version again; the next training starts from it.

        Args:
            labels: that the version must have been trained for; None for any.

        Raises:
            FileNotFoundError: no such version is kept.
            CheckpointError: its file cannot be used, or it was trained for other labels; the published version stays.
        """
        with self._lock():
            trained_for = load_checkpoint(self.path(number)).spec.labels
            if labels is not None and labels != trained_for:
                raise CheckpointError(
                    f"Version {number} was trained for the labels {', '.join(trained_for)}; the app has "
                    f"{', '.join(labels)}."
                )
            self._keep_published()
            write_atomically(self.published_path, self.path(number).read_bytes())

    def _prune(self, spared: set[int]) -> None:
        numbers = self.numbers()
        others = [number for number in numbers if number not in spared]
        for number in others[: max(0, len(numbers) - self.keep)]:
            self.path(number).unlink(missing_ok=True)

    def _keep_published(self) -> None:
        """Copy the published model to the versions, if it was not published by this class."""
        number = self.published_number()
        if number and not self.path(number).exists():
            write_atomically(self.path(number), self.published_path.read_bytes())

    def _lock(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")


def _load(path: Path) -> TrainedModel | None:
    try:
        return load_checkpoint(path)
    except (FileNotFoundError, CheckpointError):
        return None


def _led_to(model: TrainedModel | None) -> tuple[int, ...]:
    """Return the numbers of a model and of all versions that led to it, the oldest first."""
    return () if model is None else (*model.predecessors, model.version)
