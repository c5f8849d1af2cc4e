#!/usr/bin/env bash
# Imports annotations; scripts/import_annotations.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script import_annotations "$@"
