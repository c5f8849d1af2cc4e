"""Set how masks are made from clicks."""

from __future__ import annotations

from dataclasses import dataclass

from lib.clickmask.click_network import INTENSITY_WEIGHT, ITERATIONS
from lib.clickmask.shape_atlas import PRIOR_STRENGTH, SHRINKAGE


@dataclass(frozen=True)
class ClickMaskOptions:
    """How a mask is made of clicks; docs/method.md gives the formulas.

    Log-odds are natural: 1 makes a structure 2.7 times as likely.

    Attributes:
        margin_voxels: by which the tight box is relaxed, at least 0; outside, everything is background
            (the paper trains with 4).
        context: share of the tight box's extent, at least 0, by which the surroundings that the intensity
            model sees reach beyond it; never less than the margin.
        prior_strength: log-odds in the middle of the shape prior, at least 0; 0 at its surface, and less
            outside.
        shrinkage: of the shape prior, in [0, 1); see `extreme_point_gauge`.
        intensity_weight: of the intensities' log-odds against the prior, at least 0.
        iterations: of expectation maximisation, at least 0.
        net_share: in [0, 1], of the log-odds of the structure net against those of generic prior and intensities;
            with an atlas, times the root of the generic prior's share; a click network takes its place.
        geodesic_log_odds: on the paths between opposite extreme points, at least 0; more than 6 times the
            smoothness makes them foreground, whatever lies around.
        smoothness: of the mask's surface, log-odds, at least 0; see `graph_cut`.
        corrected_smoothness: the same, of log-odds that a click network has corrected.
        corrected_bias: added to these log-odds: of two uncertain masks the larger one has the higher expected Dice.
        smallest_share: in [0, 1], of the voxels that are likely the structure's; a mask that holds fewer is cut
            again with half the smoothness.
        contrast: step of intensity that a border follows, more than 0, as a multiple of the root mean square
            of the steps between neighbours in the tight box.
        click_log_odds: at a corrective foreground click, instead of what all else says, and its negative at a
            background click; at least 0.
        click_reach: how far that goes, more than 0, as a multiple of the click's distance to the border of
            the mask that it corrects.
        click_tolerance: difference of intensity over which it fades, more than 0, as a share of the range of
            intensities.
        click_shift: log-odds added around a corrective click, at least 0, whatever the intensity; less where another
            click says that the mask is right.
        click_shift_reach: how far that goes, more than 0, as a share of the tight box's extent along each axis.
        network_confidence: in (0.5, 1); the probabilities of a network of prior weight 1 are cut to
            [1 - this, this], so that clicks and intensities can outweigh it; of a lower weight, to less.
        max_voxels: at least 1; a larger box is worked on in coarser voxels, and the mask interpolated.
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
