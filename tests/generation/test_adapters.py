from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from generation.adapters import base_digest, check_adapter
from generation.engines import AdapterRefused, EngineUnavailable
from generation.local import TransformersEngine
from tests.tiny_model import make_tiny_adapter, make_tiny_base, write_manifest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "one", tmp_path / "adapter"))


def reason(folder: Path, **expected: str) -> str:
    with pytest.raises(AdapterRefused) as refused:
        check_adapter(folder, **expected)
    assert refused.value.sentence.endswith(".")
    assert refused.value.hint
    return refused.value.reason


def test_a_good_folder_passes(folder: Path, models: Path) -> None:
    checked = check_adapter(folder, base_digest=base_digest(models / "base"), prompt_digest="0123456789abcdef")
    assert checked.config["r"] == 4
    assert checked.weights == (folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "model.pkl", "modeling.py", ".hidden"])
def test_a_file_too_many(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps({"a": 1}))
    assert reason(folder) == "extra_file"


def test_links_and_folders_are_files_too_many(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")
    assert reason(folder) == "extra_file"
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    assert reason(folder) == "extra_file"


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "manifest.json"])
def test_a_file_too_few(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert reason(folder) == "missing"


def test_no_folder_at_all(tmp_path: Path) -> None:
    assert reason(tmp_path / "nothing") == "missing"


def test_changed_bytes(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    assert reason(folder) == "digest"


def test_another_base_or_prompt(folder: Path) -> None:
    assert reason(folder, base_digest="f" * 64) == "base"
    assert reason(folder, prompt_digest="f" * 16) == "prompt"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {"README.md": "1"}}'])
def test_bad_manifests(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    assert reason(folder) == "manifest"


def test_dora_is_refused(models: Path, tmp_path: Path) -> None:
    assert reason(make_tiny_adapter(models / "base", tmp_path / "dora", dora=True)) == "kind"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"peft_type": "IA3"}, "kind"),
        ({"modules_to_save": ["lm_head"]}, "kind"),
        ({"bias": "all"}, "kind"),
        ({"init_lora_weights": "pissa"}, "kind"),
        ({"layer_replication": [[0, 2]]}, "kind"),
        ({"a_setting_of_tomorrow": 1}, "kind"),
        ({"r": 100_000}, "config"),
        ({"r": "4"}, "config"),
        ({"r": True}, "config"),
        ({"lora_alpha": "x"}, "config"),
        ({"lora_alpha": float("nan")}, "config"),
        ({"lora_alpha": 10**400}, "config"),
        ({"alpha_pattern": {"q_proj": "8"}}, "config"),
        ({"rank_pattern": [1, 2]}, "config"),
        ({"use_rslora": "yes"}, "config"),
        ({"layers_to_transform": ["a"]}, "config"),
        ({"rank_pattern": {"(a+)+$": 4}}, "config"),
        ({"target_modules": "(a+)+$"}, "config"),
        ({"target_modules": []}, "config"),
    ],
)
def test_settings_that_are_not_served(folder: Path, change: dict[str, object], expected: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **change}))
    write_manifest(folder, base_digest="b", prompt_digest="p")
    assert reason(folder) == expected


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x80\x04K\x01.",
        (2**60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (30).to_bytes(8, "little") + b'{"model.embed_tokens.weight":1',
        (32).to_bytes(8, "little") + b'{"model.embed_tokens.weight":{}}',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_weights_that_are_no_lora_matrices(folder: Path, weights: bytes) -> None:
    (folder / WEIGHTS).write_bytes(weights)
    write_manifest(folder, base_digest="b", prompt_digest="p")
    assert reason(folder) == "weights"


MATRIX = {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}


@pytest.mark.parametrize(
    "entry",
    [
        7,
        {},
        {"dtype": "F32", "data_offsets": [0, 128]},
        {**MATRIX, "shape": []},
        {**MATRIX, "shape": [32]},
        {**MATRIX, "shape": [-4, -8]},
        {**MATRIX, "shape": ["4", 8]},
        {**MATRIX, "shape": [4, 9]},
        {**MATRIX, "dtype": "I32"},
        {**MATRIX, "dtype": ["F32"]},
        {**MATRIX, "data_offsets": [0]},
        {**MATRIX, "data_offsets": [128, 256]},
        {**MATRIX, "data_offsets": [-128, 0]},
    ],
)
def test_headers_that_do_not_fit_their_file(folder: Path, entry: object) -> None:
    def write(entry: object, data: bytes) -> None:
        header = json.dumps({"base_model.model.a.lora_A.weight": entry, "__metadata__": {"format": "pt"}}).encode()
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + data)
        write_manifest(folder, base_digest="b", prompt_digest="p")

    write(MATRIX, bytes(128))
    check_adapter(folder)
    write(entry, bytes(128))
    assert reason(folder) == "weights"
    for length in (127, 129):
        write(MATRIX, bytes(length))
        assert reason(folder) == "weights"


