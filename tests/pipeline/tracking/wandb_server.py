"""As much of W&B's server as its client asks for: runs are made and found again, and rows of their history arrive.

The client, its process and its protocol are the real ones: GraphQL for runs and the file stream for rows. What is here
follows the queries that wandb 0.31 sends.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HISTORY = "wandb-history.jsonl"
OWNER = {"id": "e", "name": "lab"}


class WandbServer:
    """Runs by their ids, each with the rows that arrived.

    Attributes:
        address: for WANDB_BASE_URL.
        history: run id -> rows, in order.
        config: run id -> the config that the run was made with, JSON.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.config: dict[str, str] = {}

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """What a GraphQL query gets."""
        [operation] = re.findall(r"^\s*(?:query|mutation)\s+(\w+)", query)
        project = {"id": "p", "name": given.get("project"), "entity": OWNER}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": self.resumed(given["name"])}}
        if operation == "UpsertBucket":
            name = given["name"]
            there = name in self.history
            self.history.setdefault(name, [])
            self.config[name] = given["config"] or self.config.get(name, "{}")
            return {"upsertBucket": {"bucket": self.bucket(name) | {"project": project}, "inserted": not there}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    def bucket(self, run: str) -> dict[str, Any]:
        return {
            "id": f"id-{run}", "name": run, "displayName": run, "description": "", "config": self.config[run],
            "sweepName": None, "historyLineCount": len(self.history[run]),
        }  # fmt: skip

    def resumed(self, run: str) -> dict[str, Any] | None:
        """A run as the client wants it before it goes on with it; None: there is none."""
        if run not in self.history:
            return None
        tail = json.dumps([json.dumps(row) for row in self.history[run][-1:]])
        return self.bucket(run) | {
            "summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0, "historyTail": tail, "eventsTail": "[]",
            "tags": [], "notes": "", "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def take(self, run: str, sent: dict[str, Any]) -> None:
        """Rows of the file stream: from the line `offset` on."""
        rows = sent.get("files", {}).get(HISTORY)
        if rows is not None:
            self.history[run][rows["offset"] :] = [json.loads(line) for line in rows["content"]]


@contextlib.contextmanager
def serving_wandb(port: int, server: WandbServer | None = None) -> Iterator[WandbServer]:
    """Serve at a port, until the end of the block; one that was stopped can go on."""
    wandb = server or WandbServer(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.body()
            if self.path.endswith("/graphql"):
                asked = json.loads(body)
                self.reply({"data": wandb.answer(asked["query"], asked.get("variables") or {})})
                return
            if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                wandb.take(stream[1], json.loads(body))
            self.reply({"limits": {}})

        def do_PUT(self) -> None:
            self.body()
            self.reply({})

        def body(self) -> bytes:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

        def reply(self, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *what: object) -> None:
            """Quietly."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed is none."""

    http = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield wandb
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
