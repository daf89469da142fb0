"""How `models/base` is made: data generator, tokenizer, trainer, export and evaluation (no Django)."""
