#!/usr/bin/env bash
# Lists and restores deleted files; scripts/restore.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script restore "$@"
