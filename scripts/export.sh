#!/usr/bin/env bash
# Writes the masks of annotated studies of a running server; scripts/export.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script export "$@"
