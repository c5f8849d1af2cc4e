"""Write a version of the model for use without this server: a MONAI bundle, ONNX or TorchScript.

A bundle computes the same masks as the server. ONNX and TorchScript hold the network only, from a window of the scan to
logits. Each file names its version, SHA-256, annotators and scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.annotations.atomic_write import write_atomically
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.modelexport.bundle import write_bundle
from lib.modelexport.facts import ModelFacts
from lib.modelexport.graph_files import UnfaithfulExportError, onnx_file, torchscript_file
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.server.audit import AuditLog
from lib.server.process.modes import set_umask_of
from lib.server.project import Project, project_of
from lib.training.record import TrainingRecord
from scripts.terminal import add_project, refuse, script_parser, tell

EXAMPLE = """%(prog)s studies model-bundle
python -m monai.bundle run --config_file model-bundle/configs/inference.json \\
    --bundle_root model-bundle --dataset_dir scans --output_dir masks
%(prog)s studies model-3.onnx --format onnx --version 3"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    project = project_of(options.studies, options.project_dir)
    model_dir = options.model_dir or project.model
    set_umask_of(model_dir)
    try:
        model = _model(ModelVersions(model_dir / "inextremis.pt"), options.version)
        facts = _facts(model, project, model_dir)
        _write(options.out, options.format, facts)
    except FileNotFoundError:
        kept = ", ".join(map(str, ModelVersions(model_dir / "inextremis.pt").numbers()))
        missing = "model" if options.version is None else f"version {options.version}"
        found = f"these are kept: {kept}" if kept else "none is kept"
        return refuse(f"There is no {missing} in {model_dir}; {found}. --model-dir names another folder.")
    except FileExistsError:
        return refuse(f"{options.out} exists already; delete it, or give another place.")
    except (CheckpointError, UnfaithfulExportError) as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"The model cannot be written to {options.out} ({error.strerror}).")
    AuditLog(project.audit).write_script(
        "export of the model", "scripts/export_model.sh", version=model.version, format=options.format
    )
    tell(f"Version {model.version} is in {options.out}. {_said(facts)}")
    return 0


def _model(versions: ModelVersions, number: int | None) -> TrainedModel:
    """Load a version, by default the published one.

    Raises:
        FileNotFoundError: it is not kept.
        CheckpointError: its file cannot be used.
    """
    if number is None:
        return load_checkpoint(versions.published_path)
    if not versions.path(number).exists() and versions.published_number() == number:  # published from another place
        return load_checkpoint(versions.published_path)
    return load_checkpoint(versions.path(number))


def _facts(model: TrainedModel, project: Project, model_dir: Path) -> ModelFacts:
    record = TrainingRecord.load(model_dir / "inextremis" / "record.json")
    masks = MaskStore(project.masks(), model.spec.labels, project.mapped_masks)
    return ModelFacts.of(model, record, AnnotationStore(project.clicks), masks)


def _write(out: Path, form: str, facts: ModelFacts) -> None:
    if out.exists():
        raise FileExistsError(out)
    if form == "bundle":
        write_bundle(out, facts)
    else:
        write_atomically(out, onnx_file(facts) if form == "onnx" else torchscript_file(facts))


def _said(facts: ModelFacts) -> str:
    if facts.run is None:
        return "Its training is not in the record, so that the file names neither annotators nor studies."
    names = ", ".join(facts.annotators or ()) or "nobody by name"
    return f"It was trained on {facts.run.scans} studies; annotators named in it: {names}."


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_project(parser, model_dir=True)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder (bundle) or file to create")
    parser.add_argument(
        "--format", choices=("bundle", "onnx", "torchscript"), default="bundle", help="default: %(default)s"
    )
    parser.add_argument("--version", type=int, metavar="N", help="version of the model (default: the published one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
