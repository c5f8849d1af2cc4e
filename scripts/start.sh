#!/usr/bin/env bash
# Starts the server; scripts/start.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script start "$@"
