"""The script that makes the net of the click masks."""

import nibabel as nib
import numpy as np
import pytest

from lib.clickmask.structure_net import StructureNet
from scripts.train_structure_net import main

QUICK = ["--turned", "1", "--random", "4", "--steps", "3"]


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    for case in ("one", "two"):
        folder = tmp_path / "dataset" / case
        folder.mkdir(parents=True)
        label = np.zeros((30, 28, 26), np.uint8)
        label[8:20, 9:18, 10:17] = 1
        image = np.where(label, 300, 100) + rng.normal(0, 10, label.shape)
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / "image.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "label.nii.gz")
    return tmp_path / "dataset"


def test_it_writes_a_net(dataset, tmp_path, capsys):
    out = tmp_path / "net.npz"

    assert main(["--dataset", str(dataset), *QUICK, "--out", str(out)]) == 0

    StructureNet.load(out)
    assert "2 structures, 6 samples of them, 4 random ones" in capsys.readouterr().out


def test_cases_are_left_out(dataset, tmp_path, capsys):
    arguments = ["--dataset", str(dataset), *QUICK, "--out", str(tmp_path / "net.npz")]

    assert main([*arguments, "--without", "two"]) == 0
    assert "1 structures" in capsys.readouterr().out
    assert main([*arguments, "--without", "one", "two"]) == 2
    assert "No structure to learn from is left" in capsys.readouterr().err


def test_a_folder_that_is_no_dataset_is_refused(tmp_path, capsys):
    assert main(["--dataset", str(tmp_path), *QUICK, "--out", str(tmp_path / "net.npz")]) == 2
    assert "is no dataset" in capsys.readouterr().err
