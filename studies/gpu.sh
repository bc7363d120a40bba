#!/usr/bin/env bash
# Measures on one NVIDIA GPU what docs/performance.md has from a CPU alone.
#
#     studies/gpu.sh OUT           a JSON file and a log for each step, in a new folder OUT
#     studies/gpu.sh OUT --tiny    the same steps at tiny sizes, on a CPU too: do they run?
#
# A step that fails does not stop the others; the last lines name it, and the exit status is 1. PYTHON names
# the interpreter. `transformers serve` is measured where the extra `ecosystem` is installed.
set -uo pipefail

usage() { echo "usage: studies/gpu.sh OUT [--tiny]" >&2; exit 2; }
case $# in 1) tiny=no ;; 2) [ "$2" = --tiny ] || usage; tiny=yes ;; *) usage ;; esac
case $1 in -*) usage ;; /*) OUT=$1 ;; *) OUT=$PWD/$1 ;; esac
if [ -e "$OUT" ] && { [ ! -d "$OUT" ] || [ -n "$(ls -A "$OUT")" ]; }; then
  echo "$OUT exists and is not an empty folder; name a new one." >&2
  exit 2
fi
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
DEVICE=$("$PYTHON" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")') || exit 2
if [ "$DEVICE" = cpu ] && [ "$tiny" = no ]; then
  echo "torch sees no GPU; studies/gpu.sh OUT --tiny runs on a CPU." >&2
  exit 2
fi
mkdir -p "$OUT" || exit 2

# BPTT of the preset `paper` keeps some 4 MB a token, so its steps have fewer tokens than those of `small`.
MODELS=(--models smt-gru smt-mlp smt-transformer gpt2 mamba torch-gru)
ALONE=(--context 16 4096) MANY=(--context 128 --batch 8 64 512) COMPILE=(--compile) TORCH_COMPILE=(--torch-compile)
TRAIN=(--context 128 1024 4096 --tokens 32768) PAPER=(--preset paper) DMT=(--context 256) ROWS=(2 16)
SERVE=(--streams 1 8 64 256)
RUN=(--preset base --max-minutes 5)
if [ "$tiny" = yes ]; then
  small=(--parameters 2e4 --context 4 --tokens 3 --repeats 1)
  ALONE=("${small[@]}") MANY=("${small[@]}" --batch 2)
  # On a CPU it makes other programs than on a GPU, and takes minutes for each.
  if [ "$DEVICE" = cpu ]; then COMPILE=() TORCH_COMPILE=(); fi
  TRAIN=(--preset tiny --context 16 --tokens 32 --repeats 1) PAPER=(--preset tiny --repeats 1)
  DMT=(--context 16) ROWS=(2)
  SERVE=(--models smt-gru --parameters 2e4 --context 4 --streams 2 --repeats 1)
  RUN=(--preset tiny --max-steps 4 --num-evaluations 1 --eval-sequences 2)
fi

passed=() failed=()
step() {  # step NAME COMMAND…, which writes OUT/NAME.json
  echo "$(date +%T) $1"
  if "${@:2}" > "$OUT/$1.log" 2>&1 && [ -s "$OUT/$1.json" ]; then passed+=("$1"); else failed+=("$1"); fi
}
bench() { step "$1" "$PYTHON" -m smt_hf benchmark "${@:2}" --output "$OUT/$1.json"; }  # bench NAME WHAT …
tests() {
  local status=0
  "$PYTHON" -m pytest tests/test_gpu.py --junitxml "$OUT/tests.xml" || status=1
  "$PYTHON" - "$OUT/tests.xml" > "$OUT/tests.json" <<'PYTHON' || status=1
import json, sys
from xml.etree import ElementTree

suite = next(ElementTree.parse(sys.argv[1]).iter("testsuite"))
print(json.dumps({name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}))
PYTHON
  return $status
}
pretrain() {  # pretrain NAME ARGUMENTS…
  "$PYTHON" -m smt_hf pretrain "${RUN[@]}" --dataset python-docs --mixed-precision bf16 --disable-tqdm \
    --output-dir "$OUT/$1-run" "${@:2}" && cp "$OUT/$1-run/run.json" "$OUT/$1.json"
}

step tests tests
for dtype in float32 bfloat16; do
  bench decode-$dtype decode --device "$DEVICE" --dtype $dtype "${MODELS[@]}" "${ALONE[@]}" "${COMPILE[@]}"
  bench decode-batch-$dtype decode --device "$DEVICE" --dtype $dtype "${MODELS[@]}" "${MANY[@]}" "${COMPILE[@]}"
  bench train-$dtype train --dtype $dtype "${TRAIN[@]}"
  for rows in "${ROWS[@]}"; do  # the published recipe: SMT beside BPTT, and DMT beside the official algorithm
    tokens=$((rows * DMT[1]))
    paper=(--models smt-transformer "${PAPER[@]}" "${DMT[@]}" --tokens $tokens --dtype $dtype)
    bench "train-paper-$rows-$dtype" train "${paper[@]}"
    bench "dmt-paper-$rows-$dtype" dmt "${paper[@]}"
  done
done
bench serve serve "${SERVE[@]}"
step pretrain pretrain pretrain
step pretrain-compiled pretrain pretrain-compiled "${TORCH_COMPILE[@]}"

echo "${#passed[@]} steps passed; their files are in $OUT."
for name in ${failed[@]+"${failed[@]}"}; do echo "$name failed: $OUT/$name.log"; done
[ ${#failed[@]} = 0 ]
