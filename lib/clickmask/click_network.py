"""Correct the log-odds of click masks by a small network in the frame of the structure's box."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn
from torch.nn import functional

from lib.clickmask.box_frame import sample_positions
from lib.clickmask.intensity_model import fit, normalised
from lib.clickmask.shape_atlas import ShapeAtlas, generic_probability

CHANNELS = 8
INPUTS = 5
CLICK_SIGMA = 0.05
"""Standard deviation of the Gaussian around a click, as a share of the box."""

INTENSITY_WEIGHT, ITERATIONS = 1.3, 3
"""Parameters of the intensity model; defaults of `ClickMaskOptions`."""

LOG_ODDS_SCALE = 5.0
"""Divisor of the log-odds in the network's input."""


class ClickNetwork(nn.Module):
    """U-Net of three stages, whose correction is 0 before training.

    It maps inputs (B, 5, S, S, S), see `network_input`, to a correction (B, S, S, S) of the log-odds; S is a multiple
    of 4.
    """

    def __init__(self) -> None:
        super().__init__()
        c = CHANNELS
        self.first = _layer(INPUTS, c)
        self.middle_down = _block(c, 2 * c)
        self.coarse = _block(2 * c, 4 * c)
        self.middle_up = _block(6 * c, 2 * c)
        self.last = _layer(3 * c, c)
        self.out = nn.Conv3d(c, 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        fine = self.first(inputs)
        middle = self.middle_down(functional.avg_pool3d(fine, 2))
        coarse = self.coarse(functional.avg_pool3d(middle, 2))
        middle = self.middle_up(torch.cat([_enlarged(coarse), middle], 1))
        correction: Tensor = self.out(self.last(torch.cat([_enlarged(middle), fine], 1)))[:, 0]
        return correction

    @property
    def digest(self) -> str:
        """Digest of the weights."""
        content = b"".join(weights.detach().numpy().tobytes() for weights in self.parameters())
        return hashlib.sha256(content).hexdigest()[:16]

    def correction(self, inputs: np.ndarray) -> np.ndarray:
        """Return the correction (S, S, S) float32 for the inputs (5, S, S, S) of one structure."""
        with torch.inference_mode():
            return self(torch.from_numpy(inputs)[None])[0].numpy()


def network_input(
    image: np.ndarray, extremes: np.ndarray, atlas: ShapeAtlas, clicks_on: np.ndarray, clicks_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the input of the network for a structure.

    Args:
        image: (S, S, S) in the frame of the structure's box, of any scale.
        extremes: (3, 2, 3) positions of the extreme points in it.
        atlas: of the structure's label.
        clicks_on, clicks_off: (N, 3) and (M, 3) positions of further foreground and background clicks.

    Returns:
        (5, S, S, S) float32: intensities, prior log-odds, log-odds with the intensity model, all foreground clicks,
        background clicks; and the log-odds with the intensity model (S, S, S), which the network corrects.
    """
    prior = logit(atlas.joined(generic_probability(extremes), atlas.mean_for(extremes))).astype(np.float32)
    values = normalised(image)
    log_odds = fit(values, prior, weight=INTENSITY_WEIGHT, iterations=ITERATIONS)
    on = np.concatenate([extremes.reshape(6, 3), clicks_on.reshape(-1, 3)])
    channels = [
        values - 0.5,
        prior / LOG_ODDS_SCALE,
        log_odds / LOG_ODDS_SCALE,
        click_blobs(on),
        click_blobs(clicks_off),
    ]
    return np.stack(channels).astype(np.float32), log_odds


def click_blobs(positions: np.ndarray) -> np.ndarray:
    """Return the maximum (S, S, S) float32 of Gaussians of height 1 at the clicks (N, 3); N may be 0."""
    line = sample_positions()
    blobs = np.zeros((len(line),) * 3, np.float32)
    for position in positions.reshape(-1, 3):
        x, y, z = (np.exp(-(((line - along) / CLICK_SIGMA) ** 2) / 2) for along in position)
        np.maximum(blobs, x[:, None, None] * y[:, None] * z, out=blobs)
    return blobs


def _layer(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels_in, channels_out, 3, padding=1), nn.LeakyReLU(0.01))


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(*_normalised_layer(channels_in, channels_out), *_normalised_layer(channels_out, channels_out))


def _normalised_layer(channels_in: int, channels_out: int) -> Iterable[nn.Module]:
    yield nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)
    yield nn.InstanceNorm3d(channels_out, affine=True)
    yield nn.LeakyReLU(0.01)


def _enlarged(values: Tensor) -> Tensor:
    return functional.interpolate(values, scale_factor=2, mode="trilinear")
