"""Write the annotated scans of a project as a dataset of nnU-Net v2 or of BIDS, without a server.

Final masks are copied. For nnU-Net, a scan with clicks only gets a partial mask: geodesics are the structure, voxels
outside the relaxed box are background, all others have the label `ignore`. For BIDS, scans without a final mask are
left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from lib.annotations.atomic_write import new_folder
from lib.annotations.image_identity import ImageIdentities
from lib.annotations.json_file import JsonFile
from lib.annotations.mask_file import MaskError
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationFileError, AnnotationStore
from lib.exchange.bids_dataset import SUFFIXES, BidsDataset
from lib.exchange.dataset_files import DatasetError
from lib.exchange.nnunet_dataset import NnunetDataset, check_dataset
from lib.exchange.stored_studies import StoredStudies
from lib.exchange.study_images import StudyImages
from lib.geometry.volume import VolumeError
from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask
from lib.server.project import FINAL_TAG, Project, first_labels, images_of, project_of
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError
from scripts.terminal import add_labels, add_project, complain, errors, refuse, script_parser, tell, whole_number

EXAMPLE = """%(prog)s studies "$nnUNet_raw/Dataset501_Lesion" --format nnunet
nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity
%(prog)s studies bids --format bids --suffix T2w"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    set_umask(group=False)  # scans are data of patients
    project = project_of(options.studies, options.project_dir)
    labels = options.labels or first_labels(project) or ("lesion",)
    try:
        if options.format == "nnunet":
            check_dataset(options.out, labels)
        studies = _studies(project, images_of(options.studies), labels)
        with new_folder(options.out) as folder:
            dataset = _dataset(options, folder, labels, studies)
            failed = _export(studies, dataset)
            dataset.finish()
    except FileExistsError:
        return refuse(f"{options.out} exists already; delete it, or give another place.")
    except (DatasetError, TrainingError, ValueError) as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"The dataset cannot be written to {options.out} ({error.strerror}). No part of it was left.")
    AuditLog(project.audit).write_script(
        "export of a dataset", "scripts/export_dataset.sh", scans=dataset.n_scans, format=options.format
    )
    tell(f"{options.out}: {dataset.summary}; {failed} failed." if failed else f"{options.out}: {dataset.summary}.")
    return 1 if failed else 0


def _studies(project: Project, images: Path, labels: tuple[str, ...]) -> StoredStudies:
    """Return the studies. Raises: ValueError: there are no images."""
    mapped = project.mapped_masks / FINAL_TAG
    finals = MaskStore(project.masks(), labels, mapped, first_labels(project) or labels)
    identities = ImageIdentities(project.checksums)
    skips = JsonFile(project.skips)
    return StoredStudies(StudyImages(images), AnnotationStore(project.clicks), finals, identities, skips)


def _dataset(
    options: argparse.Namespace, folder: Path, labels: tuple[str, ...], studies: StoredStudies
) -> NnunetDataset | BidsDataset:
    annotations = (folder, labels, studies.clicks, studies.masks())
    if options.format == "bids":
        return BidsDataset(*annotations, options.suffix)
    return NnunetDataset(*annotations, options.channel, options.margin)


def _export(studies: StoredStudies, dataset: NnunetDataset | BidsDataset) -> int:
    """Write all annotated scans, and return the number of those that failed."""
    failed = 0
    for scan in track(annotated_scans(studies, tuple(dataset.labels)), "Exporting", console=errors):
        try:
            dataset.add(scan)
        except (VolumeError, MaskError, AnnotationFileError) as error:  # the other scans are written
            complain(f"{scan.image_id}: {error}")
            failed += 1
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_project(parser, "; of an archive, images that were opened before")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to create; for nnU-Net such as Dataset501_Lesion")
    parser.add_argument("--format", choices=("nnunet", "bids"), default="nnunet", help="default: %(default)s")
    add_labels(parser)
    parser.add_argument(
        "--channel", default="MR", metavar="NAME", help="channel of the images; nnU-Net clips CT (default: %(default)s)"
    )
    parser.add_argument(
        "--margin",
        type=whole_number(0, 1000),
        default=4,
        metavar="N",
        help="voxels by which boxes are relaxed, for nnU-Net (default: %(default)s)",
    )
    parser.add_argument(
        "--suffix", choices=SUFFIXES, default="T1w", help="contrast of the images, for BIDS (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
