#!/usr/bin/env bash
# One run over N processes on this machine's CPU, to see it work: bash scripts/launch_local.sh N ARGS...
# Arguments go to wsol_jax.main. Lines begin with the number of their process; when one process
# fails all are ended, with its status. SIGTERM and Ctrl-C let them save and stop.
set -euo pipefail
count="${1:-}"
if ! [[ "$count" =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: bash scripts/launch_local.sh N ARGS..., N the number of processes" >&2
  exit 2
fi
shift
if ! python -c 'import jax' >/dev/null 2>&1; then
  . "$(dirname "$0")/environment.sh" core
fi
port="$(python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')"

pids=()
for ((i = 0; i < count; i++)); do
  JAX_PLATFORMS=cpu python -u -m wsol_jax.main --coordinator="127.0.0.1:$port" \
    --processes="$count" --process="$i" "$@" > >(sed -u "s/^/[$i] /") 2>&1 &
  pids+=($!)
done
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true' EXIT
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT

running=1
while [ "$running" -gt 0 ]; do
  running=0
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running=$((running + 1))
    else
      wait "$pid" || exit $?  # the others would wait for it forever
    fi
  done
  sleep 0.2
done
