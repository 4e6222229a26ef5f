#!/usr/bin/env bash
# On a GPU machine without a package index: installs the bundle into a folder of its own, runs the GPU tests and the quick
# study on the device, and leaves records.tar.gz, table.md and the logs in FOLDER.
#
#   bash run.sh [FOLDER]        FOLDER: default $OUT, else ./out
#   PYTHON=python3              the interpreter that holds torch and jax
#   STUDY=quick                 the study to run; STUDY= runs none
#   DEVICE=cuda                 default: cuda where torch finds one, else cpu, which tries the bundle and proves no more
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-${OUT:-$PWD/out}}
python=${PYTHON:-python3}
study=${STUDY-quick}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)
"$python" "$here/install_bundle.py" "$here" "$work/site"
export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"

if [ -z "${DEVICE:-}" ]; then
    DEVICE=cpu
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' && DEVICE=cuda
fi
echo "device: $DEVICE"
if [ "$DEVICE" = cpu ]; then
    echo "no CUDA device: the GPU tests skip, and the study runs on the CPU"
fi
cd "$here"
failed=0

echo "== pytest -m gpu"
# The versions here are not the pinned ones: their warnings are shown, not errors. Both frameworks share one process, so
# jax must not take the device's whole memory at its start.
status=0
XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" -m pytest -m "gpu and not nightly" -W default tests 2>&1 |
    tee "$out/pytest.log" || status=$?
[ "$status" = 0 ] || { echo "the tests failed with exit code $status"; failed=1; }

if [ -n "$study" ]; then
    echo "== curvebench bench $study --device $DEVICE"
    "$python" -m curvebench bench "$study" --device "$DEVICE" --records "$work/records" 2>&1 |
        tee "$out/study.log" || { echo "the study failed"; failed=1; }
    "$python" -m curvebench report --study "$study" --records "$work/records" --out "$work/report" --format markdown \
        --no-figures > "$out/table.md" || { echo "the report failed"; failed=1; }
    if [ -d "$work/records" ]; then
        tar -C "$work" -czf "$out/records.tar.gz" records
        echo "$(find "$work/records" -name '*.json' | wc -l) records in $out/records.tar.gz"
    fi
fi
exit "$failed"
