#!/usr/bin/env bash
# Format, lint and the whole test suite. Arguments go to pytest, e.g. tests/test_seeds.py -x
set -euo pipefail
. "$(dirname "$0")/environment.sh" dev
ruff format --check .
ruff check .
# A file stays on one worker: what its tests share is made once.
python -m pytest -n "${WSOL_TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
