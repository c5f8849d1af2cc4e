"""How much of the geodesics lies in the structure: what each term of their cost brings to the supervision itself.

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

from benchmarks.evidence.dataset import Dataset
from lib.geometry.volume import load_volume
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.supervision.geodesics import extreme_point_geodesics


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.geodesic_purity", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--model", type=Path, help="network of a run, for deep geodesics")
    options = parser.parse_args()
    try:
        dataset = Dataset.open(options.dataset.resolve())
        model = load_checkpoint(options.model) if options.model else None
    except (ValueError, OSError) as error:  # a DatasetError and a CheckpointError are ones
        sys.exit(f"{error}")
    shares: dict[str, list[float]] = {}
    for case in track(dataset.cases["training"], "Cases"):
        for name, share in share_inside(dataset, case, model):
            shares.setdefault(name, []).append(share)
    Console().print(_table(shares))


def share_inside(dataset: Dataset, case: str, model: TrainedModel | None) -> Iterator[tuple[str, float]]:
    """Kind of geodesic, and share of its voxels that lie in the true mask."""
    volume, truth = load_volume(dataset.image_path(case)), dataset.truth(case)
    points = dataset.annotation(case, "annotator").points
    kinds: dict[str, dict[str, Any]] = {"gradient": {"euclidean": False}, "gradient_euclidean": {}}
    if model is not None:
        kinds["deep"] = {"background_probability": 1 - predict_probability(model, volume)[0]}
    for name, arguments in kinds.items():
        paths = extreme_point_geodesics(volume.array, points.extremes_voxel, volume.geometry.spacing_mm, **arguments)
        on_paths = np.unique(np.concatenate(paths), axis=0)
        yield name, float(truth[tuple(on_paths.T)].mean())


def _table(shares: dict[str, list[float]]) -> Table:
    table = Table("geodesics", "voxels in the structure", "worst case", title="Purity of the supervision")
    for name, values in shares.items():
        table.add_row(name, f"{np.mean(values):.3f}", f"{min(values):.3f}")
    return table


if __name__ == "__main__":
    main()
