"""Train the structure net of the click masks, which classifies the voxels of any clicked structure.

It takes ten minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.evidence.dataset import DatasetError
from benchmarks.evidence.structures import StructureFolder
from lib.clickmask.structure_net import WEIGHTS
from lib.clicktraining.examples import Example
from lib.clicktraining.fit_net import fit_net
from lib.clicktraining.random_structures import random_structure
from lib.clicktraining.real_structures import PLAIN_SAMPLES, example_of, real_samples
from lib.clicktraining.samples import Sample, sample
from lib.geometry.volume import VolumeError
from scripts.terminal import refuse, script_parser, tell

EXAMPLE = "%(prog)s --dataset ../structures --without case_03 case_07"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    try:
        examples = list(chain.from_iterable(_examples(folder, options.without) for folder in options.dataset))
    except (DatasetError, VolumeError) as error:
        return refuse(str(error))
    if not examples:
        return refuse("No structure to learn from is left; give other folders, or leave out fewer cases.")
    turned_count = options.turned * len(examples)
    total = PLAIN_SAMPLES * len(examples) + turned_count
    real = list(track(real_samples(rng, examples, turned_count), "Structures of scans", total=total))
    random = list(track(_random_samples(rng, options.random), "Random structures", total=options.random))
    net = fit_net(real, random, steps=options.steps, seed=options.seed)
    net.save(options.out)
    tell(f"{options.out}: {len(examples)} structures, {len(real)} samples of them, {len(random)} random ones")
    return 0


def _examples(folder: Path, without: Sequence[str]) -> Iterator[Example]:
    structures = StructureFolder.open(folder)
    for case in structures.cases("training" if structures.splits else "all"):
        if case in without:
            continue
        volume, found = structures.load(case)
        for structure in found:
            example = example_of(volume.array, *structure.truth, volume.geometry.spacing_mm)
            if example is not None:
                yield example


def _random_samples(rng: np.random.Generator, count: int) -> Iterator[Sample]:
    for _ in range(count):
        if (one := sample(rng, random_structure(rng))) is not None:
            yield one


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    parser.add_argument(
        "--dataset",
        type=Path,
        action="append",
        required=True,
        help="folder of scans and masks, as for benchmarks.click_mask; of a split, the training cases; repeatable",
    )
    parser.add_argument("--without", nargs="*", default=[], metavar="CASE", help="cases to leave out, to test on")
    parser.add_argument("--turned", type=int, default=12, help="rotated and stretched samples of each structure")
    parser.add_argument("--random", type=int, default=3000, help="number of random structures")
    parser.add_argument("--steps", type=int, default=3000, help="iterations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="file for the weights, .npz (default: the shipped ones)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
