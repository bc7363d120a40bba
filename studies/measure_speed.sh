#!/usr/bin/env bash
# Measures the tables of docs/performance.md: about 35 minutes on two CPU cores, which must do nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
SMT=${SMT:-.venv/bin/smt-hf}
bench() {  # bench NAME WHAT ARGUMENTS…; a file that exists is kept
  [ -f "results/benchmark-$1.json" ] || $SMT benchmark "${@:2}" --output "results/benchmark-$1.json"
}
CELLS="smt-gru smt-lstm smt-elman smt-mlp smt-transformer"
bench decode decode --models $CELLS gpt2 llama mamba rwkv xlstm torch-gru --context 16 4096 --repeats 3
bench decode-16k decode --models $CELLS --context 16 16384 --repeats 3
bench decode-paper decode --models smt-paper --context 16 --tokens 128 --repeats 3
bench compiled-small decode --models smt-small --context 16 --threads 1 --compile
bench compiled-small-transformer decode --models smt-transformer --parameters 1e6 --context 16 --threads 1 --compile
bench compiled-small-gru decode --models smt-gru --parameters 1e6 --context 16 --threads 1 --compile
bench compiled-gru decode --models smt-gru --context 16 --threads 1 --compile
bench compiled-paper decode --models smt-paper --context 16 --threads 1 --compile
for threads in 2 1; do
  bench gru-loop-$threads decode --models smt-gru torch-gru --context 16 --tokens 128 --compile --threads $threads
done
bench prefill prefill --models smt-gru smt-mlp gpt2 mamba torch-gru --context 4096 --repeats 2
bench train train --repeats 3
bench dmt dmt --repeats 3
# Of models that studies/measure.sh has trained, on one thread.
trial() {  # trial WHAT RUN…
  local file="results/trials-$1.json" runs=("${@:2}")
  [ -f "$file" ] && return
  OMP_NUM_THREADS=1 ${PYTHON:-.venv/bin/python} studies/measure_trials.py "$1" "${runs[@]/#/runs/measured/}" > "$file.part"
  mv "$file.part" "$file"
}
trial sweeps cells-gru-bptt-0 cells-gru-smt-0 cells-elman-smt-0 cells-transformer-smt-0
trial int8 cells-gru-smt-0 cells-transformer-smt-0
trial labels
