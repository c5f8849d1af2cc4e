#!/usr/bin/env bash
# Lint, types and tests. Arguments go to pytest: scripts/test.sh tests/losses -k crf
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

ruff check .
ruff format --check .
mypy lib apps scripts benchmarks
exec python -m pytest "$@"
