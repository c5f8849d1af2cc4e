"""How unsure a network is of a scan, and a draw among scans by it.

After ClaSP PE (Lüth, Traub et al., TMLR 2026, arXiv 2601.13677): predictive entropy, a share for each class, scores
noised on a log scale, noise that decays from round to round. Plain entropy does not reliably beat a random choice that
sees to foreground (nnActive, arXiv 2511.19183): it asks for much of the same, and for the classes that are large.

What differs here, where a person clicks in whole scans and wants one at a time:

- A score is of a scan and a class, not of a patch and a class.
- A choice serves one class, and the classes take turns; there, a batch of patches is divided among them.
- The noise decays with the number of annotated scans, as there are no rounds of a fixed size.
- One network, not an ensemble of folds: the server trains one.
"""

from __future__ import annotations

import numpy as np

NEARLY = 0.25
"""Share of its highest probability in a scan from which on a voxel counts as the class, or as nearly it."""

DOUBLED_EVERY = 4
"""Annotated scans after which the power is twice what it was."""

HIGHEST_POWER = 100.0
_SMALLEST = 1e-12


def class_entropies(foreground_probability: np.ndarray) -> np.ndarray:
    """Mean predictive entropy where a scan shows a class, or what comes nearest to it.

    A region is relative to the class's highest probability, so that a scan in which nothing is predicted has one too:
    it scores high where something nearly was, and low where the network is sure that nothing is there. Over the whole
    scan the mean would be one of sure background, and tell how much of it lies in the field of view.

    Args:
        foreground_probability: (C, X, Y, Z) in [0, 1], of 16, 32 or 64 bits; what is missing to 1 is background.

    Returns:
        (C,) float64 in [0, 1]: 1 where all classes, background too, are equally likely.
    """
    # Channel by channel: the probabilities of a scan may be of 16 bits, and fill a large part of the memory so.
    background = np.ones(foreground_probability.shape[1:], np.float32)
    entropy = np.zeros_like(background)
    for channel in foreground_probability:
        background -= channel
        entropy += _surprise(channel.astype(np.float32))
    entropy += _surprise(np.clip(background, 0, 1))
    entropy /= np.log(1 + len(foreground_probability))
    regions = (channel >= NEARLY * channel.max() for channel in foreground_probability)
    return np.clip([entropy[region].mean(dtype=np.float64) for region in regions], 0, 1)


def _surprise(probability: np.ndarray) -> np.ndarray:
    return -probability * np.log(np.maximum(probability, _SMALLEST))


def power(annotated: int) -> float:
    """β in [1, 100]: 1 without any annotated scan, and doubled with every four.

    With few scans the network's doubts say little and its choices would be alike, so that the draw is close to an even
    one; with many it comes to take the scan of the highest score.
    """
    return min(HIGHEST_POWER, 2.0 ** (annotated / DOUBLED_EVERY))


def drawn_order(scores: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """A draw without replacement in which each next one is taken in proportion to score^β.

    By Gumbel noise of the scale 1/β on the log of the scores ("power noising", Kirsch et al., TMLR 2023,
    arXiv 2106.12059).

    Args:
        scores: (N,), not negative.
        beta: positive.

    Returns:
        (N,) int: indices, the first that was drawn first.
    """
    noised = np.log(np.maximum(scores, _SMALLEST)) + rng.gumbel(0, 1 / beta, len(scores))
    return np.argsort(-noised)
