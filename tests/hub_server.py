"""A small Hugging Face Hub on this machine: the part of its HTTP API that publishing and downloading a model uses."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_testtoken"
"""The only token that may write, and read private repositories."""


class Hub:
    """Repositories: for each, whether it is private, and the files of each commit by branch."""

    def __init__(self):
        self.private: dict[str, bool] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []

    def commit(self, name: str, branch: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr((name, branch, len(self.commits))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[name][branch] = sha
        return sha


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments):
        pass

    def answer(self, document=None, status=200, body=None, headers=None):
        body = json.dumps(document).encode() if body is None else body
        self.send_response(status)
        headers = {"Content-Type": "application/json", **(headers or {})}
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code, status):
        self.answer({"error": code}, status, headers={"X-Error-Code": code, "X-Error-Message": code})

    @property
    def allowed(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def found(self, name, revision):
        """The commit of a revision, or None after a refusal."""
        if name not in self.hub.private or (self.hub.private[name] and not self.allowed):
            self.refuse("RepoNotFound", 404)
            return None
        sha = self.hub.branches[name].get(revision, revision)
        if sha not in self.hub.commits:
            self.refuse("RevisionNotFound", 404)
            return None
        return sha

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            name, sha = match[1], self.found(match[1], match[2] or "main")
            if sha:
                self.answer({"id": name, "sha": sha, "private": self.hub.private[name], "siblings": [], "tags": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+).*", path):
            sha = self.found(match[1], match[2])
            if sha:
                files = self.hub.commits[sha].items()
                self.answer(
                    [{"type": "file", "path": one, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                     for one, body in files]
                )  # fmt: skip
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            sha = self.found(match[1], match[2])
            if sha:
                body = self.hub.commits[sha][match[3]]
                headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
                self.answer(body=body, headers=headers)
        else:
            self.refuse("EntryNotFound", 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, hub = unquote(urlsplit(self.path).path), self.hub
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.allowed:
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            if name in hub.private:
                url = f"http://{self.headers['Host']}/{name}"
                return self.answer({"error": "You already created this model repo", "url": url}, 409)
            hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
            hub.branches[name] = {}
            hub.commit(name, "main", {".gitattributes": b"*.arrow filter=lfs\n"})
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path)
        assert match, path
        name, action, branch = match.groups()
        if action == "branch":
            hub.branches[name].setdefault(branch, hub.branches[name]["main"])
            return self.answer({})
        if action == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        files = dict(hub.commits[hub.branches[name][branch]])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = hub.commit(name, branch, files)
        return self.answer({"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{sha}", "commitOid": sha})


@contextmanager
def hub_server() -> Iterator[tuple[str, Hub]]:
    """The address and the state of a Hub that runs for the time of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
