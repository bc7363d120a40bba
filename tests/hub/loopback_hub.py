"""A Hub on the loopback interface: enough of its HTTP API for the real client to create, push and load.

Repositories are dictionaries in memory. `cut_uploads` and `requests` let a test break things and look on.
The client reads HF_ENDPOINT when it is imported, so it runs in processes of its own; see `Client`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKENS = {"hf_owner": "me", "hf_reader": "me", "hf_stranger": "stranger"}
LARGE = (".safetensors",)  # kept as LFS objects, like the Hub does


@dataclass
class Repository:
    private: bool
    gated: bool = False  # closed to all
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sha → path → content
    branches: dict[str, str] = field(default_factory=dict)  # name → sha
    messages: list[str] = field(default_factory=list)
    changed: list[set[str]] = field(default_factory=list)  # paths of each commit

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{message}".encode()).hexdigest()
        self.commits[sha] = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        self.branches[branch] = sha
        self.messages.append(message)
        self.changed.append(set(files))
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


def oid_of(path: str, content: bytes) -> str:
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Answer(Exception):
    """Ends a request with an error, as the Hub words it."""

    status: int
    code: str = ""
    text: str = ""


class LoopbackHub:
    """A server in a thread; `url` is its address."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.cut_uploads = False  # break the upload of large files off half-way
        hub = self

        class Handler(RequestHandler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def sent(self, method: str, pattern: str) -> list[str]:
        """Paths of the requests of this method so far that match the pattern."""
        return [path for m, path in self.requests if m == method and re.search(pattern, path)]


class RequestHandler(BaseHTTPRequestHandler):
    state: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, self.path))
        try:
            length = int(self.headers.get("Content-Length") or 0)
            self.handle_request("" if self.command == "PUT" else self.rfile.read(length).decode(), length)
        except Answer as answer:
            headers = {"X-Error-Code": answer.code} if answer.code else {}
            self.reply(answer.text.encode(), headers, answer.status)

    do_HEAD = do_POST = do_PUT = do_GET

    def reply(self, content: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def user(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in TOKENS:
            raise Answer(401, text="Invalid credentials")
        return TOKENS.get(given)

    def repository(self, name: str, write: bool = False) -> Repository:
        found, owner = self.state.repositories.get(name), name.split("/")[0]
        if found is None or (found.private and self.user() != owner):
            raise Answer(404, "RepoNotFound", "Repository not found")
        if found.gated:
            raise Answer(403, "GatedRepo", "Access to this repository is restricted")
        if write and self.user() != owner:
            raise Answer(403, text="Forbidden")
        return found

    def handle_request(self, body: str, length: int) -> None:
        for pattern, answer in ROUTES.items():
            method, _, path = pattern.partition(" ")
            if self.command in method.split("|") and (match := re.fullmatch(path, self.path)):
                return answer(self, body=body, length=length, **match.groupdict())
        raise Answer(404, "EntryNotFound", f"no {self.command} {self.path} here")

    def whoami(self, **_: Any) -> None:
        if (user := self.user()) is None:
            raise Answer(401)
        role = "read" if "reader" in self.headers["Authorization"] else "write"
        self.reply({"name": user, "type": "user", "orgs": [], "auth": {"accessToken": {"role": role}}})

    def create(self, body: str, **_: Any) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or self.user()
        if self.user() is None or owner != self.user():
            raise Answer(403, text="Forbidden")
        name = f"{owner}/{asked['name']}"
        fresh = name not in self.state.repositories
        if fresh:
            repository = Repository(private=asked.get("visibility") == "private")
            repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
            self.state.repositories[name] = repository
        self.reply({"url": f"{self.state.url}/{name}"}, status=200 if fresh else 409)

    def branch(self, name: str, revision: str, **_: Any) -> None:
        repository = self.repository(name, write=True)
        if revision in repository.branches:
            raise Answer(409)
        repository.branches[revision] = repository.branches["main"]
        self.reply({})

    def validate_yaml(self, body: str, **_: Any) -> None:
        metadata = json.loads(body)["content"].split("---")[1]
        if re.search(r"^license: (?!apache-2.0$)", metadata, re.MULTILINE):
            self.reply(b'"license" must be one of a list', status=400)
        else:
            self.reply({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str, body: str, **_: Any) -> None:
        there = self.repository(name, write=True).files(revision)
        self.reply({"files": [
            {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False,
             "oid": oid_of(path, there[path]) if path in there else None}
            for path in (file["path"] for file in json.loads(body)["files"])
        ]})  # fmt: skip

    def lfs_batch(self, name: str, body: str, **_: Any) -> None:
        self.repository(name, write=True)
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.state.large:
                item["actions"] = {"upload": {"href": f"{self.state.url}/large/{item['oid']}", "header": {}}}
        self.reply({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str, length: int, **_: Any) -> None:
        if self.state.cut_uploads:
            self.rfile.read(length // 2)
            self.connection.close()
            self.close_connection = True
            return
        content = self.rfile.read(length)
        assert hashlib.sha256(content).hexdigest() == oid
        self.state.large[oid] = content
        self.reply({})

    def commit(self, name: str, revision: str, body: str, **_: Any) -> None:
        repository, message, files = self.repository(name, write=True), "", {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.state.large[value["oid"]]
        sha = repository.commit(revision, files, message)
        self.reply({"commitUrl": f"{self.state.url}/{name}/commit/{sha}", "commitOid": sha})

    def files_at(self, name: str, revision: str | None) -> tuple[Repository, str, dict[str, bytes]]:
        repository = self.repository(name)
        sha = repository.branches.get(revision or "main", revision)
        if sha not in repository.commits:
            raise Answer(404, "RevisionNotFound", "Invalid rev id")
        return repository, sha, repository.commits[sha]

    def info(self, name: str, revision: str | None = None, **_: Any) -> None:
        repository, sha, files = self.files_at(name, revision)
        siblings = [{"rfilename": path} for path in files]
        self.reply({"id": name, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings})

    def tree(self, name: str, revision: str, under: str | None = None, **_: Any) -> None:
        files = {
            p: c
            for p, c in self.files_at(name, revision)[2].items()
            if p.startswith(under + "/" if under else "")
        }
        if not files:
            raise Answer(404, "EntryNotFound")
        self.reply([{"type": "file", "path": p, "size": len(c), "oid": oid_of(p, c)} for p, c in files.items()])

    def resolve(self, name: str, revision: str, path: str, **_: Any) -> None:
        sha, files = self.files_at(name, revision)[1:]
        if path not in files:
            raise Answer(404, "EntryNotFound", "Entry not found")
        self.reply(files[path], {"X-Repo-Commit": sha, "ETag": f'"{oid_of(path, files[path])}"'})


NAME, REVISION = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>[\w.-]+)"
ROUTES: dict[str, Callable[..., None]] = {
    "GET /api/whoami-v2": RequestHandler.whoami,
    "POST /api/repos/create": RequestHandler.create,
    "POST /api/validate-yaml": RequestHandler.validate_yaml,
    f"POST /api/models/{NAME}/branch/{REVISION}": RequestHandler.branch,
    f"POST /api/models/{NAME}/preupload/{REVISION}": RequestHandler.preupload,
    f"POST /api/models/{NAME}/commit/{REVISION}": RequestHandler.commit,
    rf"POST /{NAME}\.git/info/lfs/objects/batch": RequestHandler.lfs_batch,
    "PUT /large/(?P<oid>[0-9a-f]+)": RequestHandler.lfs_put,
    f"GET /api/models/{NAME}": RequestHandler.info,
    f"GET /api/models/{NAME}/revision/{REVISION}": RequestHandler.info,
    f"GET /api/models/{NAME}/tree/{REVISION}(/(?P<under>.+))?": RequestHandler.tree,
    f"GET|HEAD /{NAME}/resolve/{REVISION}/(?P<path>.+)": RequestHandler.resolve,
}
