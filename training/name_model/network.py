"""The name model in torch, for training: frozen encoder, LoRA on every linear layer, letter features, head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from privacy.name_model.labels import LABELS
from privacy.name_model.pieces import FEATURES


class Adapted(nn.Module):
    """A frozen linear layer plus `scale · B A`."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """As the frozen layer, plus the change."""
        out: Tensor = self.base(x) + self.scale * ((x @ self.down.T) @ self.up.T)
        return out


class NameNetwork(nn.Module):
    """Pieces and their features in, logits of LABELS out."""

    def __init__(self, folder: Path, *, layers: int, rank: int) -> None:
        super().__init__()
        from transformers import AutoModel

        # The approximation of GELU that the runtime computes too, so that both agree to rounding.
        model: Any = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            hidden_act="gelu_pytorch_tanh",
            num_hidden_layers=layers,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.encoder = model.requires_grad_(False)
        for module in list(model.encoder.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Adapted(child, rank, 2.0))
        width = model.config.hidden_size
        self.letters = nn.Parameter(torch.zeros(FEATURES, width))
        self.head = nn.Linear(width + FEATURES, len(LABELS))

    def forward(self, ids: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Logits of shape (rows, pieces, labels) for ids (rows, pieces), features (rows, pieces, FEATURES) and mask."""
        embedded = self.encoder.get_input_embeddings()(ids) + features @ self.letters
        hidden = self.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        logits: Tensor = self.head(torch.cat([hidden.float(), features], dim=-1))
        return logits

    def delta(self) -> dict[str, Tensor]:
        """The trained tensors by the names under which they are shipped, float32."""
        found = {"letters": self.letters, "head.weight": self.head.weight, "head.bias": self.head.bias}
        for name, module in self.encoder.encoder.named_modules():
            if isinstance(module, Adapted):
                found[f"{name}.down"] = module.down
                found[f"{name}.up"] = module.up * module.scale
        return {name: tensor.detach().float().contiguous().clone() for name, tensor in found.items()}
