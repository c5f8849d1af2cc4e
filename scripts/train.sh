#!/usr/bin/env bash
# Trains without a server; scripts/train.sh --help lists the options.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
source "$scripts/environment.sh"

# Not from the root as a module: the paths among the arguments are relative to where the caller is.
PYTHONPATH="$scripts/..${PYTHONPATH:+:$PYTHONPATH}" exec python "$scripts/train.py" "$@"
