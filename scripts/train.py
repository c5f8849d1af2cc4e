"""Train on the annotations of a project without a server, on all GPUs of one or more machines.

A version is published only if it is not worse than the published one. A running server loads it with its next request.
Machines that train together need the same folders.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException

from lib.configs.settings import ConfigurationError, read_conf
from lib.server.audit import AuditLog
from lib.server.launch import APP, StartError, require_studies
from lib.server.project import project_of
from lib.trainers.processes import GPUError, Processes, require_gpus, train_in_processes
from lib.training.model_folder import NAME
from scripts.terminal import add_conf, add_studies, complain, refuse, script_parser, whole_number

EXAMPLE = """%(prog)s studies --labels tumour --conf max_minutes 60
%(prog)s studies --labels tumour --nnodes 2 --rdzv-endpoint 10.0.0.5:29500  # on each of two machines"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    conf = dict(options.conf)
    if options.labels:
        conf["labels"] = options.labels
    try:
        settings, _ = read_conf(conf)
        if settings.review:
            return refuse("A project of readings for review has no model to train; leave --conf review out.")
        gpus = require_gpus(settings.gpus)
        studies = require_studies(options.studies, settings.project_dir)
    except GPUError as error:
        return refuse(f"--conf gpus: {error}.")
    except (ConfigurationError, StartError) as error:
        return refuse(str(error))
    if options.nnodes > 1 and options.rdzv_endpoint is None:
        return refuse("--nnodes needs --rdzv-endpoint HOST:PORT, a port of one of the machines that all reach.")
    if gpus != "all":
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    n_gpus = torch.cuda.device_count()
    per_machine = options.nproc_per_node or max(1, n_gpus)
    if 0 < n_gpus < per_machine:
        return refuse(f"--nproc-per-node is {per_machine}; expected at most {n_gpus}, one a GPU.")
    AuditLog(project_of(studies, settings.project_dir).audit).write_script("training", "scripts/train.sh", model=NAME)
    os.environ |= {
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": studies,
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false",
    }
    request = {"model": NAME, "pretrained": not options.from_scratch}
    try:
        train_in_processes(request, Processes(per_machine, options.nnodes, options.rdzv_endpoint))
    except (SignalException, KeyboardInterrupt):
        complain(
            "The training was stopped. The published model stays, and the next training continues after its last epoch."
        )
        return 130
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_studies(parser)
    parser.add_argument("--labels", metavar="A,B", help="labels of the server (default: lesion)")
    add_conf(parser)
    parser.add_argument("--from-scratch", action="store_true", help="do not start from the published model")
    parser.add_argument(
        "--nproc-per-node", type=whole_number(1), metavar="N", help="processes on this machine (default: one a GPU)"
    )
    parser.add_argument(
        "--nnodes", type=whole_number(1), default=1, metavar="N", help="number of machines; run the command on each"
    )
    parser.add_argument(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="address at which the machines meet; use it on a trusted network only",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
