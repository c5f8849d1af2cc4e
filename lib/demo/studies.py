"""Demo studies: real anatomy, varied per subject, with a lesion whose true extent is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lib.annotations.atomic_write import write_atomically
from lib.demo.lesions import draw_distractors, draw_lesion, lesion_depth_mm

MANIFEST = "demo_studies.json"
WHITE_MATTER = 0.78
# Tissue that the template may be turned and bent by, beyond the field of view.
CROP_MARGIN_MM = 14
FINE_SLICE_MM = 1.0


@dataclass(frozen=True)
class DemoStudySettings:
    """How demo studies are made.

    Attributes:
        shape: voxels of a study.
        spacing_mm: of its voxels; where the last is None, slices are 1.0 to 1.5 mm thick, drawn per study.
        lesion_radius_mm: range of the lesion's radius.
        seed: of everything random; study n is the same however many are made.
    """

    shape: tuple[int, int, int] = (112, 112, 36)
    spacing_mm: tuple[float, float, float | None] = (0.5, 0.5, None)
    lesion_radius_mm: tuple[float, float] = (5.5, 10.0)
    seed: int = 0

    def spacing_of(self, rng: np.random.Generator) -> np.ndarray:
        x, y, z = self.spacing_mm
        thickness = round(rng.uniform(1.0, 1.5), 2)
        return np.array([x, y, thickness if z is None else z])


def make_demo_study(
    index: int, settings: DemoStudySettings = DemoStudySettings()
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """One study and the truth.

    The anatomy is the MNI152 T1 template that the nilearn package contains, moved and bent by TorchIO. It is
    drawn on slices of about 1 mm, which are averaged into thicker ones as a scanner would.

    Returns:
        The image (X, Y, Z) int16 and the mask of its lesion (X, Y, Z) uint8, on one oblique grid.
    """
    rng = np.random.default_rng([settings.seed, index])
    spacing_mm = settings.spacing_of(rng)
    slices_per_slice = max(1, round(spacing_mm[2] / FINE_SLICE_MM))
    lesion_centre_mm = _lesion_centre_mm(rng)
    affine = _oblique_affine(lesion_centre_mm, spacing_mm, np.array(settings.shape), rng)
    fine_affine, fine_shape = _fine_grid(affine, settings.shape, slices_per_slice)
    fine_spacing_mm = nib.affines.voxel_sizes(fine_affine)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        anatomy = _subject_anatomy(lesion_centre_mm, fine_affine, fine_shape)
        points_mm = nib.affines.apply_affine(fine_affine, np.moveaxis(np.indices(fine_shape), 0, -1)).astype(np.float32)
        radius_mm = rng.uniform(*settings.lesion_radius_mm)
        depth_mm = lesion_depth_mm(points_mm, fine_spacing_mm, lesion_centre_mm, radius_mm, rng)
        drawn = draw_distractors(anatomy, fine_affine, depth_mm, rng)
        drawn = draw_lesion(drawn, depth_mm, fine_spacing_mm, rng)
        image = _acquired(_averaged(drawn, slices_per_slice), affine)
    truth = _largest_component(_averaged((depth_mm > 0).astype(np.float32), slices_per_slice) > 0.5)
    return _nifti(image, affine, np.int16), _nifti(truth, affine, np.uint8)


def write_demo_studies(
    studies_dir: Path,
    truth_dir: Path,
    count: int,
    settings: DemoStudySettings = DemoStudySettings(),
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Writes `study_00.nii.gz`, ... and, under the same names elsewhere, the truth; keeps what is there already.

    Args:
        truth_dir: outside of `studies_dir`, so that a server of the studies never sees it.
        progress: called with the number of studies that are done.

    Returns:
        Ids of the studies.

    Raises:
        ValueError: the truth would lie among the studies, or the folder holds studies of other settings.
    """
    studies_dir, truth_dir = studies_dir.resolve(), truth_dir.resolve()
    if truth_dir.is_relative_to(studies_dir):
        raise ValueError(f"truth_dir {truth_dir} lies inside studies_dir {studies_dir}; give a folder outside of it")
    _check_manifest(truth_dir / MANIFEST, settings)
    names = [f"study_{index:02d}" for index in range(count)]
    for index, name in enumerate(names):
        paths = [folder / f"{name}.nii.gz" for folder in (studies_dir, truth_dir)]
        if not all(path.exists() for path in paths):
            for path, volume in zip(paths, make_demo_study(index, settings), strict=True):
                _write_nifti(path, volume)
        progress(index + 1)
    return names


