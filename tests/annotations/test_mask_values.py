"""Values of masks by the names of their labels, and masks on the grid of their image."""

import re

import numpy as np
import pytest

from lib.annotations.mask_file import MaskError, require_grid
from lib.annotations.mask_values import mapped_values
from lib.geometry.image_geometry import ImageGeometry

SHAPE = (12, 10, 8)
AFFINE = np.array([[0, -0.5, 0, 40], [0.6, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
GEOMETRY = ImageGeometry(SHAPE, AFFINE)
LABELS = ("tumour", "cyst")


@pytest.mark.parametrize("value", [0.5, 1.5, -1.0, 3.0, 256.0, 1e6])
def test_values_that_are_no_label_s_are_refused(value):
    with pytest.raises(MaskError, match=re.escape(f"the value {value:g}; expected 0, 1 for tumour")):
        mapped_values(np.array([[[0, value]]]), {"tumour": 1, "cyst": 2}, LABELS, "m")


@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        ({"tumour": 1, "cyst": 2}, [0, 1, 2], [0, 1, 2]),
        ({"tumour": 2, "cyst": 1}, [0, 1, 2], [0, 2, 1]),
        ({"cyst": 1}, [0, 1, 0], [0, 2, 0]),
        ({"cyst": 200, "tumour": 100}, [200, 100, 0], [2, 1, 0]),
        ({"cyst": 300}, [300, 0, 0], [2, 0, 0]),
        ({"liver": 3, "cyst": 1}, [1, 0, 0], [2, 0, 0]),
    ],
)
def test_values_become_those_of_the_app(labels, values, expected):
    mapped = mapped_values(np.array(values, np.float32).reshape(1, 1, 3), labels, LABELS, "m")

    assert mapped.ravel().tolist() == expected
    assert mapped.dtype == np.uint8


def test_sentence_about_a_value_is_short_whatever_the_labels():
    labels = {"x" * 5000: 1, **{f"label {n}": n for n in range(2, 1000)}}
    for value in (1.0, 5000.0):
        with pytest.raises(MaskError) as error:
            mapped_values(np.full((2, 2, 2), value), labels, LABELS, "m")
        assert len(str(error.value)) < 500


OTHER_GRIDS = {
    "other size": ImageGeometry((12, 10, 9), AFFINE),
    "shifted": ImageGeometry(SHAPE, AFFINE + np.eye(4)[:, [3, 1, 2, 0]] * [0, 0, 0, 1]),
    "flipped": ImageGeometry(SHAPE, AFFINE * [-1, 1, 1, 1]),
}


@pytest.mark.parametrize("other", OTHER_GRIDS.values(), ids=OTHER_GRIDS)
def test_mask_on_another_grid_than_its_image_is_refused(other):
    with pytest.raises(MaskError, match="The mask m is not on the grid of its image .*; resample it to the image"):
        require_grid(other, GEOMETRY, "m")


def test_mask_on_the_grid_up_to_rounding_is_taken():
    require_grid(ImageGeometry(SHAPE, AFFINE + 1e-5), GEOMETRY, "m")
