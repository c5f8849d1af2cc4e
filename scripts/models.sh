#!/usr/bin/env bash
# The published model and the ones before it; scripts/models.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script models "$@"
