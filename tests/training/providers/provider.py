"""A real HTTP server that speaks the fine-tuning API: files, jobs, events, cancel. It learns nothing."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-provider-secret"


class Provider:
    """``jobs`` and ``files`` are what it holds; ``fail`` answers the next so many requests with 503."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.deleted: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.fail = 0
        self.refuse = False
        self.refuse_deleting = False
        self.steps = 3
        self.outcome = "succeeded"
        self.looks_until_done = 2
        self.lose_answer_of_create = False
        self._looks = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        job = {
            "object": "fine_tuning.job", "id": f"ftjob-{len(self.jobs) + 1}", "status": "running", "asked": body,
            "model": body["model"], "fine_tuned_model": None, "metadata": body.get("metadata"), "error": None,
        }  # fmt: skip
        self.jobs[job["id"]] = job
        return job

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        if job["status"] != "running":
            return job
        self._looks += 1
        step = min(self.steps, self._looks)
        if len(self.events) < step:
            self.events.append(
                {
                    "id": f"ftevent-{step}", "type": "metrics", "level": "info", "message": f"Step {step}",
                    "data": {"step": step, "train_loss": 2.0 / step, "total_steps": self.steps},
                }
            )  # fmt: skip
        if self._looks >= self.looks_until_done:
            job["status"] = self.outcome
            if self.outcome == "succeeded":
                job["fine_tuned_model"] = f"ft:{job['model']}:{job['asked']['suffix']}"
                job["trained_tokens"] = 4321
            else:
                job["error"] = {"code": "bad_data", "message": "The file has a row that we refuse."}
        return job


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle_one(self, method: str) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            path = self.path.partition("?")[0]
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                return self.answer({"error": {"message": "Incorrect API key provided."}}, 401)
            if provider.fail:
                provider.fail -= 1
                return self.answer({"error": {"message": "Overloaded."}}, 503)
            if (method, path) == ("POST", "/v1/chat/completions"):
                said = {"role": "assistant", "content": f"{json.loads(body)['model']} says hello"}
                usage = {"prompt_tokens": 3, "completion_tokens": 3}
                return self.answer({"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage})
            if (method, path) == ("POST", "/v1/files"):
                name = f"file-{len(provider.files) + 1}"
                boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
                part = next(p for p in body.split(b"--" + boundary) if b'name="file"' in p)
                provider.files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
                return self.answer({"id": name, "object": "file", "purpose": "fine-tune"})
            if method == "DELETE" and path.startswith("/v1/files/"):
                if provider.refuse_deleting:
                    return self.answer({"error": {"message": "Not now."}}, 403)
                provider.deleted.append(path.rpartition("/")[2])
                return self.answer({"deleted": True})
            if (method, path) == ("POST", "/v1/fine_tuning/jobs"):
                asked = json.loads(body)
                if provider.refuse:
                    return self.answer({"error": {"message": "Your rows break a rule of ours."}}, 400)
                if asked["training_file"] not in provider.files or asked["training_file"] in provider.deleted:
                    return self.answer({"error": {"message": "No such file."}}, 400)
                job = provider.create(asked)
                if provider.lose_answer_of_create:
                    provider.lose_answer_of_create = False
                    self.close_connection = True
                    return None
                return self.answer(job)
            if (method, path) == ("GET", "/v1/fine_tuning/jobs"):
                return self.answer({"data": list(reversed(provider.jobs.values())), "has_more": False})
            found = re.fullmatch(r"/v1/fine_tuning/jobs/(ftjob-\d+)(/events|/cancel)?", path)
            if not found or found[1] not in provider.jobs:
                return self.answer({"error": {"message": "Not found."}}, 404)
            job = provider.jobs[found[1]]
            if found[2] == "/events":
                return self.answer({"data": list(reversed(provider.events)), "has_more": False})
            if found[2] == "/cancel":
                job["status"] = "cancelled"
                return self.answer(job)
            return self.answer(provider.look(job))

        def do_GET(self) -> None:
            self.handle_one("GET")

        def do_POST(self) -> None:
            self.handle_one("POST")

        def do_DELETE(self) -> None:
            self.handle_one("DELETE")

    return Handler
