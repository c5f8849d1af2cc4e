#!/usr/bin/env bash
# A project as one HTML page; scripts/report.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script report "$@"
