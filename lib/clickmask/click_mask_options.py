"""Set how masks are made from clicks."""

from __future__ import annotations

from dataclasses import dataclass

from lib.clickmask.click_network import INTENSITY_WEIGHT, ITERATIONS
from lib.clickmask.shape_atlas import PRIOR_STRENGTH, SHRINKAGE


@dataclass(frozen=True)
class ClickMaskOptions:
    """Parameters of the mask from clicks; docs/method.md gives the formulas.

    Log-odds are natural: 1 makes a structure 2.7 times as likely.

    Attributes:
        margin_voxels: margin of the relaxed box around the tight box, at least 0; outside, everything is background
            (the paper trains with 4).
        context: margin of the intensity model's region around the tight box, as a share of the box's extent, at least
            0; never less than `margin_voxels`.
        prior_strength: log-odds in the middle of the shape prior, at least 0; they are 0 at its surface and negative
            outside.
        shrinkage: of the shape prior, in [0, 1); see `extreme_point_gauge`.
        intensity_weight: weight of the intensities' log-odds relative to the prior, at least 0.
        iterations: number of iterations of expectation maximisation, at least 0.
        net_share: weight in [0, 1] of the structure net's log-odds relative to those of generic prior and intensities;
            with an atlas, times the root of the generic prior's share; 0 with a click network.
        geodesic_log_odds: on the paths between opposite extreme points, at least 0; more than 6 times the
            smoothness always makes them foreground.
        smoothness: of the mask's surface, log-odds, at least 0; see `graph_cut`.
        corrected_smoothness: the same, for log-odds that a click network has corrected.
        corrected_bias: added to these log-odds: of two uncertain masks the larger one has the higher expected Dice.
        smallest_share: minimum size of a mask, as a share in [0, 1] of the voxels with positive log-odds; a smaller
            mask is cut again with half the smoothness.
        contrast: step of intensity that a border follows, more than 0, as a multiple of the root mean square
            of the steps between neighbours in the tight box.
        click_log_odds: log-odds at a corrective foreground click, which replace all others, and their negative at a
            background click; at least 0.
        click_reach: standard deviation of a corrective click's influence, more than 0, as a multiple of its distance
            to the border of the mask that it corrects.
        click_tolerance: standard deviation of the difference in intensity in that influence, more than 0, as a share
            of the range of intensities.
        click_shift: log-odds added around a corrective click at any intensity, at least 0; less near a click that
            agrees with the mask.
        click_shift_reach: standard deviation of that shift, more than 0, as a share of the tight box's extent along
            each axis.
        network_confidence: c in (0.5, 1); the probabilities of a network of prior weight 1 are clipped to [1 - c, c],
            so that clicks and intensities can outweigh it, and to a narrower range at a lower prior weight.
        max_voxels: at least 1; a larger box is averaged to coarser voxels, and its mask interpolated.
    """

    margin_voxels: int = 2
    context: float = 0.15
    prior_strength: float = PRIOR_STRENGTH
    shrinkage: float = SHRINKAGE
    intensity_weight: float = INTENSITY_WEIGHT
    iterations: int = ITERATIONS
    net_share: float = 0.5
    geodesic_log_odds: float = 50.0
    smoothness: float = 2.0
    corrected_smoothness: float = 1.0
    corrected_bias: float = 1.25
    smallest_share: float = 0.6
    contrast: float = 1.0
    click_log_odds: float = 8.0
    click_reach: float = 0.75
    click_tolerance: float = 0.1
    click_shift: float = 1.0
    click_shift_reach: float = 0.2
    network_confidence: float = 0.9
    max_voxels: int = 350_000


DEFAULT_OPTIONS = ClickMaskOptions()
