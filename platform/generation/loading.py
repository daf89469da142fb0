"""Weights into memory: the base model, and LoRA adapters beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.adapters import HONOURED, WEIGHTS, CheckedAdapter, check_adapter, check_name, file_digest
from generation.embedder import quiet_loading
from generation.engines import AdapterRefused, EngineBusy, EngineUnavailable, LoadedAdapter, UnknownAdapter

if TYPE_CHECKING:
    import torch

    from generation.fused import FusedDecoder

BASE_ROW = "__base__"
"""PEFT's name for a row without adapter."""
MAX_ADAPTERS = 32
LONGEST_CONTEXT = 8192
"""Hub models claim contexts whose cache would not fit into memory; no prompt of ours comes near."""
CLEARLY_FASTER = 1.2


@dataclass(frozen=True)
class LoadedBase:
    model: Any
    tokenizer: Any
    context: int
    end_tokens: frozenset[int]
    device: str
    dtype: str


def load_base(folder: Path, *, device: str, dtype: str) -> LoadedBase:
    """Raises EngineUnavailable when the folder is no causal language model with a chat template."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Never any code from a model folder, never pickled weights.
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with quiet_loading():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        # transformers would fill what is missing with random numbers and go on.
        if lacking := sorted({*found["missing_keys"], *found["mismatched_keys"]}, key=str):
            raise ValueError(f"weights are missing or have another shape: {lacking[0]}")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EngineUnavailable(
            f"The base model {folder} cannot be loaded: {str(error).splitlines()[0][:200]}",
            "Restore the folder, or set RATCHET_BASE_MODEL to another one.",
        ) from error
    if not tokenizer.chat_template:
        raise EngineUnavailable(
            f"The base model {folder} has no chat template.", "Choose an instruction-tuned model, or add a template."
        )
    model = model.to(device).eval()
    if dtype == "auto":
        model = model.to(_faster(model, device))
    limits = [LONGEST_CONTEXT, getattr(model.config, "max_position_embeddings", None) or LONGEST_CONTEXT]
    return LoadedBase(
        model=model,
        tokenizer=tokenizer,
        context=min(limits),
        end_tokens=_end_tokens(model, tokenizer),
        device=device,
        dtype=str(model.dtype).removeprefix("torch."),
    )


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    found = model.generation_config.eos_token_id
    ids = found if isinstance(found, list) else [found]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _faster(model: Any, device: str) -> torch.dtype:
    """bfloat16 halves memory traffic but many CPUs only emulate it: measured on this one, with this model."""
    import torch

    if device != "cpu":
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.bfloat16, torch.float32):
        model.to(dtype)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            with torch.inference_mode():
                model(input_ids=torch.ones((4, 64), dtype=torch.long), use_cache=False, logits_to_keep=1)
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return torch.bfloat16 if seconds[torch.float32] > CLEARLY_FASTER * seconds[torch.bfloat16] else torch.float32


@dataclass
class WatchedFiles:
    """The files that one adapter was loaded from, to notice when they change."""

    folder: Path
    digest: str
    stamp: tuple[int, int] | None = None
    changed: bool = False

    def look(self) -> None:
        """Reads the weights again only when their size or time is another than at the last look."""
        path = self.folder / WEIGHTS
        try:
            found = path.stat()
            stamp = (found.st_size, found.st_mtime_ns)
            if stamp != self.stamp:
                self.changed = file_digest(path) != self.digest
                self.stamp = stamp
        except OSError:
            self.changed, self.stamp = True, None


class AdapterSet:
    """The adapters of one base in memory, and the passes through them.

    PEFT can mix adapters in one batch (``adapter_names``), but looks through all modules of the model at every call to
    hand the names on, which doubles the time of a step of a small model. So its LoRA layers get the names through hooks
    that stay.
    """

    def __init__(self, base: Any, fused: FusedDecoder | None = None) -> None:
        """``fused``: of the same base; it is kept knowing the same adapters."""
        self._base = base
        self.fused = fused
        self._loaded: dict[str, LoadedAdapter] = {}
        self._peft: Any = None  # PEFT's wrapper, while there is any adapter
        self._names: list[str] = []
        self._files: dict[str, WatchedFiles] = {}

    @property
    def device(self) -> torch.device:
        found: torch.device = self._base.device
        return found

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """One pass through the base, row i with ``adapters[i]``. Not safe for use from several threads."""
        self._names = [name or BASE_ROW for name in adapters]
        return self._base(**inputs)

    def has(self, name: str) -> bool:
        return name in self._loaded

    def loaded(self) -> list[LoadedAdapter]:
        return list(self._loaded.values())

    def changed(self) -> list[str]:
        """Names of those whose weights on disk are others now, or gone. Safe from any thread."""
        watched = dict(self._files)
        for files in watched.values():
            files.look()
        return [name for name, files in watched.items() if files.changed]

    def load(
        self, name: str, folder: Path, *, own_base: str, base_digest: str | None, prompt_digest: str | None
    ) -> LoadedAdapter:
        """Raises AdapterRefused, also when the name is taken by other weights: a name means one thing for ever;
        EngineBusy when every place is taken: the next completion that ends may free one."""
        check_name(name)
        if base_digest is not None and base_digest != own_base:
            raise AdapterRefused(
                f"The engine runs another base model ({own_base[:12]}, not {base_digest[:12]}).",
                "Start the engine with that base, or train a new adapter.",
                reason="base",
            )
        if name not in self._loaded and len(self._loaded) >= MAX_ADAPTERS:  # before any file is read
            raise EngineBusy(f"All {MAX_ADAPTERS} adapters in memory are writing just now.", "Try again in a moment.")
        checked = check_adapter(folder, base_digest=own_base, prompt_digest=prompt_digest)
        if (known := self._loaded.get(name)) is not None:
            if known.digest == checked.digest:
                return known
            raise AdapterRefused(
                f"The name {name} is taken by other weights.", "Give every adapter a name of its own.", reason="name"
            )
        self._inject(name, checked)
        entry = LoadedAdapter(
            name=name, digest=checked.digest, base_digest=own_base, prompt_digest=checked.manifest["prompt_digest"]
        )
        self._loaded[name] = entry
        self._files[name] = WatchedFiles(Path(folder).resolve(), checked.digest)
        return entry

    def unload(self, name: str) -> None:
        if name not in self._loaded:
            raise UnknownAdapter(f"No adapter {name!r} is loaded.")
        del self._loaded[name]
        del self._files[name]
        self._remove(name)

    def _inject(self, name: str, checked: CheckedAdapter) -> None:
        """Builds the LoRA layers and fills them from the checked bytes.

        PEFT's own loader is not used: it would read the folder again, look for pickled weights, and honour settings
        that change the base model.
        """
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
        from safetensors.torch import load

        honoured = {key: value for key, value in checked.config.items() if key in HONOURED and value is not None}
        try:
            weights = load(checked.weights)
            config = LoraConfig(**honoured, task_type="CAUSAL_LM", inference_mode=True, init_lora_weights=True)
            if self._peft is None:
                self._peft = get_peft_model(self._base, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
            outcome = set_peft_model_state_dict(self._peft, weights, adapter_name=name)
            missing = [key for key in outcome.missing_keys if f".{name}." in key]
            if outcome.unexpected_keys or missing:
                raise ValueError(f"{len(missing)} matrices are missing, {len(outcome.unexpected_keys)} too many")
            if self.fused is not None:
                self.fused.adopt(name, self._base)
        except Exception as error:  # of torch, PEFT or safetensors: whatever it is, the base answers as before
            self._remove(name)
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise AdapterRefused(
                f"The weights do not fit the base model: {said[:200]}",
                "It was trained on another base model, or exported incompletely.",
                reason="weights",
            ) from error
        self._peft.eval().requires_grad_(False)
        self._hook_up()

    def _hook_up(self) -> None:
        """Every LoRA layer learns at every pass which row uses which adapter."""
        from peft.tuners.lora import LoraLayer

        def tell(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return args, {**kwargs, "adapter_names": self._names}

        for module in self._base.modules():
            if isinstance(module, LoraLayer) and not module._forward_pre_hooks:
                module.register_forward_pre_hook(tell, with_kwargs=True)

    def _remove(self, name: str) -> None:
        """Also of one that was injected only in part."""
        if self.fused is not None:
            self.fused.adapters.pop(name, None)
        if not self._loaded:
            # The last one takes the LoRA layers with it: the base runs at its own speed again.
            if self._peft is not None:
                self._base, self._peft = self._peft.unload(), None
            else:
                self._take_out_layers()
        elif name in self._peft.peft_config:
            self._peft.delete_adapter(name)
        else:
            self._take_out_of_layers(name)

    def _take_out_layers(self) -> None:
        """What PEFT put into the base before it failed: then it made no wrapper that could unload it."""
        from peft.tuners.lora import LoraLayer

        for path, module in list(self._base.named_modules()):
            if isinstance(module, LoraLayer):
                parent, _, last = path.rpartition(".")
                setattr(self._base.get_submodule(parent), last, module.get_base_layer())
        if hasattr(self._base, "peft_config"):
            del self._base.peft_config

    def _take_out_of_layers(self, name: str) -> None:
        """PEFT forgets an adapter that it failed to add, but leaves the matrices that it had made."""
        from peft.tuners.lora import LoraLayer

        for module in self._base.modules():
            if isinstance(module, LoraLayer):
                module.delete_adapter(name)
