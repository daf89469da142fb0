"""The pages of documents in a real browser: files dropped and sent, a preview decided, nothing in anybody's way."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from assistants.models import Assistant
from knowledge.models import Document, Upload
from knowledge.services import load_document, mark_superseded
from knowledge.uploads import IncomingFile, start_upload
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.test_accessibility import serious
from tests.factories import make_assistant, make_user
from tests.knowledge.files import make_zip

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]

FEES = "# Fees\n\n## Leaving\n\nA fixed plan has an exit fee of £35.\n\n## Late\n\nA late payment costs £6.\n"


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def bot(ada: User) -> Assistant:
    return make_assistant("bot", members={"admin": [ada]})


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker: the test is one."""
    for place in ("knowledge.uploads.launch", "knowledge.deciding.launch"):
        monkeypatch.setattr(place, lambda work: None)


@pytest.fixture
def desk(page: Page, live_server: LiveServer, ada: User, bot: Assistant) -> Iterator[Page]:
    log_in(page, live_server, ada)
    yield page
    page.goto("about:blank")  # pages of uploads ask again and again


def perform(upload: Upload) -> None:
    upload.refresh_from_db()
    assert upload.claim()
    upload.perform()
    upload.finish(Upload.State.SUCCEEDED)


def test_files_are_dropped_sent_looked_at_and_taken(desk: Page, live_server: LiveServer, tmp_path: Path) -> None:
    desk.goto(f"{live_server.url}/admin/knowledge/document/add/")
    archive = base64.b64encode(make_zip({"a/one.md": FEES, "two.txt": "Two it is."})).decode()
    desk.evaluate(
        """(packed) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(packed), (c) => c.charCodeAt(0))], "all.zip"));
            data.items.add(new File(["# Moving\\n\\nTell us ten days before."], "moving.md"));
            const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
            document.querySelector("[data-drop]").dispatchEvent(drop);
        }""",
        archive,
    )
    (tmp_path / "three.html").write_text("<h1>Three</h1><p>Three it is.")
    desk.set_input_files("input[name=documents]", [tmp_path / "three.html"])
    expect(desk.locator("[data-chosen]")).to_contain_text("3 files, ")
    expect(desk.locator("[data-list] li")).to_have_text(["three.html", "all.zip", "moving.md"])
    desk.get_by_label("Put them into").fill("house")
    desk.get_by_label("Look before they are taken").check()
    shoot(desk, "documents_upload", whole=True)
    desk.get_by_role("button", name="Upload", exact=True).click()
    desk.wait_for_url("**/upload/*/change/", timeout=60_000)  # the first name of a file loads the scrubber
    expect(desk.locator("#files h2")).to_contain_text("3 files")
    upload = Upload.objects.get()
    perform(upload)
    desk.reload()
    rows = desk.locator("#files tbody tr")
    expect(rows).to_have_count(5)
    assert set(upload.files.values_list("path", flat=True)) == {
        "house/three.html", "house/all.zip", "house/moving.md", "house/a/one.md", "house/two.txt",
    }  # fmt: skip
    chosen = desk.get_by_role("button", name="Take the chosen")
    expect(chosen).to_be_disabled()
    shoot(desk, "documents_preview", whole=True)
    desk.get_by_role("link", name="house/a/one.md").click()
    expect(desk.get_by_role("heading", name="Fees", exact=True)).to_be_visible()
    shoot(desk, "documents_preview_file", whole=True)
    desk.get_by_role("button", name="Discard it").click()
    desk.get_by_label("Choose house/moving.md").check()
    desk.get_by_label("Choose house/two.txt").check()
    expect(chosen).to_be_enabled()
    chosen.click()
    perform(upload)
    assert set(Document.objects.values_list("path", flat=True)) == {"house/moving.md", "house/two.txt"}
    desk.reload()
    expect(desk.get_by_text("1 to decide")).to_be_visible()


def test_what_the_server_would_refuse_is_said_before_anything_is_sent(
    desk: Page, live_server: LiveServer, settings: Any, tmp_path: Path
) -> None:
    settings.RATCHET_UPLOAD_MAX_FILES = 1
    desk.goto(f"{live_server.url}/admin/knowledge/document/add/")
    send = desk.get_by_role("button", name="Upload", exact=True)
    send.click()
    expect(desk.locator("[data-problem]")).to_have_text("✗ Choose at least one file.")
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("# A\n\nOne.")
    desk.set_input_files("input[name=documents]", [tmp_path / "a.md", tmp_path / "b.md"])
    expect(desk.locator("[data-problem]")).to_have_text("✗ At most 1 files at a time, not 2.")
    expect(send).to_be_disabled()
    desk.get_by_role("button", name="Clear").click()
    expect(send).to_be_enabled()


def addresses(bot: Assistant) -> dict[str, str]:
    old = load_document(assistant=bot, path="house/old.md", data=FEES.encode())
    load_document(assistant=bot, path="house/old.md", data=FEES.replace("£6", "£8").encode())
    new = load_document(assistant=bot, path="house/tariffs/new.md", data=b"# New\n\nOther fees.")
    load_document(assistant=bot, path="house/broken.pdf", data=b"no")
    mark_superseded(documents=[old], superseded=True, by=new)
    files = {"house/old.md": FEES, "new.md": "# N\n\nNew text.", "bad.pdf": "no", "x.zip": make_zip({"../a.md": "x"})}
    data = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    upload = start_upload(
        assistant=bot, files=[IncomingFile(path, len(d), d) for path, d in data.items()], preview=True
    )
    perform(upload)
    file = upload.files.filter(outcome="ready").first()
    assert file is not None
    waiting = start_upload(assistant=bot, files=[IncomingFile("w.md", 3, b"# W")])
    return {
        "list": "/admin/knowledge/document/",
        "tree": "/admin/knowledge/document/?folder=house",
        "add": "/admin/knowledge/document/add/",
        "document": f"/admin/knowledge/document/{old.pk}/change/",
        "version": f"/admin/knowledge/document/{old.pk}/versions/1/",
        "upload": f"/admin/knowledge/upload/{upload.pk}/change/",
        "file": f"/admin/knowledge/upload/{upload.pk}/files/{file.pk}/",
        "waiting": f"/admin/knowledge/upload/{waiting.pk}/change/",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_and_nothing_sticks_out(
    live_server: LiveServer, reader: Page, axe: Axe, bot: Assistant, ada: User, scheme: str
) -> None:
    log_in(reader, live_server, ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: dict[str, list[str]] = {}
    for name, address in addresses(bot).items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            reader.goto(live_server.url + address)
            reader.wait_for_load_state("load")
            problems = serious(axe, reader)
            if width_of(reader) > size[0]:
                problems.append(f"wider than the window: {width_of(reader)}")
            if problems:
                found[f"{name} {size[0]}"] = problems
            shoot(reader, f"documents_{name}_{scheme}_{size[0]}", whole=True)
    reader.goto("about:blank")
    assert not found, "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)
