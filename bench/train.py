"""Training speed: our recipe, TRL with its defaults, and a bare torch loop on the same rows, base and threads.

    make bench-train ARGS='--rows 160 --rounds 3'

Each arm runs in a process of its own, one after the other, round by round, so that what else the machine does meets
all of them; the ratios are of medians over the rounds. `vs_trl_defaults` and `vs_torch_loop` are rows per second on the
clock, the same names with `_cpu` rows per processor second, which a busy machine falsifies less. All arms train rank 16
on all linear layers with 8 rows a step and one epoch. TRL keeps its defaults (bf16, gradient checkpointing, its own
tokenising); the loop computes full logits in fp32. `startup_s` is from the start of our process to its first step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
ARMS = ("ours", "trl", "loop")
PLACES = ("kitchen", "garden", "office", "garage", "cellar", "attic", "hall", "studio")
THINGS = ("boiler", "meter", "lamp", "printer", "heater", "pump", "fan", "router")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: every core.")
    parser.add_argument("--base", default=str(ROOT / "models/base"))
    options = parser.parse_args()
    from _report import report

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("\n".join(json.dumps(row) for row in make_rows(options.rows)))
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
        for number in range(options.rounds):
            for arm in ARMS:
                one = run(arm, rows, Path(folder) / f"{arm}-{number}", options)
                found[arm].append(one)
                print(f"round {number + 1} {arm:5}: " + ", ".join(f"{k} {v}" for k, v in one.items()), flush=True)
    report("train", summary(found))


def make_rows(count: int) -> list[dict[str, Any]]:
    """Questions over eight numbered sentences, of the length that the product trains on."""
    rng = random.Random(5)
    rows = []
    for _ in range(count):
        facts = [(rng.choice(THINGS), rng.choice(PLACES), rng.randint(10, 99)) for _ in range(8)]
        lines = [f"[{i}] The {thing} in the {place} is checked every {n} days by the owner of the house."
                 for i, (thing, place, n) in enumerate(facts, start=1)]  # fmt: skip
        asked = rng.randrange(8)
        thing, place, _ = facts[asked]
        rows.append(
            {
                "prompt": [
                    {"role": "system", "content": "Answer from the passages and cite them."},
                    {
                        "role": "user",
                        "content": "Passages:\n# Upkeep\n"
                        + "\n".join(lines)
                        + f"\n\nQuestion: How often is the {thing} in the {place} checked?",
                    },
                ],
                "completion": [{"role": "assistant", "content": lines[asked]}],
            }
        )
    return rows


def run(arm: str, rows: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    threads = options.threads or len(os.sched_getaffinity(0))
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "bench/_train_arm.py"),
        arm,
        options.base,
        rows,
        work,
        threads,
    ]
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arm} failed:\n{done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def middle(arm: str, name: str) -> float:
        return statistics.median(one[name] for one in found[arm])

    metrics: dict[str, Any] = {}
    for name, arm in (("vs_trl_defaults", "trl"), ("vs_torch_loop", "loop")):
        metrics[name] = round(middle(arm, "seconds") / middle("ours", "seconds"), 2)
        metrics[f"{name}_cpu"] = round(middle(arm, "cpu_seconds") / middle("ours", "cpu_seconds"), 2)
    metrics["startup_s"] = round(middle("ours", "startup_s"), 1)
    metrics["startup_cpu_s"] = round(middle("ours", "startup_cpu_s"), 1)
    metrics["peak_mb"] = max(one["peak_mb"] for one in found["ours"])
    metrics["peak_mb_trl"] = max(one["peak_mb"] for one in found["trl"])
    metrics["peak_mb_loop"] = max(one["peak_mb"] for one in found["loop"])
    metrics["tokens_per_second"] = round(middle("ours", "tokens") / middle("ours", "seconds"))
    return metrics


if __name__ == "__main__":
    main()
