#!/usr/bin/env bash
# The runs behind the figures of README.md and docs/results.md. About 100 minutes on two CPU cores.
# A run that is finished is not run again, so the script can be stopped and started; RUNS names the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
RUNS=${RUNS:-runs/measured}
SMT=${SMT:-.venv/bin/smt-hf}
mkdir -p "$RUNS"

run() {  # run NAME THREADS ARGUMENTS…
  local name=$1 threads=$2
  shift 2
  grep -qs '"finished"' "$RUNS/$name/run.json" && return
  rm -rf "${RUNS:?}/$name"
  echo "$name"
  OMP_NUM_THREADS=$threads "$SMT" pretrain --output-dir "$RUNS/$name" --checkpoint-every 0 \
    --disable-tqdm "$@" > "$RUNS/$name.log" 2>&1
}

# 1. Text, seven minutes each with both cores: the transformer cell by both methods, GRU by SMT.
BPTT="--method bptt --sequence-length 64 --batch-size 32"
run text7-transformer-smt 2 --cell transformer --max-minutes 7
run text7-transformer-bptt 2 --cell transformer --max-minutes 7 $BPTT --learning-rate 2e-3
run text7-gru-smt 2 --cell gru --max-minutes 7

# 2. All cells, side by side, one core each: equal wall-clock, then equal tokens and equal sequential steps.
for cell in gru transformer mlp lstm elman; do
  seeds=0; [ $cell = gru ] && seeds="0 1 2"
  for seed in $seeds; do
    run text3-$cell-smt-$seed 1 --cell $cell --seed $seed --max-minutes 3 &
    run text3-$cell-bptt-$seed 1 --cell $cell --seed $seed --max-minutes 3 $BPTT --learning-rate 2e-3 &
    wait
  done
done
