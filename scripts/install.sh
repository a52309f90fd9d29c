#!/usr/bin/env bash
# A virtual environment in .venv with exactly the packages of requirements/LOCK.lock, and this one.
# Needs only Python >= 3.11 and a package index. Usage: bash scripts/install.sh LOCK
set -euo pipefail
cd "$(dirname "$0")/.."
lock="requirements/${1:-}.lock"
if [ ! -f "$lock" ]; then
  echo "no lock '${1:-}'; have $(cd requirements && echo *.lock)" >&2
  exit 2
fi

find_python() {
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 \
      && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3.11" >&2
  return 1
}

if [ ! -x .venv/bin/python ]; then
  python="$(find_python)"
  "$python" -m venv .venv || { rm -rf .venv; exit 1; }
fi
.venv/bin/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || {
  echo ".venv has $(.venv/bin/python --version); expected 3.11, 3.12 or 3.13: remove .venv" >&2
  exit 1
}
if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  [ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet uv
  uv=.venv/bin/uv
fi
# Packages are copied anew only where the lock or the environment has changed since.
stamp=".venv/.installed"
wanted="$(cat "$lock" pyproject.toml | cksum)"
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  VIRTUAL_ENV="$PWD/.venv" "$uv" pip sync --quiet --require-hashes "$lock"
  VIRTUAL_ENV="$PWD/.venv" "$uv" pip install --quiet --no-deps --editable .
  echo "$wanted" > "$stamp"
fi
