"""Import annotations from files or from an archive into a project; the server trains on them.

Points become clicks. DICOM segmentations and structure sets become final masks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from rich.progress import track

from lib.annotations.mask_file import named_record
from lib.annotations.mask_store import MaskStore
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import AnnotationStore
from lib.configs.settings import ConfigurationError, read_conf
from lib.exchange.annotation_files import NamingRule, Reader, read_all
from lib.exchange.annotation_import import ImportPlan, plan_import
from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.exchange.dicom_import import DicomImport, NamedLabels
from lib.exchange.dicom_objects import read_files
from lib.exchange.label_indices import label_indices_of
from lib.exchange.mask_clicks import read_mask_clicks
from lib.exchange.mask_import import MaskPlan, StructureVoxels, plan_masks
from lib.exchange.paper_label_maps import read_paper_label_map
from lib.exchange.point_table import read_point_table
from lib.exchange.slicer_markups import EXTENSION, read_markups
from lib.exchange.study_images import StudyImages
from lib.geometry.volume_files import EXTENSIONS
from lib.server.archive.archive_annotations import annotations_of_archive
from lib.server.archive.archive_errors import ArchiveError
from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask_of
from lib.server.project import FINAL_TAG, Project, first_labels, images_of, is_archive, project_of
from scripts.terminal import add_project, complain, errors, number, refuse, script_parser, tell, whole_number

EXAMPLE = """%(prog)s studies --points points.csv --labels lesion,cyst
%(prog)s studies --dicom case01.seg.dcm structures/ --rename GTV-1=lesion
%(prog)s http://localhost:8042/dicom-web --archive --skip-other-labels"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings, _ = read_conf({"labels": options.labels})
        set_umask_of((project := project_of(options.studies, options.project_dir)).labels)
        images = StudyImages(images_of(options.studies))
        stores = AnnotationStore(project.clicks), _finals(project, settings.labels)
        records, structures = _found(options, settings.labels, images)
        annotator = options.annotator or ("simulated" if options.masks else "imported")
        clicks = plan_import(records, images, settings.labels, stores[0], annotator, overwrite=options.overwrite)
        masks = plan_masks(structures, stores[1], overwrite=options.overwrite)
    except ImportRefusedError as error:
        for sentence in error.sentences:
            complain(sentence)
        errors.print("Nothing was imported.")
        return 2
    except (ConfigurationError, ArchiveError, ValueError) as error:
        return refuse(str(error))
    status = _carry_out(clicks, masks, images, *stores, options)
    log = AuditLog(project.audit)
    done = {"import of clicks": clicks.new, "import of masks": masks.new}
    for action, new in done.items() if not options.dry_run else ():
        if new:
            log.write_script(action, "scripts/import_annotations.sh", annotations=len(new), status=status)
    return status


def _finals(project: Project, labels: tuple[str, ...]) -> MaskStore:
    mapped = project.mapped_masks / FINAL_TAG
    return MaskStore(project.masks(), labels, mapped, first_labels(project) or labels)


def _carry_out(
    clicks: ImportPlan,
    masks: MaskPlan,
    images: StudyImages,
    store: AnnotationStore,
    finals: MaskStore,
    options: argparse.Namespace,
) -> int:
    if options.dry_run:
        for annotation in clicks.new:
            tell(f"{annotation.image_id}: {annotation.points.label}: {len(annotation.points.foreground_voxel)} clicks")
        for image, structures in masks.new.items():
            tell(f"{image}: mask of {', '.join(structure.label for structure in structures)}")
    else:
        total = len(clicks.new) + len(masks.new)
        done = chain(clicks.carry_out(store), masks.carry_out(images, finals))
        try:
            for _ in track(done, "Importing", total=total, console=errors):
                pass
        except OSError as error:
            complain(f"{error}. Free disk space, then run the same command again; it continues from here.")
            return 1
    imported = "would be imported" if options.dry_run else "imported"
    if clicks.new or clicks.kept or not (masks.new or masks.kept):
        kept = f"; {len(clicks.kept)} that exist were kept (--overwrite replaces them)" if clicks.kept else ""
        tell(f"{len(clicks.new)} annotations {imported} into {store.folder}{kept}.")
    if masks.new or masks.kept:
        kept = f"; {len(masks.kept)} that exist were kept (--overwrite replaces them)" if masks.kept else ""
        tell(f"{len(masks.new)} masks {imported} into {finals.folder}{kept}.")
    return 0


def _found(
    options: argparse.Namespace, labels: tuple[str, ...], images: StudyImages
) -> tuple[list[ClickRecord], list[StructureVoxels]]:
    """Read clicks and structures. Raises: ImportRefusedError, ArchiveError: they cannot be read, or there are none."""
    if options.dicom is None and options.archive is None:
        return _records(options, labels, images), []
    named = NamedLabels(labels, options.label, dict(options.rename), options.skip_other_labels)
    reader = DicomImport(images, named, options.image, options.annotator, options.skip_missing_images)
    if options.dicom:
        files = read_files(options.dicom)
    elif is_archive(options.studies):
        files = annotations_of_archive(options.studies, options.archive, images)
    else:
        raise ImportRefusedError([f"{options.studies} is no archive; --archive reads from one, --dicom from files."])
    records, structures = reader.read(track(files.objects, "Reading", console=errors), files.slices)
    if not records and not structures:
        raise ImportRefusedError([f"There is nothing to import for the images in {images.folder}."])
    return records, structures


