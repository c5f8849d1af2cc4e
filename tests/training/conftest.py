"""Fixtures of tests that run whole trainings."""

import pytest

from lib.training import gate
from tests.training.phantoms import scans


@pytest.fixture
def five(tmp_path):
    """Five scans: the minimum number of which one is held out."""
    return scans(tmp_path, 5)


@pytest.fixture
def scores(monkeypatch):
    """Set the scores of networks in the order in which they are scored; kept versions are not scored again."""

    def script(*values):
        following = iter(values)
        monkeypatch.setattr(gate, "scan_score", lambda *_: next(following))

    return script
