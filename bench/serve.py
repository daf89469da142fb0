"""Serving: tokens/s, time to first token and p95 at 1, 8 and 32 users, beside `transformers serve` and a bare loop.

    make bench-serve ARGS='--seconds 20 --load-minutes 2'

First the engine alone, with one adapter and with four mixed, on prompts made of the demo's documents; the same prompts
go to `transformers serve` (plain and with continuous batching; it knows no adapters) and to a loop of ``generate``, in
the same run, each with one thread. Then the platform whole, on a database of its own below var/bench: what retrieval,
prompt and capture add, and users who ask while adapters are promoted and taken back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
PLACE = ROOT / "var" / "bench" / "serve"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

QUESTIONS = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="1,8,32", help="With commas (%(default)s).")
    parser.add_argument("--seconds", type=float, default=20, help="Of each measurement (%(default)s).")
    parser.add_argument(
        "--answers", type=int, default=0, help="Of each user, instead of a time: for models that need long for one."
    )
    parser.add_argument("--tokens", type=int, default=96, help="Of an answer at most (%(default)s).")
    parser.add_argument("--load-minutes", type=float, default=2, help="Users and promotions (%(default)s); 0: none.")
    parser.add_argument("--load-users", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--shape", choices=("bundled", "qwen3-0.6b"), default="bundled", help="The base; random weights where not ours."
    )
    parser.add_argument("--kill-engine", action="store_true", help="SIGKILL in the middle of the load.")
    parser.add_argument("--skip-engines", action="store_true", help="The load only.")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "auto"), default="float32", help="Our engine's (%(default)s)."
    )
    parser.add_argument(
        "--peers", default="plain,continuous", help="`transformers serve`, how; with commas (%(default)s)."
    )
    parser.add_argument(
        "--ours",
        default="one,four,bare",
        help="Engine with one adapter, with four, the loop; with commas (%(default)s).",
    )
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    from _report import report

    metrics = {} if options.skip_engines else engines(options)
    if options.load_minutes:
        from _serve_platform import platform

        metrics |= platform(PLACE, minutes=options.load_minutes, users=options.load_users, kill=options.kill_engine)
    report("serve", metrics)


def engines(options: argparse.Namespace) -> dict[str, Any]:
    from _serve_load import demo_prompts
    from _serve_servers import CONTINUOUS, random_adapters, random_base

    base = ROOT / "models" / "base"
    if options.shape != "bundled":
        base = random_base(base, PLACE / options.shape)
    prompts, digest = demo_prompts(QUESTIONS)
    adapters = random_adapters(base, PLACE / f"adapters-{options.shape}", digest)
    users = [int(number) for number in options.users.split(",")]
    metrics: dict[str, Any] = {"shape": options.shape, "dtype": options.dtype}
    ours = _ours(base, adapters, prompts, users, options)
    metrics |= ours
    if "bare" in options.ours.split(","):
        metrics["bare_loop"] = _bare(base, prompts, options)
    peers = {}
    ways: dict[str, Sequence[str]] = {"plain": (), "continuous": CONTINUOUS}
    for name, more in ((name, ways[name]) for name in options.peers.split(",") if name):
        try:
            peers[name] = _peer(base, prompts, users, options, more)
        except RuntimeError as error:
            print(f"transformers serve, {name}: {error}", flush=True)
    metrics["transformers_serve"] = peers
    best = max((figures["8"]["tokens_s"] for figures in peers.values() if "8" in figures), default=0.0)
    if best and "8" in ours.get("engine", {}):
        metrics["vs_transformers_serve_8"] = round(ours["engine"]["8"]["tokens_s"] / best, 2)
        # The same by processor time, which other work on the machine does not touch.
        busy = max(figures["8"]["tokens_cpu_s"] for figures in peers.values() if "8" in figures)
        metrics["vs_transformers_serve_8_cpu"] = round(ours["engine"]["8"]["tokens_cpu_s"] / busy, 2)
    if "8" in ours.get("engine", {}):
        metrics["ttft_ms_8"] = ours["engine"]["8"]["ttft_ms"]
    return metrics


def _ours(
    base: Path, adapters: Sequence[Path], prompts: Sequence[Any], users: Sequence[int], options: argparse.Namespace
) -> dict[str, Any]:
    from _serve_load import engine_answer, load
    from _serve_servers import engine, resident_mb

    from generation.client import EngineClient

    more = ["--dtype", options.dtype, *(["--keep-loops"] if options.shape != "bundled" else [])]
    wanted = options.ours.split(",")
    kinds: dict[str, list[str | None]] = {}
    if "one" in wanted:
        kinds["engine"] = [adapters[0].name]
    if "four" in wanted:
        kinds["engine_four_adapters"] = [folder.name for folder in adapters]
    found: dict[str, Any] = {name: {} for name in kinds}
    if not kinds:
        return found
    with engine(base, PLACE, *more) as (url, pid):
        client = EngineClient(url)
        for folder in adapters if "four" in wanted else adapters[:1]:
            client.load_adapter(folder.name, folder)

        async def measure() -> None:
            for name, chosen in kinds.items():
                answer = engine_answer(client, prompts, chosen, options.tokens)
                await load(answer, users=2, questions=len(prompts), seconds=0, rounds=1 if options.answers else 4)
                for number in users:
                    measured = await load(answer, **_extent(number, prompts, options), pid=pid)
                    found[name][str(number)] = measured.figures()
                    print(f"{name}, {number} users: {measured.figures()}", flush=True)

        asyncio.run(measure())
        found["engine_mb"] = round(resident_mb([pid]))
    return found


def _extent(users: int, prompts: Sequence[Any], options: argparse.Namespace) -> dict[str, Any]:
    found = {"users": users, "questions": len(prompts), "seconds": options.seconds}
    return {**found, "rounds": users * options.answers} if options.answers else found


def _peer(
    base: Path, prompts: Sequence[Any], users: Sequence[int], options: argparse.Namespace, more: Sequence[str]
) -> dict[str, Any]:
    import httpx
    from _serve_load import load, openai_answer
    from _serve_servers import resident_mb, transformers_serve
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    found: dict[str, Any] = {}
    with transformers_serve(base, PLACE, *more) as (url, pid):

        async def measure() -> None:
            limits = httpx.Limits(max_connections=64)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=300, limits=limits) as http:
                counter = lambda text: len(tokenizer(text)["input_ids"])  # noqa: E731
                answer = openai_answer(http, str(base), prompts, options.tokens, counter)
                await load(answer, users=1, questions=len(prompts), seconds=0, rounds=1 if options.answers else 2)
                for number in users:
                    measured = await load(answer, **_extent(number, prompts, options), pid=pid)
                    if not measured.whole:
                        raise RuntimeError("it answered nothing; see var/bench/serve/peer.log")
                    found[str(number)] = measured.figures()
                    print(f"transformers serve {' '.join(more[:1])}, {number} users: {found[str(number)]}", flush=True)

        asyncio.run(measure())
        found["mb"] = round(resident_mb([pid]))
    return found


def _bare(base: Path, prompts: Sequence[Any], options: argparse.Namespace) -> dict[str, float]:
    """One prompt after the other through the library's own generation, in this process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from generation.chat import control_tokens, render_chat

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    marks, tokens, done = control_tokens(tokenizer), 0, 0
    began, cpu = time.perf_counter(), time.process_time()
    while done < options.answers if options.answers else time.perf_counter() - began < options.seconds:
        text = render_chat(tokenizer, prompts[done % len(prompts)], marks)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            written = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=options.tokens
            )
        tokens += written.shape[1] - ids.shape[1] - int(written[0, -1] == tokenizer.eos_token_id)
        done += 1
    seconds = time.perf_counter() - began
    found = {
        "tokens_s": round(tokens / seconds, 1),
        "answers_s": round(done / seconds, 2),
        "tokens_cpu_s": round(tokens / (time.process_time() - cpu), 1),
    }
    print(f"bare loop: {found}", flush=True)
    return found


if __name__ == "__main__":
    main()
