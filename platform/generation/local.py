"""Our own engine in this process: a base model with its adapters, through transformers and PEFT."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from generation.adapters import base_digest as digest_of_base
from generation.chat import control_tokens, render_chat
from generation.decoding import Batch, Row
from generation.detokenise import TextStream
from generation.embedder import load_embedder, torch_threads
from generation.engines import (
    BadRequest,
    EngineBusy,
    EngineHealth,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    LoadedAdapter,
    PromptTooLong,
    UnknownAdapter,
)
from generation.folders import BUNDLED_EMBEDDER, model_folder, online
from generation.fusing import fuse
from generation.loading import MAX_ADAPTERS, AdapterSet, load_base
from generation.padded import PaddedBatch
from generation.prefixes import Prefixes
from generation.ragged import RaggedBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_OPENINGS = 256
BULK_ROWS = 16
BULK_TOKENS = 12_288
"""Rows × (longest prompt + longest completion) in one bulk batch: bounds memory, and padding is not free."""


class TransformersEngine:
    """One base model and its adapters. Calls from several threads take turns."""

    def __init__(
        self,
        base: str | Path,
        *,
        expected_digest: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        threads: int = 1,
        embedder: str = BUNDLED_EMBEDDER,
        cut_loops: bool = True,
        copies: bool = True,
        fused: bool = True,
    ) -> None:
        """``base``: a folder, or a hub name that is in the local cache (or RATCHET_ONLINE=1).

        ``dtype``: float32 (evaluations repeat to the bit), bfloat16, or auto (on a CPU whichever a short measurement
        finds clearly faster, elsewhere bfloat16).

        ``cut_loops``: see `generation.loops`; False is for random weights, which do little else.

        ``copies``: see `generation.copying`; the text is the same either way.

        ``fused``: see `generation.fused`; False is for comparing. Other models and devices go without it anyway.

        Raises:
            EngineUnavailable: no such model, a broken folder, or weights other than ``expected_digest``.
        """
        if not online():
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        folder = model_folder(str(base))
        self.base = str(base)
        self.base_digest = digest_of_base(folder)
        if expected_digest is not None and self.base_digest != expected_digest:
            raise EngineUnavailable(
                f"The base model {base} is not the expected one ({self.base_digest[:12]}, not {expected_digest[:12]}).",
                "Restore its folder, or train adapters for the new one.",
            )
        self.threads = threads
        self.cut_loops = cut_loops
        self.copies = copies
        self._embedder_name = embedder
        self._lock = threading.Lock()
        self._tokenizer_lock = threading.Lock()
        with torch_threads(threads):
            loaded = load_base(folder, device=device, dtype=dtype)
            decoder = fuse(loaded.model, loaded.context) if fused else None
        self.tokenizer = loaded.tokenizer
        self.context = loaded.context
        self.end_tokens = loaded.end_tokens
        self.device, self.dtype = loaded.device, loaded.dtype
        self._adapters = AdapterSet(loaded.model, decoder)
        self.prefixes = Prefixes()
        self._openings: dict[str, list[int]] = {}
        self._asked: dict[str, float] = {}
        self._rows: WeakSet[Row] = WeakSet()
        self._rows_lock = threading.Lock()
        self._control_tokens = control_tokens(self.tokenizer)

    # --- Engine -------------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """All completions. Long prompts are batched with long ones, so that little is padded."""
        started = time.monotonic()
        texts = {i: TextStream(self.tokenizer, request.stop) for i, request in enumerate(requests)}
        with self._lock, torch_threads(self.threads):
            rows = [self.row(request, index=i) for i, request in enumerate(requests)]
            results: dict[int, GenerationResult] = {}
            for group in _groups(rows):
                batch = self.batch()
                batch.add([rows[i] for i in group])
                left = group
                while left:
                    for i in left:
                        # Text is only needed on the way where a stop text may end it.
                        advance(rows[i], texts[i], requests[i].deadline, started, live=bool(requests[i].stop))
                        if rows[i].finish is not None:
                            results[i] = result_of(rows[i], texts[i], time.monotonic() - started)
                    left = [i for i in left if i not in results]
                    batch.step()
        return [results[i] for i in range(len(requests))]

    async def stream(self, request: GenerationRequest) -> AsyncIterator[str]:
        started = time.monotonic()
        text = TextStream(self.tokenizer, request.stop)
        row = self.row(request)
        batch = self.batch()

        def work() -> str:
            with self._lock, torch_threads(self.threads):
                batch.step() if batch.rows else batch.add([row])
                return advance(row, text, request.deadline, started)

        try:
            while row.finish is None:
                if piece := await asyncio.to_thread(work):
                    yield piece
        finally:
            row.finish = row.finish or "cancelled"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """For somebody who waits; jobs embed in their own process (`knowledge.embedding`)."""
        return load_embedder(self._embedder_name, quick=True).embed(texts)

    def adapters(self) -> list[LoadedAdapter]:
        return self._adapters.loaded()

    def load_adapter(
        self, name: str, folder: Path, *, base_digest: str | None = None, prompt_digest: str | None = None
    ) -> LoadedAdapter:
        """As `Engine.load_adapter`; the manifest must name this engine's base whatever ``base_digest`` says."""
        with self._lock:
            self._make_room(name)
            return self._adapters.load(
                name, Path(folder), own_base=self.base_digest, base_digest=base_digest, prompt_digest=prompt_digest
            )

    def _make_room(self, name: str) -> None:
        """The adapter that was asked longest ago goes, if it is idle: it is loaded again when somebody asks for it."""
        loaded = [adapter.name for adapter in self._adapters.loaded()]
        if len(loaded) < MAX_ADAPTERS or name in loaded:
            return
        idle = [other for other in loaded if not self.uses(other)]
        if idle:
            oldest = min(idle, key=lambda other: self._asked.get(other, 0.0))
            self._adapters.unload(oldest)
            self.prefixes.forget(oldest)

    def unload_adapter(self, name: str) -> None:
        """Raises EngineBusy while a row uses it: without its matrices the row would go on with the base, unnoticed."""
        with self._lock:
            if self.uses(name):
                raise EngineBusy(f"The adapter {name} is writing just now.", "Try again in a moment.")
            self._adapters.unload(name)
            self.prefixes.forget(name)

    def changed(self) -> list[str]:
        """Adapters whose files are others now than when they were loaded. What was loaded, and so evaluated, stays."""
        return self._adapters.changed()

    def holds(self, name: str) -> bool:
        return self._adapters.has(name)

    def uses(self, name: str) -> bool:
        """Whether an unfinished row uses this adapter."""
        with self._rows_lock:  # rows are made in the threads of requests; a set that grows cannot be walked through
            rows = list(self._rows)
        return any(row.adapter == name and row.finish is None for row in rows)

    def health(self) -> EngineHealth:
        return EngineHealth(
            ready=True,
            base=self.base,
            base_digest=self.base_digest,
            context=self.context,
            device=self.device,
            dtype=self.dtype,
            adapters=tuple(adapter.name for adapter in self.adapters()),
        )

    # --- For the scheduler of the engine process ----------------------------------------------------------------------

    def batch(self) -> Batch:
        if self._adapters.fused is not None:
            return RaggedBatch(self._adapters.fused, end_tokens=self.end_tokens, prefixes=self.prefixes)
        return PaddedBatch(
            self._adapters,
            end_tokens=self.end_tokens,
            pad_token=self.tokenizer.pad_token_id or 0,
            prefixes=self.prefixes,
        )

    def row(self, request: GenerationRequest, *, index: int = 0) -> Row:
        """Raises PromptTooLong or UnknownAdapter."""
        if request.adapter is not None and not self._adapters.has(request.adapter):
            raise UnknownAdapter(f"No adapter {request.adapter!r} is loaded.", "Load it, then ask again.")
        if request.adapter is not None:
            self._asked[request.adapter] = time.monotonic()
        prompt = self.encode(request)
        limit = self.context - request.max_new_tokens
        if len(prompt) > limit:
            raise PromptTooLong(
                f"The prompt has {len(prompt)} tokens; with {request.max_new_tokens} to write, {max(limit, 0)} fit.",
                "Offer fewer passages, less history, or ask for a shorter completion.",
                tokens=len(prompt),
                limit=max(limit, 0),
                index=index,
            )
        row = Row(
            prompt=prompt,
            max_new_tokens=request.max_new_tokens,
            adapter=request.adapter,
            cut_loops=self.cut_loops,
            shared=self._shared(request, prompt),
            # A stop text is looked for after every step, and a step of several tokens could run past it.
            copies=self.copies and not request.stop,
        )
        with self._rows_lock:
            self._rows.add(row)
        return row

    def _shared(self, request: GenerationRequest, prompt: Sequence[int]) -> int:
        """How many tokens of the prompt are its system message, which the next question will have too."""
        first = request.messages[0]
        if first["role"] != "system" or len(request.messages) < 2:
            return 0
        opening = self._openings.get(first["content"])
        if opening is None:
            try:
                opening = self.encode(GenerationRequest(messages=[first]))
            except BadRequest:  # a template that does not take a system message alone
                opening = []
            if len(self._openings) >= MAX_OPENINGS:
                self._openings.clear()
            self._openings[first["content"]] = opening
        return next((i for i, (a, b) in enumerate(zip(opening, prompt, strict=False)) if a != b), len(opening))

    def encode(self, request: GenerationRequest) -> list[int]:
        """The prompt's tokens, up to where the assistant begins to speak.

        Raises:
            BadRequest: the model's chat template does not take these messages.
        """
        from jinja2 import TemplateError

        try:
            text = render_chat(self.tokenizer, request.messages, self._control_tokens)
        except TemplateError as error:
            raise BadRequest(f"The model's chat template refuses these messages: {error}.") from error
        with self._tokenizer_lock:  # the tokenizer's settings are shared state
            ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def result_of(row: Row, text: TextStream, seconds: float) -> GenerationResult:
    """The result of a row that has ended."""
    assert row.finish is not None
    return GenerationResult(
        text=text.text.strip(),
        prompt_tokens=len(row.prompt),
        completion_tokens=len(row.tokens),
        finish_reason=row.finish,
        seconds=round(seconds, 6),
        looped=row.looped,
    )


def advance(row: Row, text: TextStream, deadline: float | None, started: float, *, live: bool = True) -> str:
    """After a step: the new text (``live``), and whether the row ends by a stop text or by its deadline."""
    if row.finish is None and deadline is not None and time.monotonic() - started > deadline:
        row.finish = "deadline"
    piece = ""
    if row.finish is not None:
        piece = text.finish(row.tokens)
    elif live:
        piece = text.feed(row.settled)
    if text.stopped:
        row.finish = "stop"
    return piece


def _groups(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indexes of rows that are decoded together: like lengths, within the budget."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].prompt), i))
    group: list[int] = []
    for i in order:
        longest = rows[group[0]] if group else rows[i]
        width = len(longest.prompt) + max(rows[j].max_new_tokens for j in [*group, i])
        if group and (len(group) == BULK_ROWS or width * (len(group) + 1) > BULK_TOKENS):
            yield group
            group = []
        group.append(i)
    if group:
        yield group
