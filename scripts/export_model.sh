#!/usr/bin/env bash
# Writes a model as a MONAI bundle, ONNX or TorchScript; scripts/export_model.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script export_model "$@"
