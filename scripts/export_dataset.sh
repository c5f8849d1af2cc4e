#!/usr/bin/env bash
# Writes annotated scans as a dataset; scripts/export_dataset.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script export_dataset "$@"
