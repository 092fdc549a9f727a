"""A model hub in memory that the real `huggingface_hub` client can push to and pull from."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_a_token_for_tests"
LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "llama2", "llama3", "unknown", "other")
"""Those of the Hub's list that the tests use."""

PIPELINES = ("image-text-to-text", "visual-question-answering")
LFS_SUFFIXES = (".safetensors", ".png", ".bin")


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """Every commit is the whole tree: a dict of path and content."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def tree(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        wanted = self.head if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)

    def commit(self, files: dict[str, bytes]) -> str:
        content = "".join(f"{path}{git_sha(data)}" for path, data in sorted(files.items()))
        self.commits.append((hashlib.sha1(f"{len(self.commits)}{content}".encode()).hexdigest(), files))
        return self.head


@dataclass
class Fault:
    """What happens to requests whose "METHOD path" matches: the connection is cut, or a status is returned."""

    pattern: str
    status: int | None
    times: int


@dataclass
class FakeHub:
    """The state, the log of requests, and the faults to come."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    url: str = ""

    def create(self, name: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Make a repository without the client and return its commit."""
        repository = self.repositories[name] = Repository(private, [])
        return repository.commit({".gitattributes": b"*.safetensors filter=lfs\n", **files})

    def files(self, name: str) -> dict[str, bytes]:
        """What the main branch has."""
        return self.repositories[name].commits[-1][1]

    def fail(self, pattern: str, status: int | None = None, times: int = 1000) -> None:
        """Cut the connection (or return a status) for requests that match."""
        self.faults.append(Fault(pattern, status, times))

    def writes(self) -> list[str]:
        """The requests that change something, since the log was last cleared."""
        return [line for line in self.requests if not line.startswith(("GET", "HEAD")) and "preupload" not in line]


@contextmanager
def serve() -> Iterator[FakeHub]:
    """Run a hub on a free port."""
    hub = FakeHub()

    class BoundHandler(Handler):
        pass

    BoundHandler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """The routes that the client uses for models."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.read_body()
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        for fault in self.hub.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                return self.cut() if fault.status is None else self.send(fault.status, {"error": "a fault"})
        for pattern, name in ROUTES:
            match = re.fullmatch(pattern, line)
            if match:
                return getattr(self, name)(body, **match.groupdict())
        return self.send(404, {"error": f"no route for {line}"})

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def cut(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            chunks += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return chunks

    def send(self, status: int, value: Any = None, *, data: bytes | None = None, **headers: str) -> None:
        content = json.dumps(value).encode() if data is None else data
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        """Find a repository, or answer that it's not there (for strangers: that they may not know)."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.logged_in()):
            self.send(404 if self.logged_in() else 401, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'you'}/{wanted['name']}"
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        if not self.logged_in():
            return self.send(401, {"error": "not logged in"})
        if name in self.hub.repositories:
            return self.send(409, {**answer, "error": "exists"}, X_Error_Message="exists")
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.create(name, {}, private=private)
        return self.send(200, answer)

    def validate(self, body: bytes) -> None:
        errors = front_matter_errors(json.loads(body)["content"])
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        found = repository.tree(revision or "main")
        if found is None:
            return self.send(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
        card = found[1].get("README.md", b"").decode()
        license = re.search(r"^license: (.*)$", card, re.MULTILINE)
        answer = {
            "id": name,
            "sha": found[0],
            "private": repository.private,
            "tags": [],
            "siblings": [describe(path, data) for path, data in found[1].items()],
            "cardData": {"license": license[1]} if license else None,
        }
        return self.send(200, answer)

    def refs(self, body: bytes, name: str) -> None:
        repository = self.repository(name)
        if repository is not None:
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in repository.tags.items()
            ]
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
            self.send(200, {"branches": [branch], "converts": [], "tags": tags})

    def tag(self, body: bytes, name: str, revision: str) -> None:
        repository = self.repository(name)
        if repository is not None:
            wanted = json.loads(body)["tag"]
            if wanted in repository.tags:
                return self.send(409, {"error": "tag exists"})
            repository.tags[wanted] = repository.tree(revision)[0]
            self.send(200, {})
        return None

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self.repository(name) is not None:
            files = json.loads(body)["files"]
            self.send(
                200,
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                            "shouldIgnore": False,
                            "oid": None,
                        }
                        for file in files
                    ]
                },
            )

    def lfs_batch(self, body: bytes, name: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {**wanted, "authenticated": True}
            if wanted["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(answer)
        content = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self.send(200, data=content, Content_Type="application/vnd.git-lfs+json")

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.send(400, {"error": "not the object that was announced"})
        self.hub.objects[oid] = body
        return self.send(200, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        lines = [json.loads(line) for line in body.splitlines()]
        [header] = [line["value"] for line in lines if line["key"] == "header"]
        if header.get("parentCommit") not in (None, repository.head):
            return self.send(412, {"error": "the branch moved"})
        files = dict(repository.commits[-1][1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files)
        return self.send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def tree(self, body: bytes, name: str, revision: str, folder: str | None = None) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        _, files = repository.tree(revision)
        found = [describe(path, data) for path, data in files.items() if path.startswith(f"{folder or ''}")]
        if folder and not found:
            return self.send(404, {"error": "no folder"}, X_Error_Code="EntryNotFound")
        rows = [{"type": "file", "path": row["rfilename"], "size": row["size"], "oid": row["blobId"]} for row in found]
        return self.send(200, rows)

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        found = repository.tree(revision)
        if found is None:
            return self.send(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
        sha, files = found
        if path not in files:
            return self.send(404, {"error": "no file"}, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        etag = f'"{git_sha(files[path])}"'
        return self.send(200, data=files[path], ETag=etag, X_Repo_Commit=sha, Content_Type="application/octet-stream")


def front_matter_errors(card: str) -> list[str]:
    """What the Hub would refuse in a model card, for the fields that our cards have."""
    if not card.startswith("---\n"):
        return []
    data = yaml.safe_load(card.split("---\n")[1])
    errors = []
    license, base = data.get("license"), data.get("base_model")
    if license is not None and license not in LICENSES:
        errors.append(f"license: {license!r} is not one of the Hub's")
    if license == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license_name"))):
        errors.append("license_name: needed for the license 'other', in small letters, digits, dots and dashes")
    if base is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        errors.append(f"base_model: {base!r} is no repository")
    if data.get("pipeline_tag", PIPELINES[0]) not in PIPELINES:
        errors.append("pipeline_tag: unknown task")
    for model in data.get("model-index", []):
        whole = all(
            result["task"].get("type")
            and result["dataset"].get("type")
            and result["dataset"].get("name")
            and result["metrics"]
            and all(metric.get("type") and "value" in metric for metric in result["metrics"])
            for result in model["results"]
        )
        if not (model.get("name") and model["results"] and whole):
            errors.append("model-index: a name, and task, dataset and metrics of each result are needed")
    return errors


def describe(path: str, data: bytes) -> dict[str, Any]:
    """A file as the API lists it."""
    row: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_sha(data)}
    if path.endswith(LFS_SUFFIXES):
        row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return row


MODEL = r"/api/models/(?P<name>[^/]+/[^/]+)"
ROUTES = [
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"GET {MODEL}", "info"),
    (rf"GET {MODEL}/revision/(?P<revision>[^/]+)", "info"),
    (rf"GET {MODEL}/refs", "refs"),
    (rf"GET {MODEL}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    (rf"POST {MODEL}/tag/(?P<revision>[^/]+)", "tag"),
    (rf"POST {MODEL}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"POST {MODEL}/commit/(?P<revision>[^/]+)", "commit"),
    (r"POST /(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
    (r"PUT /lfs/(?P<oid>\w+)", "lfs_put"),
    (r"(?:GET|HEAD) /(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]
