"""The published label maps: codes 1 to 6 are clicks, 12 is the inside of the box."""

import nibabel as nib
import numpy as np
import pytest

from lib.exchange.click_records import ImportRefusedError
from lib.exchange.paper_label_maps import PaperCode, read_paper_label_map
from tests.exchange.studies import CLICKS, GEOMETRIES, SHAPE, write_volume


def paper_label_map(clicks=CLICKS):
    """(X, Y, Z) as the paper's authors publish them."""
    codes = np.zeros(SHAPE, np.uint8)
    low, high = np.min(clicks, axis=0), np.max(clicks, axis=0) + 1
    codes[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = 12
    for code, click in enumerate(clicks, start=1):
        codes[tuple(click)] = code
    return codes


@pytest.fixture
def label_map(tmp_path):
    return lambda codes: write_volume(tmp_path / "case.nii.gz", codes, GEOMETRIES["oblique"])


def test_the_voxels_of_the_extreme_points_are_the_clicks(label_map):
    path = label_map(paper_label_map())
    (record,) = read_paper_label_map(path, "case_T2", "lesion")

    assert (record.image, record.label, record.coordinates) == ("case_T2", "lesion", "voxel")
    assert sorted(record.points) == sorted(tuple(map(float, click)) for click in CLICKS)
    np.testing.assert_allclose(record.grid.affine_ras, nib.load(path).affine, atol=1e-4)
    assert record.grid.shape == SHAPE


@pytest.mark.parametrize(("code", "axis"), [(1, "x"), (2, "x"), (3, "y"), (4, "y"), (5, "z"), (6, "z")])
def test_missing_point_is_named_with_its_axis(label_map, code, axis):
    codes = paper_label_map()
    codes[codes == code] = PaperCode.INSIDE_BOX

    with pytest.raises(ImportRefusedError, match=f"value {code}, an extreme point along {axis}; expected 1 to 6"):
        read_paper_label_map(label_map(codes), "case", "lesion")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(7, "holds the value 7; expected 0 .background., 1 to 6"), (np.nan, "cannot be read .*not finite")],
)
def test_value_that_is_no_code_is_refused(label_map, value, sentence):
    codes = paper_label_map().astype(np.float32)
    codes[0, 0, 0] = value

    with pytest.raises(ImportRefusedError, match=f"case.nii.gz:? {sentence}"):
        read_paper_label_map(label_map(codes), "case", "lesion")


def test_file_that_is_no_volume_is_refused(tmp_path):
    (tmp_path / "case.nii.gz").write_bytes(b"no volume")

    with pytest.raises(ImportRefusedError, match="case.nii.gz cannot be read"):
        read_paper_label_map(tmp_path / "case.nii.gz", "case", "lesion")
