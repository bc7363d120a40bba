#!/usr/bin/env bash
# Measures tokens per second and losses of training: one process with one and with two threads beside two
# processes with one thread each; the same batch, seed and steps. About 4 minutes on two CPU cores. Writes
# results/scaling.json.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

train() {  # train NAME METHOD THREADS PROGRAM…
  local name=$1 method=$2 threads=$3; shift 3
  OMP_NUM_THREADS=$threads "$@" .venv/bin/smt-hf pretrain --dataset python-docs --cell gru --preset small \
    --method "$method" --max-steps 40 --num-evaluations 1 --eval-sequences 8 --checkpoint-every 0 \
    --logging-steps 10 --disable-tqdm --output-dir "$OUT/$method-$name" > "$OUT/log" 2>&1 || { cat "$OUT/log"; exit 1; }
}

for round in 1 2 3; do
  for method in smt bptt; do
    train "1x1-$round" $method 1 env
    train "1x2-$round" $method 2 env
    train "2x1-$round" $method 1 .venv/bin/torchrun --nproc_per_node 2
  done
done

.venv/bin/python - "$OUT" <<'PYTHON'
import json, sys
from pathlib import Path

rows = []
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if not folder.is_dir():
        continue
    record = json.loads((folder / "run.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    method, shape, _ = folder.name.rsplit("-", 2)
    rows.append({
        "method": method, "processes": int(shape[0]), "threads": int(shape[2]),
        "tokens_per_second": record["tokens"] / record["seconds"],
        "readout_loss": [line["readout_loss"] for line in lines if "readout_loss" in line],
    })
from smt_hf.runs.files import one_entry_a_line

about = {"command": "studies/measure_scaling.sh", "versions": record["versions"], "commit": record["git_commit"]}
Path("results/scaling.json").write_text(one_entry_a_line({**about, "rows": rows}))
PYTHON
