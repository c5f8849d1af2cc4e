"""Share of the voxels of geodesics that lie in the structure, for each term of their cost.

Run with `python -m benchmarks.geodesic_purity --dataset FOLDER`, on the training cases of a dataset as table1 has it;
`--model inextremis.pt` adds deep geodesics, guided by that network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.evidence.dataset import LABEL, Dataset
from lib.geometry.volume import load_volume
from lib.inference.prediction import predict_probability
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.supervision.geodesics import extreme_point_geodesics


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.geodesic_purity", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--labels", default=LABEL, help="of the values 1, 2, ... of the masks, comma-separated")
    parser.add_argument("--model", type=Path, help="network of a run with these labels, for deep geodesics")
    options = parser.parse_args()
    try:
        dataset = Dataset.open(options.dataset.resolve(), options.labels.split(","))
        model = load_checkpoint(options.model) if options.model else None
    except (ValueError, OSError) as error:  # a DatasetError and a CheckpointError are ValueErrors
        sys.exit(f"{error}")
    shares: dict[str, list[float]] = {}
    for case in track(dataset.cases["training"], "Cases"):
        for name, share in shares_inside(dataset, case, model):
            shares.setdefault(name, []).append(share)
    Console().print(_table(shares))


def shares_inside(dataset: Dataset, case: str, model: TrainedModel | None) -> Iterator[tuple[str, float]]:
    """For each structure, the kind of geodesic and the share, in [0, 1], of its voxels that lie in the true mask."""
    volume, truth = load_volume(dataset.image_path(case)), dataset.truth(case).array
    probability = None if model is None else predict_probability(model, volume)
    for annotation in dataset.annotations(case, "annotator"):
        points = annotation.points
        index = dataset.labels.index(points.label)
        kinds: dict[str, dict[str, Any]] = {"gradient": {"euclidean": False}, "gradient_euclidean": {}}
        if probability is not None:
            kinds["deep"] = {"background_probability": 1 - probability[index]}
        for name, arguments in kinds.items():
            paths = extreme_point_geodesics(
                volume.array, points.extremes_voxel, volume.geometry.spacing_mm, **arguments
            )
            on_paths = np.unique(np.concatenate(paths), axis=0)
            yield name, float((truth[tuple(on_paths.T)] == index + 1).mean())


def _table(shares: dict[str, list[float]]) -> Table:
    table = Table("geodesics", "voxels in the structure", "worst case", title="Purity of the supervision")
    for name, values in shares.items():
        table.add_row(name, f"{np.mean(values):.3f}", f"{min(values):.3f}")
    return table


if __name__ == "__main__":
    main()
