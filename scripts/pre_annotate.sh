#!/usr/bin/env bash
# Segments all studies with the published model; scripts/pre_annotate.sh --help lists the options.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_script pre_annotate "$@"
