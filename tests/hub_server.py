"""A small Hub on this machine, for tests that push and pull over HTTP: repositories in memory, the endpoints that
`huggingface_hub`, `datasets` and `evaluate` call, nothing else.

    with hub_server() as hub:
        hub.faults.append(Fault("PUT /lfs", status=503, times=2))
        subprocess.run([...], env=os.environ | hub.environment(tmp_path))

The libraries read `HF_ENDPOINT` when they are imported, so what talks to it is a process of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.append(str(Path(__file__).parent))
import hub_card_rules  # noqa: E402

LFS_SUFFIXES = (".parquet", ".safetensors", ".npz", ".wav", ".bin")
OWNER = "x"
"""The token that may read and write everything; any other one is a stranger's."""


@dataclass
class Repo:
    """One repository: a snapshot of all files for each commit."""

    private: bool
    gated: bool = False  # everybody sees that it is there, only its owner gets its files
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)  # name -> commit
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Makes `files` the state of a branch; the new commit's hash."""
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a branch, tag or commit; KeyError when there is none."""
        names = self.tags | self.branches
        sha = names.get(revision.removeprefix("refs/heads/"), revision)
        return sha, self.commits[sha]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD /path" begins with `request`, `after` some others.

    The server answers `status`; without one it hangs up in the middle.
    """

    request: str
    status: int | None = None
    times: int = 1
    after: int = 0


