"""Share broken disks among tests of stores."""

import errno
import os
from contextlib import contextmanager

import pytest


@pytest.fixture
def failing(monkeypatch):
    """Context manager in which functions of `os`, or of another module, raise an OSError."""

    @contextmanager
    def fail(*functions, code=errno.ENOSPC, module=os):
        def fails(*arguments, **options):
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as broken:
            for function in functions:
                broken.setattr(module, function, fails)
            yield

    return fail
