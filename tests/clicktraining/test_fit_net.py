"""The training of the structure net."""

import numpy as np
import pytest

from lib.clickmask.structure_net import FEATURES, StructureNet
from lib.clickmask.voxel_features import StructureNumbers, VoxelFeatures, VoxelMaps
from lib.clicktraining.fit_net import fit_net
from lib.clicktraining.samples import Sample


def made_up(rng, count=400, share=0.3):
    """Draw voxels that are inside a structure if two features are large together."""
    features = rng.normal(size=(count, len(FEATURES)))
    inside = features[:, 0] + features[:, 3] > np.quantile(features[:, 0] + features[:, 3], 1 - share)
    return Sample(features.astype(np.float16), inside, np.full(count, 1 / count, np.float32))


def log_odds(net: StructureNet, sample: Sample) -> np.ndarray:
    """Predict voxel by voxel, because each voxel has its own numbers here."""
    n_maps = len(VoxelMaps._fields)
    rows = sample.features.astype(np.float32)
    return np.array(
        [
            net.log_odds(
                VoxelFeatures(VoxelMaps(*row[:n_maps].reshape(-1, 1, 1, 1)), StructureNumbers(*row[n_maps:]))
            ).item()
            for row in rows
        ]
    )


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [made_up(rng) for _ in range(24)]


def test_it_learns_what_tells_a_structure(samples):
    net = fit_net(samples[:12], samples[12:], steps=150)
    unseen = made_up(np.random.default_rng(99))

    assert ((log_odds(net, unseen) > 0) == unseen.inside).mean() > 0.9


def test_the_same_seed_gives_the_same_net(samples):
    one, other = (fit_net(samples[:12], samples[12:], steps=5, seed=3) for _ in range(2))

    np.testing.assert_allclose(log_odds(one, samples[0]), log_odds(other, samples[0]), atol=1e-5)


def test_samples_of_a_kind_that_has_no_share_are_not_needed(samples):
    fit_net(samples, [], random_share=0.0, steps=2)
    fit_net([], samples, random_share=1.0, steps=2)


@pytest.mark.parametrize("real, random", [(0, 3), (3, 0)])
def test_a_share_without_samples_is_refused(samples, real, random):
    with pytest.raises(ValueError, match=f"{real} real and {random} random samples"):
        fit_net(samples[:real], samples[:random])
