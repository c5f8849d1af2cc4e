#!/usr/bin/env bash
# The main job from end to end on demo studies; scripts/demo.sh --help lists its options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

exec python -m scripts.demo "$@"
