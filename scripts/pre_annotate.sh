#!/usr/bin/env bash
# Masks of all studies in advance, by the published model; scripts/pre_annotate.sh --help lists the options.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
source "$scripts/environment.sh"

# Not from the root as a module: the paths among the arguments are relative to where the caller is.
root=$(cd "$scripts/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec python "$scripts/pre_annotate.py" "$@"
