"""Adapters from elsewhere: a PEFT folder or a zip of one becomes an adapter of the list, or is refused whole.

What is let in is a list of file names, below limits of size and count, with weights in safetensors: nothing is ever
unpickled, followed or executed, and a zip is read member by member into names that we choose. The folder's
configuration must be one that the engine serves as it was evaluated (`generation.adapters`); its base must be ours.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import re
import shutil
import stat
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from assistants.models import Assistant
from assistants.services import audit
from generation.adapters import (
    CONFIG,
    MANIFEST,
    MAX_TEXT_BYTES,
    MAX_WEIGHTS_BYTES,
    README,
    WEIGHTS,
    check_adapter,
)
from generation.engines import AdapterRefused, EngineError
from training.finetune.bases import base_folder, digest_of_base, relative_to_state
from training.finetune.sizes import size_of_base
from training.models import Adapter

IGNORED = re.compile(
    r"(tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|"
    r"chat_template\.jinja|\.gitattributes|__MACOSX/.*|.*\.DS_Store)"
)
"""What PEFT and hubs put beside an adapter: left out, because ours always answers with the base's own tokenizer."""
KEPT = (CONFIG, WEIGHTS, MANIFEST, README)
MAX_MEMBERS = 60
CHUNK = 1024**2
MAX_DEPTH = 20
"""Of a manifest: an object in a list in an object, and so on."""


class ImportRefused(ValueError):
    """The folder or zip cannot become an adapter; the message says why and what to do."""


@dataclass(frozen=True)
class Claim:
    """What a person says about an adapter that has no manifest of ours."""

    prompt_ours: bool = False
    """It was trained with this assistant's prompt format."""


def import_zip(
    *, assistant: Assistant, file: BinaryIO, claim: Claim | None = None, created_by: User | None = None
) -> Adapter:
    """Registers the adapter of a zip: its files at the top or in one folder.

    Raises:
        ImportRefused: not a zip, too large, other files than an adapter's, another base or prompt format, …
    """
    with _place(assistant) as place:
        _unpack(file, place)
        return _register(assistant, place, claim or Claim(), created_by)


def import_folder(
    *, assistant: Assistant, folder: Path, claim: Claim | None = None, created_by: User | None = None
) -> Adapter:
    """As `import_zip`, of a folder of this machine (a command's: pages take zips)."""
    if not folder.is_dir():
        raise ImportRefused(f"There is no folder {folder}.")
    with _place(assistant) as place:
        paths = sorted(folder.iterdir())
        if len(paths) > MAX_MEMBERS:
            raise ImportRefused(f"The folder holds {len(paths)} entries; an adapter has a handful.")
        for path in paths:
            name = path.name
            if IGNORED.fullmatch(name):
                continue
            if path.is_symlink() or not path.is_file():
                raise ImportRefused(f"{name[:80]!r} is no plain file. Copy the adapter's files into one folder.")
            _allow(name, path.stat().st_size)
            shutil.copyfile(path, place / name)
        return _register(assistant, place, claim or Claim(), created_by)


