"""The command line of the engine process: ``python -m generation.server``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import NoReturn

from generation.engines import EngineError
from generation.folders import BUNDLED_EMBEDDER

DEFAULT_URL = "unix:var/engine.sock"
log = logging.getLogger("ratchet.engine")


class CannotStart(Exception):
    """One sentence with a hint, for the terminal."""


def parser() -> argparse.ArgumentParser:
    env = os.environ
    p = argparse.ArgumentParser(
        prog="python -m generation.server",
        description="Runs the base model with its adapters, and the embedder, for the processes of the platform.",
        epilog="RATCHET_ENGINE_KEY, or the file of --token-file, holds the token that every caller must show.",
    )
    p.add_argument(
        "--base",
        default=env.get("RATCHET_BASE_MODEL", "models/base"),
        help="folder or hub name of the base model (RATCHET_BASE_MODEL; %(default)s)",
    )
    p.add_argument(
        "--uds",
        metavar="PATH",
        help="listen on this Unix socket; without --uds and --port: where RATCHET_ENGINE_URL says",
    )
    p.add_argument("--port", type=int, help="listen on this TCP port; 0: any free one")
    p.add_argument("--host", default="127.0.0.1", help="address for --port (%(default)s)")
    p.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token")
    p.add_argument(
        "--adapters",
        type=Path,
        default=Path(env["RATCHET_ADAPTERS"]) if env.get("RATCHET_ADAPTERS") else None,
        metavar="FOLDER",
        help="adapters are loaded from inside this folder only (RATCHET_ADAPTERS)",
    )
    p.add_argument("--embedder", default=env.get("RATCHET_EMBEDDER", BUNDLED_EMBEDDER), help="(%(default)s)")
    p.add_argument("--reranker", default=env.get("RATCHET_RERANKER", ""), help="a cross-encoder (RATCHET_RERANKER)")
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto (%(default)s)")
    p.add_argument(
        "--dtype",
        default=env.get("RATCHET_ENGINE_DTYPE", "float32"),
        choices=("float32", "bfloat16", "auto"),
        help="float32 repeats to the bit; auto measures (%(default)s)",
    )
    p.add_argument("--threads", type=int, default=int(env.get("RATCHET_ENGINE_THREADS", "1")), help="(%(default)s)")
    p.add_argument(
        "--keep-loops", action="store_true", help="do not cut completions that repeat without end: for measurements"
    )
    p.add_argument("--max-rows", type=int, default=8, help="completions written at once (%(default)s)")
    p.add_argument("--max-waiting", type=int, default=64, help="completions that may wait (%(default)s)")
    return p


def main(arguments: list[str] | None = None) -> None:
    """Runs until SIGTERM or SIGINT. Exit code 1 with one sentence when it cannot start."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("httpx", "transformers", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the model libraries, about each other
    warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
    # uvicorn ends with the signal that stopped it; this turns it into a clean exit, also while models still load.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # Before torch is loaded: its thread pool takes the number from here.
    os.environ["OMP_NUM_THREADS"] = str(max(1, args.threads))
    try:
        listening, url = _listen(args)
        try:
            _serve(args, listening, url)
        finally:
            _remove(url)
    except (CannotStart, EngineError) as error:
        _give_up(str(error))


def _serve(args: argparse.Namespace, listening: socket.socket, url: str) -> None:
    import uvicorn

    from generation.local import TransformersEngine
    from generation.server import Service

    token = _token(args.token_file)
    if not token and listening.family != socket.AF_UNIX:
        log.warning("engine: no token is set, so everybody on this machine can use the engine")
    engine = TransformersEngine(
        args.base,
        device=args.device,
        dtype=args.dtype,
        threads=args.threads,
        embedder=args.embedder,
        cut_loops=not args.keep_loops,
    )
    service = Service(
        engine,
        token=token,
        adapters_root=args.adapters,
        max_rows=args.max_rows,
        max_waiting=args.max_waiting,
        reranker=args.reranker,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                log.info("engine: ready at %s (base %s, %s, %s)", url, args.base, engine.device, engine.dtype)

    config = uvicorn.Config(
        service.app(), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=3, ws="none"
    )
    server = Server(config)
    server.run(sockets=[listening])
    if not server.started:
        raise CannotStart("The engine could not warm up; the lines above say why.")


def _listen(args: argparse.Namespace) -> tuple[socket.socket, str]:
    """A bound socket and its address, before minutes are spent on loading. It accepts nobody until all is ready."""
    uds, host, port = args.uds, args.host, args.port
    if uds is None and port is None:
        url = os.environ.get("RATCHET_ENGINE_URL", DEFAULT_URL)
        if url.startswith("unix:"):
            uds = url.removeprefix("unix:")
        else:
            import httpx

            address = httpx.URL(url)
            host, port = address.host, address.port or 80
    try:
        return _unix(Path(uds)) if uds is not None else _tcp(host, port)
    except OSError as error:
        where = uds or f"{host}:{port}"
        raise CannotStart(f"Cannot listen on {where}: {error.strerror or error}. Choose another place.") from error


def _unix(path: Path) -> tuple[socket.socket, str]:
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise CannotStart(f"An engine already listens on {path}. Stop it first.")
        path.unlink()  # left behind by a process that was killed
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)  # from its first moment nobody else may open it
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    return listening, f"unix:{path}"


def _tcp(host: str, port: int) -> tuple[socket.socket, str]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    shown = f"[{host}]" if ":" in host else host
    return listening, f"http://{shown}:{listening.getsockname()[1]}"


def _remove(url: str) -> None:
    if url.startswith("unix:"):
        Path(url.removeprefix("unix:")).unlink(missing_ok=True)


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("RATCHET_ENGINE_KEY", "")
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CannotStart(f"The token file {file} cannot be read: {error.strerror}.") from error
    if not token:
        raise CannotStart(f"The token file {file} is empty. Put the token in, or leave --token-file out.")
    return token


def _give_up(sentence: str) -> NoReturn:
    print(f"engine: {sentence}", file=sys.stderr)  # noqa: T201 - a command speaks to its terminal
    raise SystemExit(1)
