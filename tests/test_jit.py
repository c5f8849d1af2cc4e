"""Compiled functions where numba's cache cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_losses_and_paths_compile_without_a_cache():
    """Restrict numba, which looks for a folder during imports, to NUMBA_CACHE_DIR, which is unset."""
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    environment.pop("NUMBA_CACHE_DIR", None)

    code = """
import lib.losses.interpolation_kernels, lib.supervision.shortest_path_kernel
from lib.jit import compiled
assert compiled(lambda number: number + 1)(2) == 3
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
