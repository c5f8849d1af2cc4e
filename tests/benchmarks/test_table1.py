"""The command of the table: what it writes, how it goes on, what it says to bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.evidence.folders import write_dataset

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.table1", *map(str, arguments)]


def table1(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)


def options(tmp_path: Path, *rows: str) -> list[object]:
    fixed = ["--small", "--preset", "cpu", "--iterations", "1", "--rows", *rows]
    return ["--dataset", tmp_path / "dataset", "--out", tmp_path / "out", *fixed]


def test_two_processes_share_the_rows_and_a_third_finds_nothing_to_do(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset")
    rows = ["app_clicks", "full"]

    beside = subprocess.Popen(command(*options(tmp_path, *rows)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    done = table1(*options(tmp_path, *rows))
    assert beside.wait(timeout=300) == 0
    said = done.stdout + beside.communicate()[0]

    assert done.returncode == 0, done.stderr
    assert said.count("seed 0: mean Dice") == 2
    out = tmp_path / "out"
    table = (out / "table1_test.md").read_text()
    assert "The app, clicks in all scans" in table and "Full masks of all scans" in table
    assert "torch" in table.splitlines()[-1]
    cases = (out / "cases_test.csv").read_text().splitlines()
    assert [line.split(",")[:5] for line in cases[1:]] == [[row, "0", "test", "test_0", "lesion"] for row in rows]
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"box_plots_test.png", "overlays.png", "annotation_time_test.png"}

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    again = table1(*options(tmp_path, *rows))
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")} == before


@pytest.mark.parametrize(
    ("is_dataset", "row", "message"),
    [
        (True, "fool", "There is no row 'fool'; expected some of app, table, crf, curve, all"),
        (False, "full", "holds no .nii.gz images"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(tmp_path: Path, is_dataset: bool, row: str, message: str) -> None:
    if is_dataset:
        write_dataset(tmp_path / "dataset")

    refused = table1(*options(tmp_path, row))

    assert refused.returncode == 1
    assert message in refused.stderr and "Traceback" not in refused.stderr


def test_the_help_says_what_a_row_may_be() -> None:
    shown = table1("--help").stdout

    assert all(name in shown for name in ("--small", "--seeds", "inextremis", "disturbed"))