@contextmanager
def _place(assistant: Assistant) -> Iterator[Path]:
    """A fresh folder beside the adapters, gone afterwards whatever happens."""
    place = Path(settings.RATCHET_ADAPTERS_DIR) / assistant.slug / f".import-{uuid.uuid4().hex}"
    place.mkdir(mode=0o700, parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(file: BinaryIO, place: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MAX_MEMBERS:
                raise ImportRefused(f"The zip holds {len(members)} files; an adapter has a handful.")
            names = _names(members)
            for member, name in names.items():
                _allow(name, member.file_size)
                _extract(archive, member, place / name)
    except ImportRefused:
        raise
    except (
        ValueError,  # a name that is no UTF-8
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise ImportRefused("This is no zip that can be read. Zip the adapter's folder without a password.") from error


def _names(members: list[zipfile.ZipInfo]) -> Mapping[zipfile.ZipInfo, str]:
    """Members that are wanted, by the name that they get here. Paths of the zip are never used on disk."""
    found: dict[zipfile.ZipInfo, str] = {}
    folders = set()
    for member in members:
        name = member.filename.replace("\\", "/")
        folder, _, last = name.rpartition("/")
        if IGNORED.fullmatch(last) or IGNORED.fullmatch(name):
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ImportRefused(f"{last[:80]!r} is a link. Zip the files themselves.")
        if last in found.values():
            raise ImportRefused(f"The zip holds {last[:80]!r} twice. Zip one adapter's folder.")
        folders.add(folder)
        found[member] = last
    if len(folders) > 1:
        raise ImportRefused("The zip holds several folders. Zip one adapter's folder.")
    return found


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Copies what the header promised and not a byte more: a zip can lie about its sizes."""
    limit = _limit(target.name)
    with archive.open(member) as source, target.open("wb") as out:
        while piece := source.read(CHUNK):
            limit -= len(piece)
            if limit < 0:
                raise ImportRefused(f"{target.name} is larger than {_limit(target.name) // 1024**2} MiB.")
            out.write(piece)


def _allow(name: str, size: int) -> None:
    if name not in KEPT:
        hint = ""
        if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")):
            hint = " Pickled weights are never opened: save the adapter with safetensors."
        raise ImportRefused(f"{name[:80]!r} does not belong to an adapter.{hint} Allowed are {', '.join(KEPT)}.")
    if size > _limit(name):
        raise ImportRefused(f"{name} is larger than {_limit(name) // 1024**2} MiB.")


def largest_zip() -> int:
    """Bytes that are worth reading: stored and not packed, an adapter is as large as its files."""
    return _limit(WEIGHTS) + (len(KEPT) - 1) * MAX_TEXT_BYTES


def _limit(name: str) -> int:
    return min(MAX_WEIGHTS_BYTES, settings.RATCHET_MAX_ADAPTER_BYTES) if name == WEIGHTS else MAX_TEXT_BYTES


def _register(assistant: Assistant, place: Path, claim: Claim, created_by: User | None) -> Adapter:
    for name in (CONFIG, WEIGHTS):
        if not (place / name).is_file():
            raise ImportRefused(f"There is no {name}. Save the adapter with PEFT (save_pretrained) and zip its folder.")
    try:
        digest = digest_of_base()
        brought = _manifest(place)
        if brought is None:
            brought = _without_manifest(assistant, place, digest, claim)
        else:
            # What it says of its files is checked before we say anything ourselves.
            check_adapter(place, base_digest=digest, prompt_digest=assistant.prompt_digest)
        _settle(place, brought)
        checked = check_adapter(place, base_digest=digest, prompt_digest=assistant.prompt_digest)
        _fits(place)
    except AdapterRefused as error:
        raise ImportRefused(" ".join(filter(None, (error.sentence, error.hint)))) from error
    except EngineError as error:
        raise ImportRefused(str(error)) from error
    with transaction.atomic():
        Assistant.objects.select_for_update().get(pk=assistant.pk)  # numbers are given one by one
        rows = Adapter.objects.filter(assistant=assistant)
        weights = checked.manifest["files"][WEIGHTS]
        if same := rows.filter(manifest__files__contains={WEIGHTS: weights}).first():
            raise ImportRefused(f"These weights are {same} already.")
        number = (rows.aggregate(last=Max("number"))["last"] or 0) + 1
        home = Path(settings.RATCHET_ADAPTERS_DIR) / assistant.slug / str(number)
        adapter = Adapter.objects.create(
            assistant=assistant,
            number=number,
            source=Adapter.Source.IMPORTED,
            folder=relative_to_state(home),
            manifest=checked.manifest,
            base_digest=checked.manifest["base_digest"],
            prompt_digest=checked.manifest["prompt_digest"],
            size_bytes=(place / WEIGHTS).stat().st_size,
        )
        audit(
            assistant=assistant,
            actor=created_by,
            action="adapter.imported",
            target=str(adapter),
            details={"weights_sha256": weights, "claimed_prompt": claim.prompt_ours},
        )
        shutil.rmtree(home, ignore_errors=True)  # left by an import that died before its commit: no row names it
        for path in place.iterdir():
            path.chmod(0o644)
        place.chmod(0o755)
        shutil.move(place, home)
    return adapter


def _manifest(place: Path) -> dict[str, Any] | None:
    if not (place / MANIFEST).is_file():
        return None
    try:
        value = json.loads((place / MANIFEST).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{MANIFEST} is not JSON. Leave it out, or export the adapter again.") from error
    if not isinstance(value, dict):
        raise ImportRefused(f"{MANIFEST} holds no JSON object. Leave it out, or export the adapter again.")
    if not _is_storable(value):
        raise ImportRefused(f"{MANIFEST} holds what cannot be stored. Leave it out, or export the adapter again.")
    return value


def _is_storable(value: Any, depth: int = MAX_DEPTH) -> bool:
    """PostgreSQL's JSON has no NUL, no halves of surrogate pairs and no numbers without end."""
    if isinstance(value, dict):
        return depth > 0 and all(_is_storable(key) and _is_storable(one, depth - 1) for key, one in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_storable(one, depth - 1) for one in value)
    if isinstance(value, str):
        return not re.search("[\x00\ud800-\udfff]", value)
    return not isinstance(value, float) or math.isfinite(value)


def _without_manifest(assistant: Assistant, place: Path, digest: str, claim: Claim) -> dict[str, Any]:
    """A plain PEFT folder says nothing of base and prompt that could be checked: the shapes of its weights must fit
    ours, and a person must say that it knows our prompt."""
    if not claim.prompt_ours:
        raise ImportRefused(
            f"The folder has no {MANIFEST}, so nothing says with which prompts it was trained. Tick that it was "
            "trained with this assistant's prompt format (an export of its datasets), or train it here."
        )
    try:
        config = json.loads((place / CONFIG).read_bytes())
        rank, alpha = config["r"], config["lora_alpha"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImportRefused(f"{CONFIG} is no LoRA configuration of PEFT.") from error
    return {
        "manifest_version": 1,
        "base_digest": digest,
        "prompt_digest": assistant.prompt_digest,
        "base_model": settings.RATCHET_BASE_MODEL,
        "settings": {"rank": rank, "alpha": alpha},
        "claimed": True,
    }


def _settle(place: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest with the digests of what is there; a card without front matter that we would trust."""
    if not (place / README).is_file():
        (place / README).write_text("An imported LoRA adapter. What is known of it is in manifest.json.\n")
    files = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS, README)}
    (place / MANIFEST).write_text(
        json.dumps({**manifest, "files": files, "imported": True}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _fits(place: Path) -> None:
    """Every LoRA matrix must have a layer of ours to go with: another base of the same family has other widths.

    Raises:
        AdapterRefused: one has none.
    """
    from training.finetune.sizes import shapes_of

    size = size_of_base(base_folder())
    layers = {(rows, columns) for rows, columns in size.linear}
    ins, outs = {columns for _, columns in layers}, {rows for rows, _ in layers}
    for name, shape in shapes_of(place / WEIGHTS).items():
        if not (shape[-1] in ins if ".lora_A." in name else shape[0] in outs):
            raise AdapterRefused(
                f"The matrix {name[:100]} of shape {list(shape)} fits no layer of the base.",
                "It was trained on another base model.",
                reason="base",
            )
