"""Dice of two masks, against MONAI's."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from lib.metrics import dice


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.01, 0.9), (0.0, 0.5), (0.5, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_dice_is_that_of_monai(shares):
    rng = np.random.default_rng(0)
    one, other = (rng.random((7, 5, 6)) < share for share in shares)
    expected = compute_dice(*(torch.from_numpy(m)[None, None].float() for m in (one, other)), ignore_empty=False)
    assert dice(one, other) == pytest.approx(float(expected))