@pytest.mark.parametrize("name", [CONFIG, "manifest.json"])
def test_files_that_are_nested_without_end(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    if name == CONFIG:
        write_manifest(folder, base_digest="b", prompt_digest="p")
    assert reason(folder) == ("config" if name == CONFIG else "manifest")


def test_base_digest_is_what_sha256sum_says(models: Path) -> None:
    base = models / "base"
    names = sorted(p.name for p in base.iterdir() if p.name != "generation_config.json")
    said = subprocess.run(
        f"sha256sum {' '.join(names)} | sha256sum", shell=True, cwd=base, capture_output=True, text=True, check=True
    )
    assert base_digest(base) == said.stdout.split()[0]


def test_base_digest_changes_with_weights_and_template(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    before = base_digest(base)
    with (base / "chat_template.jinja").open("a") as file:
        file.write(" ")
    changed = base_digest(base)
    make_tiny_base(tmp_path / "base", seed=5)
    assert len({before, changed, base_digest(base)}) == 3


def test_base_digest_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no safetensors"):
        base_digest(tmp_path)


def test_the_engine_refuses_weights_of_another_shape_and_goes_on(models: Path, tmp_path: Path) -> None:
    """The manifest is right, so only the loading itself can tell: afterwards nothing of the adapter is left."""
    from safetensors.torch import load_file, save_file

    def spoil(change: Callable[[dict], dict]) -> Path:
        folder = tmp_path / change.__name__
        shutil.copytree(models / "one", folder)
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
        write_manifest(folder, base_digest=base_digest(models / "base"), prompt_digest="p")
        return folder

    def other_shape(tensors: dict) -> dict:
        return {name: tensor[:, :-1].contiguous() for name, tensor in tensors.items()}

    def fewer(tensors: dict) -> dict:
        return dict(list(tensors.items())[1:])

    def more(tensors: dict) -> dict:
        name, tensor = next(iter(tensors.items()))
        return {**tensors, name.replace("layers.0", "layers.77"): tensor.clone()}

    engine = TransformersEngine(models / "base")
    for change in (other_shape, fewer, more):
        with pytest.raises(AdapterRefused, match="do not fit"):
            engine.load_adapter("spoilt", spoil(change))
        assert engine.adapters() == []
    engine.load_adapter("one", models / "one")
    for change in (other_shape, fewer, more):
        with pytest.raises(AdapterRefused, match="do not fit"):
            engine.load_adapter("spoilt", tmp_path / change.__name__)
    assert [adapter.name for adapter in engine.adapters()] == ["one"]


def test_whatever_fails_while_loading_leaves_nothing_behind(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the check had let it through: half of the layers are built when the one with the bad number comes."""
    monkeypatch.setattr("generation.adapters._check_weights", lambda weights: None)
    monkeypatch.setattr("generation.adapters._check_numbers", lambda config: None)

    def spoil(name: str, change: dict[str, object], cut: int = 0) -> Path:
        folder = Path(shutil.copytree(models / "one", tmp_path / name))
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **change}))
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: len(data) - cut])
        write_manifest(folder, base_digest=base_digest(models / "base"), prompt_digest="p")
        return folder

    spoilt = [
        spoil("cut", {}, cut=1000),
        spoil("alpha", {"lora_alpha": "x"}),
        spoil("pattern", {"alpha_pattern": {"down_proj": "x"}}),
        spoil("nowhere", {"target_modules": ["no_such_module"]}),
    ]
    engine = TransformersEngine(models / "base")
    layers = {path: type(module) for path, module in engine._adapters._base.named_modules()}
    for others in ([], ["other"]):
        for name in others:
            engine.load_adapter(name, models / "two")
        for folder in spoilt:
            for _ in range(2):  # the second time nothing of it is there already
                with pytest.raises(AdapterRefused, match="do not fit"):
                    engine.load_adapter("one", folder)
            assert [adapter.name for adapter in engine.adapters()] == others
            assert others or {path: type(module) for path, module in engine._adapters._base.named_modules()} == layers
    engine.load_adapter("one", models / "one")
    assert [adapter.name for adapter in engine.adapters()] == ["other", "one"]


@pytest.mark.parametrize("name", ["", "__base__", "a.b", "../x", "a b", "x" * 200])
def test_names_that_cannot_be(models: Path, shared_engine: TransformersEngine, name: str) -> None:
    with pytest.raises(AdapterRefused) as refused:
        shared_engine.load_adapter(name, models / "one")
    assert refused.value.reason == "name"
