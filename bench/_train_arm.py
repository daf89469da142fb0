"""One arm of `bench/train.py`: ``_train_arm.py ARM BASE ROWS WORK THREADS`` trains one epoch and says how it went."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

BEGAN, BATCH, RANK, ALPHA = time.monotonic(), 8, 16, 32


def main() -> None:
    arm, base, rows, work, threads = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])
    import torch

    torch.set_num_threads(threads)
    work.mkdir(parents=True)
    train, tokens = {"ours": ours, "trl": trl, "loop": loop}[arm](base, rows, work)
    started, cpu = time.monotonic(), time.process_time()
    train()
    print(
        json.dumps(
            {
                "seconds": round(time.monotonic() - started, 2),
                "cpu_seconds": round(time.process_time() - cpu, 2),
                "startup_s": round(started - BEGAN, 2),
                "startup_cpu_s": round(cpu, 2),
                "tokens": tokens,
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )


def ours(base: str, rows: Path, work: Path) -> tuple[Any, int]:
    """The recipe's own stages, without checkpoints, samples and validation: the other arms have none either."""
    from generation.adapters import base_digest
    from training.finetune.config import FinetuneConfig
    from training.finetune.job import Job, read_material
    from training.finetune.lora import adapt
    from training.finetune.making import make_trainer
    from training.finetune.reporting import StopFlag

    settings = FinetuneConfig(epochs=1.0, batch=BATCH, checkpoint_seconds=86_400, sample_rows=0)
    job = Job(
        method="sft", train=rows, validation=None, preferences=None, held_preferences=None, parent=None, base=base,
        base_name="base", work=work, output=work / "adapter", seed=1, settings=settings, base_digest=base_digest(base),
        prompt_digest="0" * 16, facts={},
    )  # fmt: skip
    material = read_material(job)
    adapted = adapt(job, material)
    trainer, _ = make_trainer(job, material, adapted, lambda *args, **fields: None, StopFlag(), work=work)
    return trainer.train, material.tokens


def trl(base: str, rows: Path, work: Path) -> tuple[Any, int]:
    """What TRL does when it is told nothing but rows, base, LoRA layers and one epoch."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([json.loads(line) for line in rows.read_text().splitlines()])
    # Without a GPU its default of bf16 is refused until one says that a processor is meant.
    only = {} if torch.cuda.is_available() else {"use_cpu": True}
    trainer = SFTTrainer(
        model=base,
        args=SFTConfig(
            output_dir=str(work), num_train_epochs=1, report_to="none", disable_tqdm=True, save_strategy="no", **only
        ),
        train_dataset=data,
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    return trainer.train, sum(len(ids) for ids in trainer.train_dataset["input_ids"])


def loop(base: str, rows: Path, work: Path) -> tuple[Any, int]:
    """What one writes by hand: padded batches in random order, the model's own loss, AdamW."""
    import random

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.finetune.rows import read_rows, tokenise

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = tokenise(read_rows(rows), tokenizer)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    order = list(range(len(tokens)))
    random.Random(1).shuffle(order)

    def train() -> None:
        for start in range(0, len(order), BATCH):
            batch = [tokens[i] for i in order[start : start + BATCH]]
            width = max(len(t.input_ids) for t in batch)
            short = [width - len(t.input_ids) for t in batch]
            ids = torch.tensor([t.input_ids + [0] * n for t, n in zip(batch, short, strict=True)])
            labels = torch.tensor([t.labels + [-100] * n for t, n in zip(batch, short, strict=True)])
            mask = torch.tensor([[1] * (width - n) + [0] * n for n in short])
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return train, sum(len(t.input_ids) for t in tokens)


if __name__ == "__main__":
    main()
