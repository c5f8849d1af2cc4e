#!/usr/bin/env bash
# Manages the users of a server; scripts/users.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script users "$@"
