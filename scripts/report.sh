#!/usr/bin/env bash
# Writes an HTML page about a project; scripts/report.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script report "$@"
