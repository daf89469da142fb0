"""The servers of the serving bench, each a process of its own: our engine with adapters, and `transformers serve`."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
FASTAPI = "fastapi==0.165.0"
"""What `transformers[serving]` needs beyond what is installed here anyway."""
CONTINUOUS = (
    "--continuous-batching", "--cb-num-blocks", "256", "--cb-block-size", "32", "--cb-max-batch-tokens", "512",
)  # fmt: skip
"""Its defaults size the cache to a share of all memory: 14 GB on a CPU."""
START_SECONDS = 180


def environment(**more: str) -> dict[str, str]:
    """One thread each, offline, nothing of ours but what is named."""
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**plain, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def engine(base: Path, folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Address and process id."""
    path = folder / "engine.sock"
    command = [sys.executable, "-m", "generation.server", "--base", str(base), "--uds", str(path), *options]
    with (folder / "engine.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment(PYTHONPATH=str(ROOT / "platform")), stdout=log, stderr=subprocess.STDOUT, cwd=ROOT
        )
        try:
            _wait(process, folder / "engine.log", lambda: "ready at" in (folder / "engine.log").read_text())
            yield f"unix:{path}", process.pid
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def transformers_serve(base: Path, folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Address and process id.

    Raises:
        RuntimeError: it cannot be installed or does not come up.
    """
    place = folder / "transformers-serve"
    if not (place / "fastapi").is_dir():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
        if subprocess.run([*pip, "--target", str(place), FASTAPI], check=False).returncode:
            raise RuntimeError(f"{FASTAPI} cannot be installed")
    port = _free_port()
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (folder / "peer.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--dtype", "float32", *options], env=environment(PYTHONPATH=str(place)), stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(process, folder / "peer.log", lambda: _answers(f"{url}/health"))
            yield url, process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("it does not come up: " + " / ".join(log.read_text().splitlines()[-3:]))
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_mb(pids: Sequence[int]) -> float:
    """Memory of these processes."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its threads have used: what a busy machine does not stretch."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- Models ----------------------------------------------------------------------------------------------------------


def random_adapters(base: Path, folder: Path, prompt_digest: str, count: int = 4) -> list[Path]:
    """Adapters that change answers a little: what they say does not matter here, what they cost does."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from generation.adapters import base_digest

    made = []
    for seed in range(1, count + 1):
        place = folder / f"adapter-{seed}"
        made.append(place)
        if (place / "manifest.json").exists():
            continue
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.002)
        tuned.save_pretrained(place)
        names = ("adapter_config.json", "adapter_model.safetensors")
        settings = json.loads((place / names[0]).read_text())
        (place / names[0]).write_text(json.dumps({**settings, "base_model_name_or_path": "base"}))
        files = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in names}
        manifest = {"base_digest": base_digest(base), "prompt_digest": prompt_digest, "files": files}
        (place / "manifest.json").write_text(json.dumps(manifest))
    return made


VOCABULARY = 151_936
"""Tokens that Qwen3 knows. What the bundled tokenizer does not know is never the likeliest here, and costs as much."""


def random_base(bundled: Path, folder: Path) -> Path:
    """The shape of Qwen3-0.6B with random weights and the bundled tokenizer."""
    import shutil

    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(bundled)
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
            num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
            max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        model = Qwen3ForCausalLM(config)
        model.get_input_embeddings().weight.data[len(tokenizer) :] = 0.0
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(bundled / name, folder / name)
        model.save_pretrained(folder)
    return folder
