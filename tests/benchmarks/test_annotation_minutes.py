"""The command that replays annotators: what it writes, how it goes on, what it says to bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import annotation_minutes
from tests.benchmarks.evidence.folders import write_dataset

ROOT = Path(__file__).parents[2]
SHORT = {"preset": "cpu", "iterations": "2", "roi_size": "16x16x16", "levels": "2", "max_minutes": "0.05"}


def arguments(tmp_path: Path, *more: object) -> list[str]:
    conf = [word for name, value in SHORT.items() for word in ("--conf", name, value)]
    return [*map(str, ["--dataset", tmp_path / "dataset", "--out", tmp_path / "out", *conf, *more])]


@pytest.mark.slow
def test_clicks_acceptances_and_masks_by_hand_reach_a_server_and_a_second_start_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "dataset", training=5)
    words = arguments(tmp_path, "--arms", "fifth_drawn")

    call = [sys.executable, "-m", "benchmarks.annotation_minutes", *words]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    path = out / "runs" / "fifth_drawn,seed=0.json"
    result = json.loads(path.read_text())
    assert [len(scan["dices"]) > 0 for scan in result["scans"]] == [True] * 4 + [False]
    assert all(scan["accepted"] and scan["dices"][-1] >= 0.85 for scan in result["scans"][:4])
    first, last = result["trainings"]
    assert (first["scans"], last["scans"]) == (4, 5)
    assert first["version"] and len(first["dices"]) == 1
    assert 0 < first["ended_s"] - first["began_s"] < 120
    assert result["plan"]["conf"] == SHORT
    assert (out / "minutes.png").stat().st_size > 10_000
    assert (out / "minutes.md").read_text() in done.stdout

    before = path.stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", ["annotation_minutes", *words])
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    annotation_minutes.main()
    assert path.stat().st_mtime_ns == before
    assert " min: " not in capsys.readouterr().out

    other = refusal(monkeypatch, capsys, [*words, "--scans", "3"])
    assert "was made with scans None, and 3 is asked for now; choose another --out" in other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "'0' cannot be used; expected a whole number from 1"),
        (["--scans", "few"], "'few' cannot be used; expected a whole number from 1"),
        (["--minutes", "0"], "'0' cannot be used; expected a number above 0"),
        (["--arms", "clcks"], "invalid choice: 'clcks' (choose from"),
        (["--conf", "iteration", "3"], "--conf iteration: there is no such setting; did you mean 'iterations'?"),
        (["--conf", "iterations", "none"], "iterations: 'none' cannot be used"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    write_dataset(tmp_path / "dataset")

    assert message in refusal(monkeypatch, capsys, arguments(tmp_path, *words))


def test_a_folder_that_is_no_dataset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(monkeypatch, capsys, arguments(tmp_path))

    assert "dataset is no dataset; expected images/CASE.nii.gz and masks/CASE.nii.gz" in said


def test_a_dataset_without_a_split_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_dataset(tmp_path / "dataset") / "split.csv").unlink()

    assert "has no split.csv, so no training cases" in refusal(monkeypatch, capsys, arguments(tmp_path))


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Run the command, which must end with status 2, and return what it prints."""
    monkeypatch.setattr(sys, "argv", ["annotation_minutes", *words])
    with pytest.raises(SystemExit) as stopped:
        annotation_minutes.main()
    assert stopped.value.code == 2
    return capsys.readouterr().err
