"""Write the current mask of every annotated study of a running server: NIfTI, and DICOM SEG for DICOM series.

A study is annotated when each label was clicked, was marked as absent, or is in the final mask.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from lib.exchange.annotation_server import AnnotationServer, ListedImage, ServerError
from lib.exchange.mask_export import ExportError, MaskExport
from lib.exchange.series_frames import SegmentationError
from lib.geometry.volume import VolumeError
from lib.server.process.modes import set_umask
from lib.server.process.typed import read_password
from scripts.terminal import complain, errors, refuse, script_parser, tell

EXAMPLE = """%(prog)s masks
%(prog)s masks --server http://127.0.0.1:8001 --image study_03 study_07"""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    set_umask(group=False)  # masks are data of patients
    try:
        server = AnnotationServer(options.server)
        if options.login:
            server.log_in(options.login, read_password(f"Password of {options.login}: "))
        export = MaskExport.into(options.out, server, overwrite=options.overwrite)
        images = server.images()
    except (ServerError, ValueError, OSError) as error:
        return refuse(_sentence(error) if isinstance(error, OSError) else str(error))
    if options.image:
        unknown = [image for image in options.image if image not in images]
        if unknown:
            return refuse(f"The image {unknown[0]!r} has neither clicks nor a final mask at {server.url}.")
        return _export(export, {image: images[image] for image in options.image}, options.push)
    annotated = {image: listed for image, listed in images.items() if not listed.unanswered}
    status = _export(export, annotated, options.push)
    if len(annotated) < len(images):
        unanswered = {label for listed in images.values() for label in listed.unanswered}
        tell(
            f"{len(images) - len(annotated)} studies are left out, because labels are missing in them "
            f"({', '.join(sorted(unanswered))}); --image writes them anyway."
        )
    return status


def _export(export: MaskExport, images: dict[str, ListedImage], push: bool) -> int:
    written, kept, pushed, failed = 0, 0, 0, 0
    for image, listed in track(images.items(), "Exporting", console=errors):
        try:
            is_new = export.write(image, listed)
            written, kept = written + is_new, kept + (not is_new)
            pushed += push and export.push(image)
        except Exception as error:  # whatever is wrong with one study, the others are written
            complain(f"{image}: {_sentence(error)}")
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                return 1
            failed += 1
    sentence = f"{written} masks written to {export.folder}"
    sentence += f"; {kept} exist already (--overwrite replaces them)" if kept else ""
    sentence += f"; {pushed} segmentations in the archive" if push else ""
    tell(sentence + (f"; {failed} failed." if failed else "."))
    return 1 if failed else 0


def _sentence(error: Exception) -> str:
    if isinstance(error, ServerError | ExportError | SegmentationError | VolumeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        again = " The same command continues from here." if error.errno in DISK_FULL else ""
        return f"The folder of the masks cannot be read or written: {error.strerror}.{again}"
    return f"The mask cannot be exported ({type(error).__name__}: {error})."


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    parser.add_argument("out", type=Path, metavar="FOLDER", help="folder for the masks; created if missing")
    parser.add_argument("--server", default="http://127.0.0.1:8000", metavar="URL", help="default: %(default)s")
    parser.add_argument("--login", metavar="NAME", help="user of a server with a login; the password is asked for")
    parser.add_argument("--image", nargs="+", metavar="ID", help="only these images (default: all annotated ones)")
    parser.add_argument("--push", action="store_true", help="store the DICOM SEG in the archive that the server serves")
    parser.add_argument("--overwrite", action="store_true", help="replace existing masks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