class Hub:
    """State of the server. `requests` are all that were made, as "METHOD /path"; `faults` those that go wrong."""

    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # sha256 -> what was uploaded
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.url = ""

    def files(self, repo: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        """The files of a repository."""
        return self.repos[kind, repo].resolve(revision)[1]

    def environment(self, home: Path, token: str = OWNER) -> dict[str, str]:
        """Variables of a process that is to talk to this Hub as the user of a token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_EVALUATE_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serves a new, empty Hub on a free port for as long as the block lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    """An answer that is an error: status and the Hub's own code for it."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing goes to the terminal; `Hub.requests` has it all."""

    def do_GET(self):  # noqa: N802
        self._answer("GET")

    def do_HEAD(self):  # noqa: N802
        self._answer("HEAD")

    def do_POST(self):  # noqa: N802
        self._answer("POST")

    def do_PUT(self):  # noqa: N802
        self._answer("PUT")

    def do_DELETE(self):  # noqa: N802
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.query = parse_qs(parts.query)
        self.hub.requests.append(f"{method} {path}")
        fault = next((f for f in self.hub.faults if f.times and f"{method} {path}".startswith(f.request)), None)
        if fault and fault.after:
            fault.after, fault = fault.after - 1, None
        if fault:
            fault.times -= 1
            if fault.status is None:
                self.rfile.read1(1000)  # of what the client sends, a part arrives
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
        self.body = self._read_body()
        try:
            if fault:
                raise _Refused(fault.status, "", "the Hub is out of order, says the test")
            for methods, pattern, function in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method in methods.split():
                    function(self, **match.groupdict())
                    return
            raise _Refused(404, "", f"no such endpoint: {method} {path}")
        except _Refused as error:
            self._send(
                error.status, {"error": str(error)}, {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            )

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content, headers: dict | None = None, length: int | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json"} | (headers or {})
        for name, value in {**headers, "Content-Length": str(len(data) if length is None else length)}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # ---- repositories

    def _repo(self, kind: str, repo: str) -> Repo:
        found = self.hub.repos.get((kind or "models", repo))
        if found is None or (found.private and not self._is_owner()):
            raise _Refused(404, "RepoNotFound", f"there is no repository {repo}")
        return found

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {OWNER}"

    def _files(self, kind: str, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        try:
            return self._repo(kind, repo).resolve(revision or "main")
        except KeyError:
            raise _Refused(404, "RevisionNotFound", f"there is no revision {revision}") from None

    def whoami(self):
        """Who the token belongs to."""
        if not self._is_owner():
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        token = {"accessToken": {"displayName": "test", "role": "write"}, "type": "access_token"}
        self._send(200, {"type": "user", "name": "me", "fullname": "Me", "orgs": [{"name": "org"}], "auth": token})

    def validate_yaml(self):
        """Whether the head of a card is as the Hub wants it."""
        wish = json.loads(self.body)
        errors = [{"message": message} for message in hub_card_rules.faults(wish["content"], wish["repoType"])]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def create(self):
        """A new repository with an empty first commit."""
        wish = json.loads(self.body)
        owner, kind = wish.get("organization") or "me", f"{wish.get('type') or 'model'}s"
        name = f"{owner}/{wish['name']}"
        prefix = "" if kind == "models" else f"{kind}/"
        answer = {"url": f"{self.hub.url}/{prefix}{name}", "name": name, "id": name}
        if (kind, name) in self.hub.repos:
            self._send(409, {**answer, "error": f"{name} exists"})
            return
        repo = self.hub.repos[kind, name] = Repo(wish.get("private") or wish.get("visibility") == "private")
        repo.commit({".gitattributes": b""})
        self._send(200, answer)

    def info(self, kind: str, repo: str, revision: str | None = None):
        """What `repo_info` shows."""
        sha, files = self._files(kind, repo, revision)
        siblings = [{"rfilename": name} for name in sorted(files)]
        known = {"id": repo, "sha": sha, "private": self._repo(kind, repo).private, "siblings": siblings}
        gated = "manual" if self._repo(kind, repo).gated else False
        self._send(200, {**known, "_id": sha, "tags": [], "downloads": 0, "likes": 0, "gated": gated})

    def refs(self, kind: str, repo: str):
        """Branches and tags."""
        found = self._repo(kind, repo)
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in found.branches.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in found.tags.items()]
        self._send(200, {"branches": branches, "tags": tags, "converts": []})

    def tag(self, kind: str, repo: str, revision: str):
        """A name for a revision."""
        self._name(self._repo(kind, repo).tags, json.loads(self.body)["tag"], self._files(kind, repo, revision)[0])

    def branch(self, kind: str, repo: str, revision: str):
        """A new branch, beginning at a revision."""
        start = json.loads(self.body or b"{}").get("startingPoint")
        self._name(self._repo(kind, repo).branches, revision, self._files(kind, repo, start)[0])

    def _name(self, names: dict[str, str], name: str, sha: str) -> None:
        if name in names:
            raise _Refused(409, "", f"{name} exists")
        names[name] = sha
        self._send(200, {})

    def tree(self, kind: str, repo: str, revision: str, path: str = ""):
        """Files and folders below a path, in one page."""
        _, files = self._files(kind, repo, revision)
        path = (path or "").strip("/")
        below = {name: data for name, data in files.items() if not path or name.startswith(f"{path}/")}
        if path and not below:
            raise _Refused(404, "EntryNotFound", f"there is no folder {path}")
        entries = [_entry(name, data) for name, data in sorted(below.items())]
        folders = {p.as_posix() for name in below for p in Path(name).parents if p.as_posix() not in (".", path)}
        entries += [{"type": "directory", "path": name, "oid": _blob(name.encode())} for name in sorted(folders)]
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            depth = path.count("/") + 1 if path else 0
            entries = [entry for entry in entries if entry["path"].count("/") == depth]
        self._send(200, entries)

    def paths_info(self, kind: str, repo: str, revision: str):
        """The entries of some paths."""
        _, files = self._files(kind, repo, revision)
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        paths = json.loads(self.body)["paths"] if is_json else parse_qs(self.body.decode()).get("paths", [])
        entries = [_entry(path, files[path]) for path in paths if path in files]
        folders = [p for p in paths if p not in files and any(name.startswith(f"{p}/") for name in files)]
        entries += [{"type": "directory", "path": path, "oid": _blob(path.encode())} for path in folders]
        self._send(200, entries)

    # ---- uploads

    def preupload(self, kind: str, repo: str, revision: str):
        """Whether files travel inside the commit or on their own."""
        _, there = self._files(kind, repo, revision)
        answers = []
        for path in (wanted["path"] for wanted in json.loads(self.body)["files"]):
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            known = {"oid": _etag(path, there[path])} if path in there else {}
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        self._send(200, {"files": answers})

    def lfs_batch(self, repo: str, kind: str = ""):
        """Where large files are to be sent; nothing for those that are here."""
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            where = {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}
            actions = {"upload": where, "verify": {"href": f"{self.hub.url}/lfs-verify"}}
            objects.append({**wanted, **({} if wanted["oid"] in self.hub.objects else {"actions": actions})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str):
        """A large file."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content does not have this hash")
        self.hub.objects[oid] = self.body
        self._send(200, {})

    def lfs_verify(self):
        """Whether a large file arrived."""
        wanted = json.loads(self.body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise _Refused(404, "", "the object is not here")
        self._send(200, {})

    def commit(self, kind: str, repo: str, revision: str):
        """Additions and deletions in one."""
        _, files = self._files(kind, repo, revision)
        files = dict(files)
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            elif item["key"] == "deletedFolder":
                files = {name: data for name, data in files.items() if not name.startswith(value["path"])}
        sha = self._repo(kind, repo).commit(files, revision)
        self._send(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    # ---- downloads

    def resolve(self, repo: str, revision: str, file: str, kind: str = ""):
        """A file, or the part of it that a `Range` asks for."""
        sha, files = self._files(kind, repo, revision)
        if self._repo(kind, repo).gated and not self._is_owner():
            raise _Refused(403, "GatedRepo", f"access to {repo} is restricted; ask its authors")
        if file not in files:
            raise _Refused(404, "EntryNotFound", f"there is no file {file}")
        data = files[file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_etag(file, data)}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Size": str(len(data)), "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and data:
            start, stop = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
            self._send(206, data[start : stop + 1], headers)
        else:
            self._send(200, data, headers)


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _etag(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if name.endswith(LFS_SUFFIXES) else _blob(data)


def _entry(name: str, data: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(data), "oid": _blob(data)}
    if name.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
_PREFIX = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", r"/api/repos/create", _Handler.create),
    ("GET", _API, _Handler.info),
    ("GET", rf"{_API}/revision/{_REVISION}", _Handler.info),
    ("GET", rf"{_API}/refs", _Handler.refs),
    ("GET", rf"{_API}/tree/{_REVISION}(?P<path>/.*)?", _Handler.tree),
    ("POST", rf"{_API}/paths-info/{_REVISION}", _Handler.paths_info),
    ("POST", rf"{_API}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"{_API}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"{_API}/tag/{_REVISION}", _Handler.tag),
    ("POST", rf"{_API}/branch/{_REVISION}", _Handler.branch),
    ("POST", rf"{_PREFIX}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("POST", r"/lfs-verify", _Handler.lfs_verify),
    ("GET HEAD", rf"{_PREFIX}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve),
]
