"""Make demo studies: real anatomy, deformed per subject, with a lesion whose mask is known."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from scipy.spatial.transform import Rotation

from lib.annotations.atomic_write import write_atomically
from lib.annotations.simulated_clicks import largest_component
from lib.demo.anatomy import lesion_sites_mm, subject_anatomy
from lib.demo.lesions import REACH, Contrast, draw_appearance, draw_distractors, draw_lesion, lesion_depth_mm
from lib.geometry.nifti_image import nifti_gz, nifti_image

MANIFEST = "demo_studies.json"
# Part of the manifest; to be raised by a change after which the same settings give other voxels.
GENERATION = 2
THINNEST_SLICE_MM, THICKEST_SLICE_MM = 1.0, 1.5
FINE_SLICE_MM = 1.0
OFF_CENTRE = 0.18
OBLIQUE_DEGREES = 8


@dataclass(frozen=True)
class DemoStudySettings:
    """Settings of demo studies.

    Attributes:
        shape: voxels of a study.
        spacing_mm: of its voxels; if the last is None, slices are 1.0 to 1.5 mm thick, drawn per study.
        lesion_radius_mm: range of the lesion's radius.
        contrast: "bright" lesions, or "varied": darker or brighter than the tissue, by various amounts.
        seed: random seed; study n does not depend on the number of studies.

    Raises:
        ValueError: a number is not positive, or a lesion would not fit into the field of view.
    """

    shape: tuple[int, int, int] = (112, 112, 36)
    spacing_mm: tuple[float, float, float | None] = (0.5, 0.5, None)
    lesion_radius_mm: tuple[float, float] = (5.5, 10.0)
    contrast: Contrast = "bright"
    seed: int = 0

    def __post_init__(self) -> None:
        x, y, z = self.spacing_mm
        smallest_mm = (x, y, THINNEST_SLICE_MM if z is None else z)
        if min(*self.shape, *smallest_mm, *self.lesion_radius_mm) <= 0 or self.seed < 0:
            raise ValueError(f"{self} holds a number that is not positive; only the seed may be 0")
        needed_mm = 2 * REACH * self.lesion_radius_mm[1]
        for axis, size, spacing in zip("xyz", self.shape, smallest_mm, strict=True):
            if size * spacing < needed_mm:
                raise ValueError(
                    f"the field of view along {axis} is {size} voxels of {spacing:g} mm, but a lesion may "
                    f"need {needed_mm:g} mm; give at least {int(np.ceil(needed_mm / spacing))} voxels"
                )

    def draw_spacing_mm(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the spacing (3,) of a study."""
        x, y, z = self.spacing_mm
        thickness = round(rng.uniform(THINNEST_SLICE_MM, THICKEST_SLICE_MM), 2)
        return np.array([x, y, thickness if z is None else z])


