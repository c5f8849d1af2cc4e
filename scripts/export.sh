#!/usr/bin/env bash
# The masks of annotated studies, from a running server; scripts/export.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script export "$@"
