"""The scores of scans, kept on disk."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from lib.annotations.atomic_write import write_atomically

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_Scores = dict[str, dict[str, float]]


class UncertaintyScores:
    """Scores by version of the model, scan and label: those of the newest, and the fullest set before it.

    The set before is there until the newest covers as many scans: with trainings that follow each other closely, there
    may be little time to score in between.

    Args:
        path: of the file; it belongs among the versions of the model, whose numbers are not used twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._by_version = _load(path)

    def begin(self, version: int) -> None:
        """Makes a version the newest; scores that it has are kept."""
        with self._lock:
            kept = self._by_version.pop(version, {})
            if self._by_version:
                fullest = max(self._by_version, key=lambda v: len(self._by_version[v]))
                self._by_version = {fullest: self._by_version[fullest]}
            self._by_version[version] = kept

    def add(self, version: int, image_id: str, scores: Mapping[str, float]) -> None:
        """Keeps the scores of a scan, by label. A disk that is full is named in the log."""
        with self._lock:
            self._by_version.setdefault(version, {})[image_id] = dict(scores)
            content = {
                "format_version": FORMAT_VERSION,
                "versions": [{"version": v, "scores": scans} for v, scans in self._by_version.items()],
            }
            try:
                write_atomically(self.path, json.dumps(content, indent=1).encode())
            except OSError as error:
                logger.error("The scores of %s are not kept on disk: %s.", image_id, error)

    def scored(self, version: int) -> set[str]:
        """Scans that have scores of this version."""
        with self._lock:
            return set(self._by_version.get(version, ()))

    def of(self, image_ids: Iterable[str], label: str) -> dict[str, float]:
        """Scores in [0, 1] of those scans that have one.

        All are of one version, as others cannot be compared: the one that covers most of the scans, the newest of
        those that cover as many.
        """
        image_ids = list(image_ids)
        covered: dict[str, float] = {}
        with self._lock:
            for scans in self._by_version.values():
                of_version = {i: scans[i][label] for i in image_ids if label in scans.get(i, ())}
                if len(of_version) >= len(covered):
                    covered = of_version
        return covered


def _load(path: Path) -> dict[int, _Scores]:
    """Nothing where there is no file; one that cannot be read is named in the log, and made anew by scoring."""
    try:
        content = json.loads(path.read_bytes())
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']!r}; expected {FORMAT_VERSION}")
        return {
            int(entry["version"]): {
                str(image_id): {str(label): float(score) for label, score in scores.items()}
                for image_id, scores in entry["scores"].items()
            }
            for entry in content["versions"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.error("The scores %s cannot be read (%r); scans are scored anew.", path.name, error)
        return {}
