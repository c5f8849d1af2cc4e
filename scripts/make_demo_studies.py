"""Write demo studies and, in another folder, their true masks.

The studies are MR-like, made from the MNI152 template, each with a lesion of known extent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from lib.demo.demo_studies import DemoStudySettings, write_demo_studies
from scripts.terminal import refuse, script_parser, tell, whole_number

EXAMPLE = "%(prog)s --out studies --truth truth --count 12"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = DemoStudySettings(shape=tuple(options.shape), spacing_mm=tuple(options.spacing), seed=options.seed)
        with Progress() as progress:
            task = progress.add_task("Demo studies", total=options.count)
            names = write_demo_studies(
                options.out,
                options.truth,
                options.count,
                settings,
                lambda done: progress.update(task, completed=done),
            )
    except (ValueError, OSError) as error:
        return refuse(str(error))
    tell(f"{len(names)} studies in {options.out}, their masks in {options.truth}")
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = DemoStudySettings()
    parser = script_parser(__file__, __doc__, EXAMPLE)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the studies, as NIfTI")
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="FOLDER", help="folder for the masks, outside of --out"
    )
    parser.add_argument("--count", type=whole_number(1), default=12, help="number of studies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    parser.add_argument(
        "--shape", type=whole_number(1), nargs=3, default=defaults.shape, metavar=("X", "Y", "Z"), help="voxels"
    )
    parser.add_argument(
        "--spacing",
        type=_thickness,
        nargs=3,
        default=defaults.spacing_mm,
        metavar=("X", "Y", "Z"),
        help="mm; 'vary' for Z draws 1.0 to 1.5 per study (default: 0.5 0.5 vary)",
    )
    return parser


def _thickness(text: str) -> float | None:
    return None if text == "vary" else float(text)


if __name__ == "__main__":
    sys.exit(main())
