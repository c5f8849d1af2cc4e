#!/usr/bin/env bash
# Lists the versions of the model, publishes an earlier one; scripts/models.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script models "$@"
