#!/usr/bin/env bash
# Everything that only a GPU can show, in one run of at most nine minutes: tests, rates of training, inference and
# evaluation, and a training of the body model with the time that is left. It needs no network.
#   benchmarks/gpu/run.sh [--dry] [--out FOLDER] [--pack PEOPLE.pack] [--minutes 9]
# --dry rehearses every step on a CPU with a few people and steps. --pack trains on these people (leanpose data pack), not on
# the photos that come with leanpose. PYTHON names the interpreter; WHEELS a folder of wheels that it lacks, such as pydantic.
# FOLDER gets gpu.md, gpu.json, tests.log, train.csv, val.csv and best.safetensors.
set -euo pipefail
cd "$(dirname "$0")/../.."
began=$(date +%s)
dry=() out=${OUT:-gpu-run} pack=() minutes=9
while [ $# -gt 0 ]; do
    case $1 in
        --dry) dry=(--dry); shift ;;
        --out) out=$2; shift 2 ;;
        --pack) pack=(--pack "$2"); shift 2 ;;
        --minutes) minutes=$2; shift 2 ;;
        *) echo "run.sh: there is no option '$1'; it has --dry, --out, --pack and --minutes." >&2; exit 2 ;;
    esac
done
python=${PYTHON:-python3}
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH=$PWD/src:$scratch/wheels${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 LEANPOSE_CACHE=$scratch/cache
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-cache-dir --target "$scratch/wheels" "$WHEELS"/*.whl
fi
tests=(tests/gpu -p no:xdist)
# Compiling takes most of the tests' time, and a machine with a GPU has cores enough.
if "$python" -c "import xdist" 2>/dev/null; then
    tests=(tests/gpu -n 4)
fi
if [ ${#dry[@]} -gt 0 ]; then
    export LEANPOSE_GPU_TESTS=cpu OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=passive
    tests=(tests/gpu -p no:xdist -k "augmentation or waits_for or codecs or rtmpose_t-bf16")
fi
# A failing or hanging test must not take the measurements with it; what failed is in the log and in gpu.md.
status=0
timeout 170 "$python" -m pytest -v -p no:cacheprovider -m gpu "${tests[@]}" >"$out/tests.log" 2>&1 || status=$?
tail -n 3 "$out/tests.log"
left=$((60 * minutes - ($(date +%s) - began) - 15))
timeout "$left" "$python" benchmarks/gpu/measure.py "${dry[@]}" "${pack[@]}" --seconds "$((left - 20))" \
    --tests "$out/tests.log" --tests-status "$status" --out "$out"
