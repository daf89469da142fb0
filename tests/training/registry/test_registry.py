"""Adapters from elsewhere, out again, and merged: what is let in, what is refused, who may."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from assistants.background import launch
from assistants.models import Assistant, AuditEvent
from generation.adapters import base_digest, check_adapter
from tests.factories import make_assistant, make_user
from tests.tiny_model import make_tiny_adapter, make_tiny_base, shared_adapter, shared_base
from training.finetune.bases import from_state
from training.models import Adapter, AdapterMerge, DatasetVersion, Run
from training.registry.exporting import ExportRefused, export_zip
from training.registry.importing import Claim, ImportRefused, import_folder, import_zip
from training.registry.merging import MergeRefused, start_merge


@pytest.fixture
def assistant(db: None, settings: Any, tmp_path: Path) -> Assistant:
    settings.RATCHET_BASE_MODEL = str(shared_base())
    settings.RATCHET_ADAPTERS_DIR = tmp_path / "adapters"
    settings.LOG_DIR = tmp_path / "log"
    return make_assistant(members={"admin": [make_user("ada")], "annotator": [make_user("ann")]})


@pytest.fixture
def folder(assistant: Assistant, tmp_path: Path) -> Path:
    """An adapter of this platform, as an export has it."""
    return shutil.copytree(shared_adapter(assistant.prompt_digest), tmp_path / "brought")


def zipped(folder: Path, *, top: str = "adapter/", **more: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, top + path.name)
        for name, content in more.items():
            archive.writestr(top + name.replace("__", "."), content)
    out.seek(0)
    return out


def plain(folder: Path) -> Path:
    """As PEFT saves it: without a manifest of ours."""
    (folder / "manifest.json").unlink()
    return folder


def test_what_is_exported_comes_in_again_as_it_was(assistant: Assistant, folder: Path) -> None:
    adapter = import_zip(assistant=assistant, file=zipped(folder))
    assert (adapter.number, adapter.source, adapter.run) == (1, "imported", None)
    home = from_state(adapter.folder)
    check_adapter(home, base_digest=base_digest(shared_base()), prompt_digest=assistant.prompt_digest)
    assert sorted(path.name for path in home.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json",
    ]  # fmt: skip

    with export_zip(adapter=adapter, actor=None) as file:
        taken = file.read()
    with export_zip(adapter=adapter, actor=None) as file:
        assert file.read() == taken  # the same adapter, the same zip
    other = make_assistant()
    again = import_zip(assistant=other, file=io.BytesIO(taken))
    assert (
        again.manifest["files"]["adapter_model.safetensors"] == adapter.manifest["files"]["adapter_model.safetensors"]
    )
    with pytest.raises(ImportRefused, match="are Adapter 1 already"):
        import_zip(assistant=assistant, file=zipped(folder))
    assert [path.name for path in home.parent.iterdir()] == ["1"]  # nothing is left of what was refused


def test_a_plain_folder_needs_somebody_who_knows_its_prompts(assistant: Assistant, folder: Path) -> None:
    with pytest.raises(ImportRefused, match="with which prompts it was trained"):
        import_zip(assistant=assistant, file=zipped(plain(folder)))
    adapter = import_folder(assistant=assistant, folder=folder, claim=Claim(prompt_ours=True))
    assert adapter.manifest["claimed"] is True
    assert adapter.prompt_digest == assistant.prompt_digest
    assert AuditEvent.objects.get(action="adapter.imported").details["claimed_prompt"] is True


def test_files_of_a_tokenizer_are_left_out(assistant: Assistant, folder: Path) -> None:
    file = zipped(folder, tokenizer__json=b"{}", chat_template__jinja=b"{{ x }}")
    adapter = import_zip(assistant=assistant, file=file)
    assert not (from_state(adapter.folder) / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"adapter_model__bin": b"pickle"}, "Pickled weights are never opened"),
        ({"training_args__bin": b"pickle"}, "Pickled weights are never opened"),
        ({"run__py": b"import os"}, "does not belong to an adapter"),
        ({"../../evil__txt": b"x"}, "does not belong to an adapter|several folders"),
    ],
)
def test_other_files_are_refused(assistant: Assistant, folder: Path, more: dict[str, bytes], words: str) -> None:
    with pytest.raises(ImportRefused, match=words):
        import_zip(assistant=assistant, file=zipped(folder, **more))
    assert not Adapter.objects.exists()


def test_what_is_no_adapter_of_ours_is_refused(
    assistant: Assistant, folder: Path, tmp_path: Path, settings: Any
) -> None:
    def refused(path: Path, words: str, **claim: bool) -> None:
        with pytest.raises(ImportRefused, match=words):
            import_zip(assistant=assistant, file=zipped(path), claim=Claim(**claim))

    stranger = make_tiny_base(tmp_path / "other", seed=5)
    foreign = make_tiny_adapter(stranger, tmp_path / "foreign", prompt_digest=assistant.prompt_digest)
    refused(foreign, "another base model")
    # Without its manifest nothing says so, and these shapes are ours: the claim is then a person's word.
    elsewhere = make_tiny_adapter(shared_base(), tmp_path / "elsewhere", prompt_digest="f" * 16)
    refused(elsewhere, "another prompt format")
    dora = make_tiny_adapter(shared_base(), tmp_path / "dora", dora=True, prompt_digest=assistant.prompt_digest)
    refused(plain(dora), "DoRA", prompt_ours=True)
    with pytest.raises(ImportRefused, match="no zip that can be read"):
        import_zip(assistant=assistant, file=io.BytesIO(b"not a zip"))
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "adapter_config.json").write_text((damaged / "adapter_config.json").read_text() + "\n")
    refused(damaged, "not the file that the manifest names")
    settings.RATCHET_MAX_ADAPTER_BYTES = 1024
    refused(folder, "larger than 0 MiB")
    assert not Adapter.objects.exists()


def test_weights_that_fit_no_layer_are_another_base(assistant: Assistant, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = plain(folder) / "adapter_model.safetensors"
    weights = {name: tensor[:, :-1].contiguous() for name, tensor in load_file(path).items() if ".lora_A." in name}
    save_file(weights, path)
    with pytest.raises(ImportRefused, match="fits no layer of the base"):
        import_folder(assistant=assistant, folder=folder, claim=Claim(prompt_ours=True))


def test_damaged_adapters_are_refused_in_a_sentence(assistant: Assistant, folder: Path, tmp_path: Path) -> None:
    plain(folder)

    def refused(words: str, **files: bytes) -> None:
        changed = shutil.copytree(folder, tmp_path / "changed")
        for name, content in files.items():
            (changed / name.replace("__", ".")).write_bytes(content)
        with pytest.raises(ImportRefused, match=words):
            import_zip(assistant=assistant, file=zipped(changed), claim=Claim(prompt_ours=True))
        shutil.rmtree(changed)

    weights = (folder / "adapter_model.safetensors").read_bytes()
    config = json.loads((folder / "adapter_config.json").read_text())
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    refused("cut short or damaged", adapter_model__safetensors=weights[:-1000])
    for entry in (b"7", b"{}", b'{"dtype":"F32","shape":[],"data_offsets":[0,4]}'):
        header = b'{"a.lora_A.weight":%s}' % entry
        strange = len(header).to_bytes(8, "little") + header + bytes(4)
        refused("does not say what the matrix", adapter_model__safetensors=strange)
    for change, words in (({"lora_alpha": "x"}, "are numbers"), ({"rank_pattern": [1, 2]}, "name modules")):
        refused(words, adapter_config__json=json.dumps({**config, **change}).encode())
    refused("no LoRA configuration", adapter_config__json=deep)
    refused("is not JSON", manifest__json=deep)
    for value in (b'"\\u0000"', b'"\\ud800"', b"NaN", b"[" * 50 + b"]" * 50):
        refused("cannot be stored", manifest__json=b'{"a":%s}' % value)
    assert not Adapter.objects.exists()


def test_a_damaged_zip_is_refused(assistant: Assistant) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", "{}" * 1000)
    whole = out.getvalue()
    start = whole.index(b"adapter_config.json") + len("adapter_config.json")
    damaged = whole[:start] + b"\xff" * 8 + whole[start + 8 :]
    with pytest.raises(ImportRefused, match="no zip that can be read"):
        import_zip(assistant=assistant, file=io.BytesIO(damaged))


def test_a_link_in_the_zip_is_refused(assistant: Assistant) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("adapter_config.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    out.seek(0)
    with pytest.raises(ImportRefused, match="is a link"):
        import_zip(assistant=assistant, file=out)


def test_a_merged_model_answers_like_base_and_adapter(assistant: Assistant, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = import_zip(assistant=assistant, file=zipped(folder))
    merge = start_merge(adapter=adapter, created_by=None)
    launch(merge, foreground=True)
    merge.refresh_from_db()
    assert (merge.state, merge.error) == (AdapterMerge.State.SUCCEEDED, "")
    home = from_state(merge.folder)
    assert merge.digest == base_digest(home) != adapter.base_digest
    ids = torch.arange(5, 25)[None]
    whole = AutoModelForCausalLM.from_pretrained(home)(ids).logits
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(shared_base()), folder)(ids).logits
    assert torch.allclose(whole, both, atol=2e-3)
    assert json.loads((home / "config.json").read_text())["model_type"] == "qwen3"


def test_commands_take_folders_in_and_out(assistant: Assistant, folder: Path, tmp_path: Path) -> None:
    call_command("import_adapter", assistant.slug, str(folder), stdout=io.StringIO())
    call_command("export_adapter", assistant.slug, "1", str(tmp_path / "out"), stdout=io.StringIO())
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(CommandError, match="is there already"):
        call_command("export_adapter", assistant.slug, "1", str(tmp_path / "out"))
    file = tmp_path / "out" / "README.md"
    with pytest.raises(CommandError, match="is not a folder"):
        call_command("export_adapter", assistant.slug, "1", str(file / "adapter.zip"))
    call_command("export_adapter", assistant.slug, "1", str(tmp_path / "new" / "adapter.zip"), stdout=io.StringIO())
    assert zipfile.is_zipfile(tmp_path / "new" / "adapter.zip")
    with pytest.raises(CommandError, match="are Adapter 1 already"):
        call_command("import_adapter", assistant.slug, str(folder))
    with pytest.raises(CommandError, match="no assistant"):
        call_command("import_adapter", "nobody", str(folder))


def test_what_holds_erased_data_does_not_leave(assistant: Assistant, folder: Path) -> None:
    adapter = import_zip(assistant=assistant, file=zipped(folder))
    first = Adapter.objects.create(assistant=assistant, number=9, run=erased_run(assistant), base_digest="b")
    Adapter.objects.filter(pk=adapter.pk).update(parent=first)
    adapter.refresh_from_db()
    with pytest.raises(ExportRefused, match="holds erased data"):
        export_zip(adapter=adapter, actor=None)
    with pytest.raises(MergeRefused, match="holds erased data"):
        start_merge(adapter=adapter, created_by=None)


def erased_run(assistant: Assistant) -> Run:
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=1, state="succeeded", rows=3, erased_rows=1, prompt_digest=assistant.prompt_digest
    )
    return Run.objects.create(assistant=assistant, dataset=dataset, prompt_digest=assistant.prompt_digest)


def login(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password="tulip-cable-96")
    return client


def test_the_pages_are_for_admins_of_the_assistant(assistant: Assistant, folder: Path) -> None:
    make_assistant(members={"admin": [make_user("eve")]})
    upload = SimpleUploadedFile("adapter.zip", zipped(folder).read())
    data = {"assistant": assistant.pk, "file": upload}
    url = reverse("admin:training_adapter_import")
    assert Client().get(url).status_code == 302
    assert login("ann").get(url).status_code == 403
    assert "Select a valid choice" in login("eve").post(url, data).content.decode()
    upload.seek(0)
    answer = login("ada").post(url, data)
    adapter = Adapter.objects.get()
    assert answer.url == reverse("admin:training_adapter_change", args=[adapter.pk])

    export = reverse("admin:training_adapter_export", args=[adapter.pk])
    merge = reverse("admin:training_adapter_merge", args=[adapter.pk])
    for page in (export, merge):
        assert login("eve").post(page).status_code == 404
        assert login("ann").post(page).status_code == 404
        assert login("ada").get(page).status_code == 405
    taken = login("ada").post(export)
    assert taken["Content-Disposition"].endswith('--1.zip"')
    assert zipfile.ZipFile(io.BytesIO(b"".join(taken.streaming_content))).testzip() is None
    assert AuditEvent.objects.get(action="adapter.exported").actor_name == "ada"
    page = login("ada").get(reverse("admin:training_adapter_change", args=[adapter.pk])).content.decode()
    assert "Export as zip" in page
    assert "imported" in page


@pytest.mark.django_db
def test_an_erasure_deletes_merged_models_of_what_has_learned_the_rows(settings: Any, tmp_path: Path) -> None:
    from tests.factories import make_adapter, make_assistant
    from training.erasing import erase_files
    from training.models import AdapterMerge, DatasetVersion, Run

    assistant = make_assistant("bot")
    dataset = DatasetVersion.objects.create(assistant=assistant, number=1, state="succeeded")
    run = Run.objects.create(assistant=assistant, dataset=dataset, state="succeeded")
    adapter = make_adapter(assistant, run=run)
    child = make_adapter(assistant, number=2, parent=adapter)
    other = make_adapter(assistant, number=3)
    merges = []
    for one in (adapter, child, other):
        folder = tmp_path / f"{one.number}-merged"
        folder.mkdir()
        merges.append(
            AdapterMerge.objects.create(assistant=assistant, adapter=one, folder=str(folder), state="succeeded")
        )
    assert erase_files([run])["merged models"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["3-merged"]
    merges[0].refresh_from_db()
    assert merges[0].folder == ""
    assert "erased" in merges[0].error
