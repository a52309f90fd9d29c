#!/usr/bin/env bash
# Writes requirements/*.lock anew from pyproject.toml: hashed, for every platform and Python, without
# index addresses. What a lock has stays as long as it fits; arguments go to uv, such as
# --upgrade-package=jax. Needs uv. Usage: bash scripts/lock.sh [ARGS...]
set -euo pipefail
cd "$(dirname "$0")/.."
alike="$(mktemp)"  # what all locks have of one version, whatever else they hold
trap 'rm -f "$alike"' EXIT

lock() {
  local name="$1" extras="$2"
  shift 2
  # shellcheck disable=SC2086  # several options in one word
  uv pip compile pyproject.toml $extras --universal --python-version=3.11 --generate-hashes \
    --no-annotate --no-header --no-emit-index-url --quiet --constraint="$alike" "$@" \
    --output-file="requirements/$name.lock"
}

lock core "" "$@"
grep -oE '^(jax|jaxlib|flax|optax|orbax-checkpoint)==[^ ]+' requirements/core.lock > "$alike"
for name in dev slides gpu tpu bench; do
  lock "$name" "--extra=$name" "$@"
done
lock beam "--extra=beam --extra=slides" "$@"
