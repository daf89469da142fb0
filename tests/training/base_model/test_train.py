from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.base_model import slots
from training.base_model.export import load_network
from training.base_model.generate import write_shard
from training.base_model.packing import Packer, encode
from training.base_model.sessions import STAGES, examples
from training.base_model.worlds import list_world

ROOT = Path(__file__).parents[3]


def _shard(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / "base" / "tokenizer.json"))
    rng, packer = random.Random(0), Packer(512)
    words = [slots.invented_word(rng) for _ in range(200)]
    for _ in range(30):
        world = list_world(rng, words)
        similarity = np.random.default_rng(0).random((len(world.items), len(world.lines)), dtype=np.float32)
        for example in examples(rng, world, similarity, STAGES["1"]):
            packer.add(encode(tokenizer, example))
    write_shard(folder / "stage1-01-0000.npz", packer)


def _train(folder: Path, minutes: float, processes: int) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "training.base_model.train", "--data", folder, "--out", folder / "run",
         "--minutes", str(minutes), "--stages", "1:1", "--rows", "4", "--micro", "2", "--keep-wired",
         "--processes", str(processes)],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_two_processes_train_one_network_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    _shard(tmp_path)
    first = _train(tmp_path, 0.04, 2)
    assert [e["event"] for e in first if e["event"] != "step"] == ["start", "validation", "done"]
    steps = int(str(first[-1]["step"]))
    assert steps >= 1
    again = _train(tmp_path, float(str(first[-1]["seconds"])) / 60 + 0.06, 1)
    assert any(e["event"] == "resumed" and e["step"] == steps for e in again)
    assert int(str(again[-1]["step"])) > steps
    assert load_network(tmp_path / "run").shape.layers == 5
