#!/usr/bin/env bash
# The figures of docs/performance.md: about 25 minutes on two CPU cores, which must do nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
SMT=${SMT:-.venv/bin/smt-hf}
bench() {  # bench NAME WHAT ARGUMENTS…; a file that exists is kept
  [ -f "docs/results/benchmark-$1.json" ] || $SMT benchmark "${@:2}" --output "docs/results/benchmark-$1.json"
}
CELLS="smt-gru smt-lstm smt-elman smt-mlp smt-transformer"
bench decode decode --models $CELLS gpt2 mamba torch-gru --context 16 4096 --repeats 3
bench decode-16k decode --models $CELLS --context 16 16384 --repeats 3
bench decode-paper decode --models smt-paper --context 16 --tokens 128 --repeats 3
bench prefill prefill --models smt-gru smt-mlp gpt2 mamba torch-gru --context 4096 --repeats 2
bench train train --repeats 3
bench dmt dmt --repeats 3