def _records(options: argparse.Namespace, labels: tuple[str, ...], images: StudyImages) -> list[ClickRecord]:
    """Read the clicks of files. Raises: ImportRefusedError: with all errors of all files, or there are no clicks."""
    kinds = {"points": _tables, "markups": _markups, "label_maps": _label_maps, "masks": _masks}
    readers = next(kinds[kind] for kind in kinds if getattr(options, kind))
    records = read_all(track(list(readers(options, labels)), "Reading", console=errors))
    if options.skip_missing_images:
        records = [record for record in records if images.id_of(record.image) is not None]
    if not records:
        raise ImportRefusedError([f"There is nothing to import for the images in {images.folder}."])
    return records


def _tables(options: argparse.Namespace, labels: tuple[str, ...]) -> Iterator[Reader]:
    for path in options.points:
        yield partial(read_point_table, path)


def _markups(options: argparse.Namespace, labels: tuple[str, ...]) -> Iterator[Reader]:
    for path in NamingRule().files(options.markups, [EXTENSION]):
        yield partial(read_markups, path, labels, image=options.image, label=options.label)


def _label_maps(options: argparse.Namespace, labels: tuple[str, ...]) -> Iterator[Reader]:
    if options.label is None and len(labels) > 1:
        raise ImportRefusedError(
            [f"The label maps do not name their structure; give one of {', '.join(labels)} with --label."]
        )
    rule = NamingRule(options.file_suffix, options.image_suffix)
    for path in rule.files(options.label_maps, EXTENSIONS):
        yield partial(read_paper_label_map, path, rule.image_of(path), options.label or labels[0])


def _masks(options: argparse.Namespace, labels: tuple[str, ...]) -> Iterator[Reader]:
    def click(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return simulated_extreme_points(mask, rng, options.error_voxels)

    rule = NamingRule(options.file_suffix, options.image_suffix)
    for path in rule.files(options.masks, EXTENSIONS):
        record = named_record(path)
        indices = options.label or (record.labels if record else label_indices_of(path.parent, labels))
        yield partial(read_mask_clicks, path, rule.image_of(path), indices, click, options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_project(parser, "; of an archive, images that were opened before")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--points", type=Path, nargs="+", metavar="CSV", help="image,label,x,y,z[,coordinates]")
    source.add_argument("--markups", type=Path, nargs="+", metavar="PATH", help=f"{EXTENSION} files or folders")
    source.add_argument(
        "--label-maps", type=Path, nargs="+", metavar="PATH", help="label maps of the paper: codes 1 to 6 and 12"
    )
    source.add_argument(
        "--dicom", type=Path, nargs="+", metavar="PATH", help="SEG, RTSTRUCT and SR (TID 1500), files or folders"
    )
    source.add_argument(
        "--archive", nargs="*", metavar="UID", help="series of the archive STUDIES with these (default: all of them)"
    )
    source.add_argument("--masks", type=Path, nargs="+", metavar="PATH", help="masks to compute extreme points from")
    parser.add_argument("--labels", default="lesion", metavar="A,B", help="labels of the server (default: %(default)s)")
    parser.add_argument("--label", metavar="A", help="structure that the files annotate")
    parser.add_argument("--image", metavar="ID", help="image of --markups and --dicom (default: as in the files)")
    parser.add_argument(
        "--rename", type=_renaming, nargs="+", default=[], metavar="NAME=LABEL", help="label for a structure of --dicom"
    )
    parser.add_argument(
        "--skip-other-labels", action="store_true", help="leave out structures of --dicom that have no label"
    )
    parser.add_argument("--file-suffix", default="", metavar="TEXT", help="suffix of the file names, such as _Extremes")
    parser.add_argument("--image-suffix", default="", metavar="TEXT", help="suffix of the image ids, such as _T2")
    parser.add_argument(
        "--error-voxels", type=number(0), default=0.0, metavar="N", help="error of simulated clicks, for --masks"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="seed of that error (default: %(default)s)"
    )
    parser.add_argument(
        "--annotator", metavar="NAME", help="name of the annotator (default: as in DICOM, imported, or simulated)"
    )
    parser.add_argument(
        "--skip-missing-images", action="store_true", help="leave out annotations of images that are not in STUDIES"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace existing annotations; old clicks stay as history"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    return parser


def _renaming(text: str) -> tuple[str, str]:
    name, separator, label = text.rpartition("=")
    if not separator or not name.strip() or not label.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=LABEL")
    return name.strip(), label.strip()


if __name__ == "__main__":
    sys.exit(main())
