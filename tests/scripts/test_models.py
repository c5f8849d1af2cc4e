"""The list of published models, and the way back to one of them."""

import pytest

from lib.networks.checkpoint import NetworkSpec, TrainedModel, TrainingState, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.training.record import TrainingRecord, TrainingRun
from scripts.models import main

SPEC = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "model"
    versions = ModelVersions(folder / "inextremis.pt")
    record = TrainingRecord()
    for number, score in ((1, 0.62), (2, 0.71)):
        versions.publish(TrainedModel(SPEC, SPEC.build(), number), TrainingState({}, 240 * number), base=number - 1)
        times = (f"2026-11-0{number}T10:00:00+00:00", f"2026-11-0{number}T10:02:00+00:00")
        record = record.with_run(TrainingRun(*times, number, 240 * number, 8, (2, "held-out"), score, None, 0.5))
    record.save(folder / "inextremis" / "record.json")
    return folder


def published(folder):
    return load_checkpoint(folder / "inextremis.pt").version


def test_list_tells_of_each_version_how_it_did(folder, capsys):
    assert main([str(folder.parent), "list"]) == 0

    answer = capsys.readouterr().out.splitlines()

    (first,) = [line for line in answer if "0.62" in line]
    (second,) = [line for line in answer if "0.71" in line]
    assert "2026-11-01T10:02" in first and "240" in first and "2 held-out" in first and "published" not in first
    assert "2026-11-02T10:02" in second and "480" in second and "published" in second


def test_roll_back_publishes_an_earlier_version(folder, capsys):
    assert main([str(folder.parent), "roll-back", "1"]) == 0

    assert published(folder) == 1
    assert "Version 1 is published again" in capsys.readouterr().out


def test_version_that_is_not_kept_is_refused(folder, capsys):
    assert main(["elsewhere", "--model-dir", str(folder), "roll-back", "7"]) == 2

    assert published(folder) == 2
    assert "There is no version 7" in (said := capsys.readouterr().err) and "these are kept: 1, 2" in said


def test_folder_without_a_model_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), "list"]) == 2

    assert "There is no model" in capsys.readouterr().err


def test_broken_model_is_refused_with_a_sentence(folder, capsys):
    (folder / "inextremis.pt").write_bytes(b"half a mod")

    assert main([str(folder.parent), "list"]) == 2

    assert "The model inextremis.pt cannot be used" in capsys.readouterr().err