def make_demo_study(
    index: int, settings: DemoStudySettings = DemoStudySettings()
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Make a study and its truth.

    The anatomy is the MNI152 T1 template of the nilearn package, deformed by TorchIO. It is drawn on slices of about
    1 mm, which are averaged to thicker ones as in a scanner.

    Returns:
        The image (X, Y, Z) int16 and the mask of its lesion (X, Y, Z) uint8, on one oblique grid.
    """
    rng = np.random.default_rng([settings.seed, index])
    spacing_mm = settings.draw_spacing_mm(rng)
    slices_per_slice = max(1, round(spacing_mm[2] / FINE_SLICE_MM))
    radius_mm = rng.uniform(*settings.lesion_radius_mm)
    sites_mm = lesion_sites_mm()[rng.integers(2)]
    centre_mm = sites_mm[rng.integers(len(sites_mm))]
    affine = _oblique_affine(centre_mm, REACH * radius_mm, spacing_mm, np.array(settings.shape), rng)
    fine_affine, fine_shape = _fine_grid(affine, settings.shape, slices_per_slice)
    appearance = draw_appearance(settings.contrast, rng)

    # TorchIO uses torch's global generator, whose state must not change for the caller.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        anatomy = subject_anatomy(fine_affine, fine_shape)
        depth_mm = lesion_depth_mm(fine_affine, fine_shape, centre_mm, radius_mm, rng)
        drawn = draw_distractors(anatomy, fine_affine, depth_mm, rng, appearance)
        drawn = draw_lesion(drawn, fine_affine, depth_mm, rng, appearance)
        image = _acquired(_averaged(drawn, slices_per_slice), affine)
    truth = largest_component(_averaged((depth_mm > 0).astype(np.float32), slices_per_slice) > 0.5)
    return nifti_image(image.astype(np.int16), affine), nifti_image(truth.astype(np.uint8), affine)


def write_demo_studies(
    studies_dir: Path,
    truth_dir: Path,
    count: int,
    settings: DemoStudySettings = DemoStudySettings(),
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Write `study_00.nii.gz`, ... and the truth under the same names elsewhere; existing files are kept.

    Args:
        truth_dir: outside of `studies_dir`, so that a server of the studies does not list it.
        progress: called with the number of finished studies.

    Returns:
        Ids of the studies.

    Raises:
        ValueError: `truth_dir` is in `studies_dir`, or existing files of these names were made with other settings.
    """
    studies_dir, truth_dir = studies_dir.resolve(), truth_dir.resolve()
    if truth_dir.is_relative_to(studies_dir):
        raise ValueError(f"truth_dir {truth_dir} lies in studies_dir {studies_dir}; give a folder outside of it")
    names = [f"study_{index:02d}" for index in range(count)]
    pairs = [[folder / f"{name}.nii.gz" for folder in (studies_dir, truth_dir)] for name in names]
    _claim(truth_dir / MANIFEST, studies_dir, settings, [path for pair in pairs for path in pair])
    for index, pair in enumerate(pairs):
        if not all(path.exists() for path in pair):
            for path, volume in zip(pair, make_demo_study(index, settings), strict=True):
                write_atomically(path, nifti_gz(volume, level=5))
        progress(index + 1)
    return names


def _claim(manifest: Path, studies_dir: Path, settings: DemoStudySettings, paths: list[Path]) -> None:
    """Write a manifest of the settings, so that files of other settings are never overwritten."""
    # Relative, so that the two folders can be moved together.
    relative = os.path.relpath(studies_dir, manifest.parent)
    content = {"generation": GENERATION, "studies_dir": relative, **asdict(settings)}
    encoded = json.dumps(content, indent=1).encode()
    if manifest.exists():
        if manifest.read_bytes() != encoded:
            raise ValueError(f"{manifest} was made with other settings; choose other folders, or delete these")
    elif existing := [path for path in paths if path.exists()]:
        raise ValueError(f"{existing[0]} exists, but {manifest} does not; choose another folder")
    else:
        write_atomically(manifest, encoded)


def _oblique_affine(
    centre_mm: np.ndarray,
    reach_mm: float,
    spacing_mm: np.ndarray,
    shape: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw a grid turned by a few degrees whose field of view contains the lesion, off its middle."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.uniform(-OBLIQUE_DEGREES, OBLIQUE_DEGREES, 3), degrees=True)
    affine[:3, :3] = turn.as_matrix() * spacing_mm
    room_voxels = np.clip(shape / 2 - reach_mm / spacing_mm - 1, 0, OFF_CENTRE * shape)
    off_centre_voxel = rng.uniform(-1, 1, 3) * room_voxels
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((shape - 1) / 2 + off_centre_voxel)
    return affine


def _fine_grid(
    affine: np.ndarray, shape: tuple[int, int, int], slices_per_slice: int
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return the grid with every slice divided into thinner ones."""
    cut = np.diag([1, 1, 1 / slices_per_slice, 1])
    cut[2, 3] = (1 / slices_per_slice - 1) / 2
    return affine @ cut, (shape[0], shape[1], shape[2] * slices_per_slice)


def _averaged(array: np.ndarray, slices_per_slice: int) -> np.ndarray:
    x, y, z = array.shape
    return array.reshape(x, y, z // slices_per_slice, slices_per_slice).mean(axis=-1)


def _acquired(drawn: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Add bias field and noise of the receiver, on a scale of about 0 to 1200."""
    receive = tio.Compose([tio.RandomBiasField(coefficients=0.15), tio.RandomNoise(std=(0.015, 0.04))])
    image = receive(tio.ScalarImage(tensor=torch.from_numpy(drawn.astype(np.float32))[None], affine=affine))
    return np.clip(image.data[0].numpy() * 1000, 0, 32000).round()
