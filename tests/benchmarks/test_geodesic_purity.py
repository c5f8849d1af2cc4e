"""The share of geodesics in a structure, where it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence.dataset import Dataset
from benchmarks.geodesic_purity import shares_inside
from tests.benchmarks.evidence.folders import SHAPE, box_mask, write_case, write_dataset


def test_straight_paths_between_ends_of_a_box_lie_inside(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))

    shares = dict(shares_inside(dataset, "train_0", None))

    assert shares.keys() == {"gradient", "gradient_euclidean"}
    assert all(share == pytest.approx(1, abs=0.25) for share in shares.values())


def test_paths_through_the_hole_of_a_ring_are_outside(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))
    ring = box_mask()
    ring[9:14, 10:15] = 0
    # An image that says nothing: distances alone lead straight across.
    write_case(tmp_path, "train_0", ring, image=np.zeros(SHAPE))

    assert dict(shares_inside(dataset, "train_0", None))["gradient_euclidean"] < 0.6