def _check_manifest(path: Path, settings: DemoStudySettings) -> None:
    content = json.loads(json.dumps(asdict(settings)))
    if not path.exists():
        write_atomically(path, json.dumps(content).encode())
    elif json.loads(path.read_bytes()) != content:
        raise ValueError(f"{path.parent} holds demo studies of other settings; choose another folder, or delete it")


def _write_nifti(path: Path, volume: nib.Nifti1Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part_{path.name}")
    nib.save(volume, part)
    part.replace(path)


@cache
def _template() -> tuple[np.ndarray, np.ndarray]:
    from nilearn.datasets import load_mni152_template  # demo-only dependency

    template = load_mni152_template(resolution=1)
    return template.get_fdata(dtype=np.float32), template.affine


@cache
def _lesion_sites_mm() -> np.ndarray:
    """(N, 3) RAS mm: white matter at least 6 mm below the surface, above the brain stem's end."""
    intensity, affine = _template()
    every_other = intensity[::2, ::2, ::2]
    deep = ndimage.distance_transform_edt(every_other > 0.25) > 3
    white = ndimage.uniform_filter(every_other, 3) > WHITE_MATTER
    sites_mm = nib.affines.apply_affine(affine, 2 * np.argwhere(deep & white))
    return sites_mm[sites_mm[:, 2] > -40]


def _lesion_centre_mm(rng: np.random.Generator) -> np.ndarray:
    sites_mm = _lesion_sites_mm()
    return sites_mm[rng.integers(len(sites_mm))]


def _oblique_affine(
    centre_mm: np.ndarray, spacing_mm: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A grid turned by a few degrees whose field of view holds the lesion, off its middle."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-8, 8, 3), degrees=True).as_matrix() * spacing_mm
    off_centre_voxel = rng.uniform(-0.18, 0.18, 3) * shape
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((shape - 1) / 2 + off_centre_voxel)
    return affine


def _fine_grid(
    affine: np.ndarray, shape: tuple[int, int, int], slices_per_slice: int
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The grid with every slice cut into thinner ones, centred on the same place."""
    cut = np.diag([1, 1, 1 / slices_per_slice, 1])
    cut[2, 3] = (1 / slices_per_slice - 1) / 2
    return affine @ cut, (shape[0], shape[1], shape[2] * slices_per_slice)


def _subject_anatomy(centre_mm: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The template around a point, as another subject would have it, on a grid (X, Y, Z) float32."""
    intensity, template_affine = _template()
    corners = nib.affines.apply_affine(affine, np.argwhere(np.ones((2, 2, 2))) * (np.array(shape) - 1))
    corners_voxel = nib.affines.apply_affine(np.linalg.inv(template_affine), corners)
    low = np.clip(np.floor(corners_voxel.min(axis=0)).astype(int) - CROP_MARGIN_MM, 0, None)
    high = np.minimum(np.ceil(corners_voxel.max(axis=0)).astype(int) + CROP_MARGIN_MM, intensity.shape)
    crop_affine = template_affine @ nib.affines.from_matvec(np.eye(3), low)
    crop = intensity[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    subject = tio.Compose(
        [
            tio.RandomAffine(scales=0.1, degrees=8, translation=3, default_pad_value=0),
            tio.RandomElasticDeformation(num_control_points=7, max_displacement=5, locked_borders=2),
            tio.Resample((shape, affine)),
        ]
    )
    return subject(tio.ScalarImage(tensor=torch.from_numpy(crop)[None], affine=crop_affine)).data[0].numpy()


def _averaged(array: np.ndarray, slices_per_slice: int) -> np.ndarray:
    x, y, z = array.shape
    return array.reshape(x, y, z // slices_per_slice, slices_per_slice).mean(axis=-1)


def _acquired(drawn: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """What the coil and the receiver add, on a scale of about 0 to 1200."""
    receive = tio.Compose([tio.RandomBiasField(coefficients=0.2), tio.RandomNoise(std=(0.015, 0.04))])
    image = receive(tio.ScalarImage(tensor=torch.from_numpy(drawn.astype(np.float32))[None], affine=affine))
    return np.clip(image.data[0].numpy() * 1000, 0, 32000).round()


def _largest_component(mask: np.ndarray) -> np.ndarray:
    components, _ = ndimage.label(mask)
    return components == np.bincount(components[components > 0]).argmax()


def _nifti(array: np.ndarray, affine: np.ndarray, dtype: type) -> nib.Nifti1Image:
    volume = nib.Nifti1Image(array.astype(dtype), affine)
    volume.set_qform(affine, code=1)
    volume.set_sform(affine, code=1)
    volume.header.set_xyzt_units("mm")
    return volume
