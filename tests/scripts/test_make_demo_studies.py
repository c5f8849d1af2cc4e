"""scripts/make_demo_studies.py: what it writes, and what it says of options that cannot be met."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest

from scripts.make_demo_studies import main


def read_nifti(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def test_it_writes_what_was_asked_for(tmp_path: Path) -> None:
    folders = ["--out", str(tmp_path / "studies"), "--truth", str(tmp_path / "truth")]

    returned = main([*folders, "--count", "2", "--shape", "26", "28", "30", "--spacing", "1", "1", "1"])

    assert returned == 0
    for folder in ("studies", "truth"):
        volumes = [read_nifti(path) for path in sorted((tmp_path / folder).glob("*.nii.gz"))]
        assert [volume.shape for volume in volumes] == [(26, 28, 30)] * 2
        assert [volume.header.get_zooms() for volume in volumes] == [(1.0, 1.0, 1.0)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--truth", "studies/truth"], "lies in studies_dir"),
        (["--truth", "truth", "--seed", "-1"], "positive"),
    ],
)
def test_a_refusal_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["--out", "studies", *options]) == 2

    assert message in capsys.readouterr().err
