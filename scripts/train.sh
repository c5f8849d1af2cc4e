#!/usr/bin/env bash
# Trains without a server; scripts/train.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script train "$@"
