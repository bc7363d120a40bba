#!/usr/bin/env bash
# Measures text, retrieval, five cells and parallel sweeps as the first versions trained them (studies/LOG.md;
# results/text7, cells, retrieval-first, sweeps-first and search). About 55 minutes on two CPU cores.
# A run that is finished is not run again, so the script can be stopped and started; RUNS names the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
RUNS=${RUNS:-runs/measured}
SMT=${SMT:-.venv/bin/smt-hf}
mkdir -p "$RUNS"

run() {  # run NAME THREADS ARGUMENTS…
  local name=$1 threads=$2
  shift 2
  if grep -qs '"status": "finished"' "$RUNS/$name/run.json"; then return; fi
  rm -rf "${RUNS:?}/$name"
  echo "$(date +%T) $name"
  OMP_NUM_THREADS=$threads "$SMT" pretrain --output-dir "$RUNS/$name" --checkpoint-every 0 \
    --disable-tqdm "$@" > "$RUNS/$name.log" 2>&1
}

# Learning rate, window and batch of BPTT were searched first (studies/LOG.md); the batch, side by side:
for rows in 16 32; do
  run search-transformer-bptt-batch$rows 1 --cell transformer --method bptt --sequence-length 64 \
    --learning-rate 1e-3 --max-minutes 2 --num-evaluations 2 --batch-size $rows &
done
wait
BPTT="--method bptt --sequence-length 64"
rate() { if [ "$1" = transformer ]; then echo 1e-3; else echo 3e-3; fi; }

# 1. Text, seven minutes each, the two methods side by side on one core each.
for cell in transformer gru; do
  run text7-$cell-smt 1 --cell $cell --max-minutes 7 &
  run text7-$cell-bptt 1 --cell $cell --max-minutes 7 $BPTT --learning-rate "$(rate $cell)" &
  wait
done

# 2. Retrieval, SMT and BPTT on one core each, the same curriculum.
TASK="--dataset retrieval --hidden-size 64 --eval-sequences 1024"
SHORT="--cell gru $TASK --sequence-length 64 --batch-size 64 --curriculum-start-length 16 --max-minutes 3"
LONG="--cell gru $TASK --sequence-length 256 --batch-size 16 --curriculum-start-length 32 --max-minutes 4.5"
SMT_TASK="--num-labels 16 --dmt-fraction 0.5 --dmt-learning-rate 1.5e-3"
run retrieval64-gru-smt 1 $SHORT $SMT_TASK --rollout-length 32 &
run retrieval256-gru-smt 1 $LONG $SMT_TASK --rollout-length 64 &
wait
run retrieval64-gru-bptt-3e-3 1 $SHORT --method bptt --learning-rate 3e-3 &
run retrieval256-gru-bptt-3e-3 1 $LONG --method bptt --learning-rate 3e-3 &
wait
# The transformer cell, which has no gate to hold on to anything; BPTT at three learning rates.
MIDDLE="--cell transformer $TASK --sequence-length 128 --batch-size 32 --curriculum-start-length 16"
run retrieval128-transformer-smt 1 $MIDDLE --max-minutes 3 $SMT_TASK --rollout-length 32 &
run retrieval128-transformer-bptt-1e-3 1 $MIDDLE --max-minutes 3 --method bptt --learning-rate 1e-3 &
wait
run retrieval128-transformer-bptt-3e-4 1 $MIDDLE --max-minutes 3 --method bptt --learning-rate 3e-4 &
run retrieval128-transformer-bptt-3e-3 1 $MIDDLE --max-minutes 3 --method bptt --learning-rate 3e-3 &
wait

# 3. All cells on text, the two methods side by side on one core each; three seeds for gru.
for cell in gru transformer mlp lstm elman; do
  seeds=0
  if [ $cell = gru ]; then seeds="0 1 2"; fi
  for seed in $seeds; do
    common="--cell $cell --seed $seed --max-minutes 1"
    run cells-$cell-smt-$seed 1 $common &
    run cells-$cell-bptt-$seed 1 $common $BPTT --learning-rate "$(rate $cell)" &
    wait
  done
done

# 4. DMT by parallel sweeps instead of the sequential rollout, two cells side by side.
run sweeps-gru-smt-0 1 --cell gru --max-minutes 1 --num-sweeps 4 &
run sweeps-transformer-smt-0 1 --cell transformer --max-minutes 1 --num-sweeps 4 &
wait
# Longer, and beside one another: at one minute the transformer cell's figures are not settled.
run sweeps-transformer-2min-0 1 --cell transformer --max-minutes 2 --num-sweeps 0 &
run sweeps-transformer-2min-4 1 --cell transformer --max-minutes 2 --num-sweeps 4 &
wait
run sweeps-transformer-2min-1 1 --cell transformer --max-minutes 2 --num-sweeps 1 &
run sweeps-transformer-2min-2 1 --cell transformer --max-minutes 2 --num-sweeps 2 &
wait
