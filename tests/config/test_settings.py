"""Settings that depend on the process are read in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def read(expression: str, **env: str) -> Any:
    code = f"import json; from django.conf import settings; print(json.dumps({expression}))"
    full = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", **env}
    done = subprocess.run([sys.executable, "-c", code], env=full, capture_output=True, text=True, check=True, cwd="/")
    return json.loads(done.stdout)


def test_only_web_processes_get_a_pool_and_it_is_bounded() -> None:
    web = read("settings.DATABASES['default']", RATCHET_PROCESS="web", DATABASE_POOL_SIZE="3")
    assert (web["CONN_MAX_AGE"], web["OPTIONS"]["pool"]["max_size"]) == (0, 3)
    assert web["ENGINE"] == "config.pooled"
    worker = read("settings.DATABASES['default']", RATCHET_PROCESS="worker")
    assert worker["CONN_MAX_AGE"] > 0
    assert "pool" not in worker["OPTIONS"]
    assert worker["ENGINE"] == "django.db.backends.postgresql"


def test_a_database_url_replaces_the_embedded_server() -> None:
    url = "postgres://ada:p%40ss@db.example:5433/loop?sslmode=require"
    database = read("settings.DATABASES['default']", DATABASE_URL=url)
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example", 5433, "loop")
    assert (database["USER"], database["PASSWORD"]) == ("ada", "p@ss")
    assert database["OPTIONS"]["sslmode"] == "require"
    assert read("settings.EMBEDDED_DATABASE", DATABASE_URL=url) is False


@pytest.mark.parametrize(("name", "expected"), [("", "default"), ("train", "train")])
def test_the_queue_of_a_cluster_comes_from_the_environment(name: str, expected: str) -> None:
    code = (
        "from django_q.conf import Conf; print(Conf.CLUSTER_NAME, Conf.ACK_FAILURES, Conf.SAVE_LIMIT, Conf.SCHEDULER)"
    )
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "Q_CLUSTER_NAME": name}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "True", "250", str(expected == "default")]


def test_a_relative_base_model_counts_from_the_checkout_and_a_hub_name_stays() -> None:
    assert read("settings.RATCHET_BASE_MODEL") == str(ROOT / "models/base")
    assert read("settings.RATCHET_BASE_MODEL", RATCHET_BASE_MODEL="Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


def test_behind_tls_cookies_are_secure() -> None:
    expression = "[settings.SESSION_COOKIE_SECURE, settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS > 0]"
    assert read(expression, RATCHET_HTTPS="1") == [True, True, True]
    assert read(expression) == [False, False, False]
    assert read("settings.DEBUG") is False
