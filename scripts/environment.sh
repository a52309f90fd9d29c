# To be sourced: the packages of a lock in .venv, and .venv in this shell.
# Usage: . scripts/environment.sh LOCK
cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && bash scripts/install.sh "${1:-}" || return 1
export PATH="$PWD/.venv/bin:$PATH" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
unset PYTHONDONTWRITEBYTECODE  # else every process would compile the packages anew
