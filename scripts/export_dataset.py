"""Writes the annotated scans of a project as a dataset of nnU-Net v2, without a server.

Final masks are taken as they are. Where there are only clicks, the geodesics between them are the structure, what lies
outside of the relaxed box is background, and the rest has nnU-Net's label `ignore`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from lib.annotations.atomic_write import new_folder
from lib.annotations.image_identity import ImageIdentities
from lib.annotations.json_file import JsonFile
from lib.annotations.mask_file import MaskError
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationFileError, AnnotationStore
from lib.exchange.nnunet_dataset import DatasetError, NnunetDataset, check_dataset
from lib.exchange.stored_studies import StoredStudies
from lib.exchange.study_images import StudyImages
from lib.geometry.volume import VolumeError
from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask
from lib.server.project import FINAL_TAG, Project, first_labels, images_of, project_of
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError

EXAMPLE = """example:
  scripts/export_dataset.sh studies "$nnUNet_raw/Dataset501_Lesion" --format nnunet
  nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity
"""

console = Console()
errors = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    set_umask(group=False)  # scans are data of patients
    project = project_of(options.studies, options.project_dir)
    labels = tuple(label.strip() for label in options.labels.split(",") if label.strip())
    labels = labels or first_labels(project) or ("lesion",)
    try:
        check_dataset(options.out, labels)
        studies = _studies(project, images_of(options.studies), labels)
        with new_folder(options.out) as folder:
            dataset = NnunetDataset(folder, labels, studies.clicks, studies.masks(), options.channel, options.margin)
            failed = _export(studies, dataset)
            dataset.finish()
    except FileExistsError:
        return _refuse(f"There is something at {options.out} already; delete it, or name another place.")
    except (DatasetError, TrainingError, ValueError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"The dataset cannot be written to {options.out} ({error.strerror}). Nothing of it is left.")
    AuditLog(project.audit).write_script(
        "export of a dataset", "scripts/export_dataset.sh", scans=len(dataset.cases), format=options.format
    )
    partly = dataset.made_from()["cases_with_unknown_voxels"]
    told = f"{len(dataset.cases)} scans written to {options.out}, {partly} of them with voxels to be ignored"
    console.print(f"{told}; {failed} failed." if failed else f"{told}.", soft_wrap=True, markup=False, highlight=False)
    return 1 if failed else 0


def _studies(project: Project, images: Path, labels: tuple[str, ...]) -> StoredStudies:
    """Raises: ValueError: there are no images."""
    mapped = project.mapped_masks / FINAL_TAG
    finals = MaskStore(project.masks(), labels, mapped, first_labels(project) or labels)
    identities = ImageIdentities(project.checksums)
    skips = JsonFile(project.skips)
    return StoredStudies(StudyImages(images), AnnotationStore(project.clicks), finals, identities, skips)


def _export(studies: StoredStudies, dataset: NnunetDataset) -> int:
    """Writes all scans with an answer. Returns: how many could not be."""
    failed = 0
    for scan in track(annotated_scans(studies, tuple(dataset.labels)), "Exporting", console=errors):
        try:
            dataset.add(scan)
        except (
            VolumeError,
            MaskError,
            AnnotationFileError,
        ) as error:  # whatever is wrong with one scan, the others are written
            _complain(f"{scan.image_id}: {error}")
            failed += 1
    return failed


def _refuse(sentence: str) -> int:
    _complain(sentence)
    return 2


def _complain(sentence: str) -> None:
    errors.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/export_dataset.sh",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "studies",
        metavar="STUDIES",
        help="folder or address that the server was started with; of an archive, images that were opened before",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder such as Dataset501_Lesion; must not be there yet")
    parser.add_argument("--format", choices=("nnunet",), default="nnunet", help="default: %(default)s")
    parser.add_argument(
        "--labels", default="", metavar="A,B", help="of the app (default: those that it had when the project began)"
    )
    parser.add_argument(
        "--channel", default="MR", metavar="NAME", help="of the images; nnU-Net clips CT (default: %(default)s)"
    )
    parser.add_argument(
        "--margin",
        type=_voxels,
        default=4,
        metavar="N",
        help="voxels by which boxes are relaxed (default: %(default)s)",
    )
    parser.add_argument("--project-dir", type=Path, help="the server's project_dir, if it was given one")
    return parser


def _voxels(text: str) -> int:
    if not 0 <= (number := int(text)) <= 1000:
        raise argparse.ArgumentTypeError(f"{number} is not a number of voxels from 0 to 1000")
    return number


if __name__ == "__main__":
    sys.exit(main())
