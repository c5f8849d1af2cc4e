#!/usr/bin/env bash
# Shows the main steps on demo studies; scripts/demo.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$_root" # the folder of the demo is made there
run_script demo "$@"
