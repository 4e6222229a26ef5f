#!/bin/sh
# Prints the interpreter to build the environment with: $1 if given, else the user's own python3 when it is a tested
# version, else the newest tested one. A candidate counts only if it runs and can make an environment (some
# distributions ship python3 without ensurepip; a version manager's shims may name interpreters that do not start).
usable() { "$1" -c "import sys, venv, ensurepip; sys.exit(not ($2))" >/dev/null 2>&1; }

if [ -n "${1:-}" ]; then
    usable "$1" "sys.version_info >= (3, 11)" && exec echo "$1"
    echo "PYTHON=$1 does not run, is older than 3.11, or has no venv and ensurepip." >&2
    exit 2
fi
usable python3 "(3, 11) <= sys.version_info[:2] <= (3, 13)" && exec echo python3
for python in python3.13 python3.12 python3.11 python3; do
    usable "$python" "sys.version_info >= (3, 11)" && exec echo "$python"
done
echo "curvebench needs Python 3.11 or newer with venv and ensurepip; none of python3, python3.13, python3.12, python3.11" >&2
echo "on the PATH is. Install one (Debian and Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3 ..." >&2
exit 2
