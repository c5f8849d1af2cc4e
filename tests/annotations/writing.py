"""Run writers of stores in processes of their own."""

import subprocess
import sys
from pathlib import Path


def start_writer(code):
    """Start a process that runs code, which may import this checkout and these tests."""
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    code = f"import sys\nsys.path[:0] = {paths!r}\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
