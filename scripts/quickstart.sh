#!/usr/bin/env bash
# PixelCAM against its own baseline on drawn tissue, from nothing to a report, in minutes.
# Arguments go to wsol_jax.main, e.g. --config.epochs=2 --config.baseline.epochs=2 --workdir=/tmp/run
set -euo pipefail
. "$(dirname "$0")/environment.sh" core
python -m wsol_jax.main --config=configs/quickstart.py "$@"
