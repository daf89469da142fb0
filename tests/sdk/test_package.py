"""The package itself: small, alone, and as its pages say."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest

from ratchet_client import Client, __version__
from tests.sdk.conftest import SDK, House, until

ROOT = SDK.parent
PACKAGE = SDK / "ratchet_client"
MAX_LINES = 600
_SPACE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SPACE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_client_is_small() -> None:
    own = [path for path in PACKAGE.glob("*.py") if path.name != "langchain.py"]
    assert sum(map(code_lines, own)) < MAX_LINES
    assert code_lines(PACKAGE / "langchain.py") < 120


def test_it_needs_httpx_and_nothing_else() -> None:
    code = """
import sys
before = set(sys.modules)
import httpx, ratchet_client
own = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(own - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SDK)}, capture_output=True, text=True, check=True
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert loaded & {"django", "langchain_core", "pydantic", "torch", "config", "capture"} == set()
    code = "import httpx, sys; print(sorted({name.split('.')[0] for name in sys.modules}))"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded - set(ast.literal_eval(alone.stdout)) == {"ratchet_client"}


def test_the_project_file_says_so_too() -> None:
    import tomllib

    project = tomllib.loads((SDK / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [line.split(">")[0] for line in project["dependencies"]] == ["httpx"]
    assert project["requires-python"] == ">=3.10"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert (PACKAGE / "py.typed").exists()


def test_every_argument_is_on_its_page() -> None:
    import inspect

    page = (SDK / "README.md").read_text(encoding="utf-8")
    names = set(inspect.signature(Client.__init__).parameters) - {"self", "url", "key"}
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert {name for name in ("logged", "created", "damaged", "queued") if f"`{name}`" not in page} == set()


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", ["docs/api.md", "sdk/README.md"])
def test_the_first_example_of_a_page_runs(house: House, tmp_path: Path, page: str) -> None:
    environment = {"PYTHONPATH": str(SDK), "URL": house.url, "KEY": house.secret, "PATH": os.environ["PATH"]}
    example = next(code for code in examples(ROOT / page) if "ratchet_client import Client" in code)
    command = [sys.executable, "-c", example]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (turn,) = house.turns().values()
    assert turn.feedback.count() == 1
    assert (turn.outcome, turn.tags) == ("resolved", ["checkout"])
    assert turn.retrievals.count() == 1


def test_the_example_with_langchain_runs(house: House) -> None:
    pytest.importorskip("langchain_core", reason="langchain-core is not installed (it is in the extra dev)")
    from langchain_core.runnables import RunnableLambda

    example = next(code for code in examples(ROOT / "docs/api.md") if "RatchetHandler" in code)
    with house.client() as client:
        names: dict[str, Any] = {"client": client, "question": "Why?", "chain": RunnableLambda(lambda given: "So.")}
        exec(example, names)
    (turn,) = until(house.turns).values()
    assert (turn.question, turn.response, turn.conversation.external_id) == ("Why?", "So.", "chat-82")
