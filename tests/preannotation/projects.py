"""Projects of tiny studies, with a published network that has learnt nothing."""

import numpy as np
import torch

from lib.networks.checkpoint import NetworkSpec, TrainedModel, TrainingState, load_checkpoint
from lib.networks.versions import ModelVersions
from tests.server.studies.images import write_image

SPEC = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])


def publish(folder, score=0.5, seed=0):
    """Publish the next version of a model in `folder/model`, as it is published."""
    versions = ModelVersions(folder / "model" / "inextremis.pt")
    torch.manual_seed(seed)
    model = TrainedModel(SPEC, SPEC.build(), 0, score=score)
    versions.publish(model, TrainingState({}, 1), base=versions.published_number())
    return load_checkpoint(versions.published_path)


def tiny_project(folder, count, broken=0, side=24):
    """Make a folder of studies `s0000`, ... and of files `broken0`, ... that are none, with a published model."""
    for number in range(count):
        write_image(folder / f"s{number:04d}.nii.gz", number, (side, side, side), AFFINE)
    for number in range(broken):
        (folder / f"broken{number}.nii.gz").write_bytes(b"no scan")
    publish(folder)
    return folder


def proposed(folder):
    """Return the image ids with a proposal on disk."""
    return {path.name.removesuffix(".nii.gz") for path in (folder / "labels" / "proposal").glob("*.nii.gz")}


def unfinished(folder):
    """Return what is in the folder of the proposals and is neither a whole mask nor the lock."""
    store = folder / "labels" / "proposal"
    return [path.name for path in store.iterdir() if path.name != ".lock" and not path.name.endswith(".nii.gz")]
