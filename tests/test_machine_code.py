"""Compiled functions, where their machine code can be kept on disk and where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba

from lib.machine_code import compiled

ROOT = Path(__file__).parents[1]


def test_compiles_where_machine_code_cannot_be_kept(monkeypatch):
    njit = numba.njit

    def without_a_folder(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_a_folder)
    assert compiled(lambda number: number + 1)(2) == 3


def test_losses_and_paths_can_be_imported_where_machine_code_cannot_be_kept():
    """Numba looks for a folder while a module is imported. Here it may look in NUMBA_CACHE_DIR only, which is unset."""
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    environment.pop("NUMBA_CACHE_DIR", None)

    subprocess.run(
        [sys.executable, "-c", "import lib.losses.interpolation_kernels, lib.supervision.shortest_path_kernel"],
        cwd=ROOT,
        env=environment,
        check=True,
    )
