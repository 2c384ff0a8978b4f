"""A server that speaks enough of the Hugging Face Hub's protocol for its unmodified client.

    python tests/hub_server.py 8765        then HF_ENDPOINT=http://127.0.0.1:8765 HF_HUB_DISABLE_XET=1

Endpoints as called by huggingface_hub 2.4: create, preupload, commit (ndjson, regular and LFS), branches,
tags, refs, tree, paths-info, revision info, LFS batch + PUT + verify, resolve with Range; data sets can be
read (tests put their files into `Hub.repos`). Repositories live in memory. Tests look at `Hub.log` (requests) and set `Hub.faults` (status to answer next).
"""

import base64
import hashlib
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

if TYPE_CHECKING:
    import pytest

ATTRIBUTES = "\n".join(
    f"*.{e} filter=lfs diff=lfs merge=lfs -text" for e in ("onnx", "gguf", "safetensors")
).encode()
LFS_SUFFIXES = (".onnx", ".gguf", ".safetensors", ".parquet")


@dataclass
class Repo:
    """Commits are whole trees: path to (bytes, is LFS)."""

    private: bool = False
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, tuple[bytes, bool]], parent: str) -> str:
        listing = "".join(f"{n}{hashlib.sha1(b).hexdigest()}" for n, (b, _) in sorted(files.items()))
        oid = hashlib.sha1(f"{parent}{len(self.commits)}{listing}".encode()).hexdigest()
        self.commits[oid] = files
        return oid

    def resolve(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None


@dataclass
class Hub:
    """The state of the server, open to tests."""

    tokens: dict[str, str] = field(default_factory=lambda: {"hf_writer": "write", "hf_reader": "read"})
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)  # part of "METHOD path" -> status, until removed

    def commits(self, repo: str) -> int:
        return sum(entry.startswith(f"POST /api/models/{repo}/commit/") for entry in self.log)


def error(status: int, message: str, code: str = "") -> JSONResponse:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return JSONResponse({"error": message}, status, headers)


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes, lfs: bool) -> dict[str, Any]:
    found = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    if lfs:
        sha = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
        found["oid"] = blob_id(f"pointer {sha}".encode())
    return found


def make_app(hub: Hub) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def gate(request: Request, call_next):  # type: ignore[no-untyped-def]
        what = f"{request.method} {request.url.path}"
        hub.log.append(what)
        for part, status in hub.faults.items():
            if part in what:
                return error(status, "made to fail by the test")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in hub.tokens and not request.url.path.startswith("/lfs/"):
            return error(401, "Invalid credentials in Authorization header")
        reads = request.method in ("GET", "HEAD") or "paths-info" in what or "validate-yaml" in what
        if not reads and hub.tokens.get(token) == "read":
            return error(403, "this token has no write access")
        return await call_next(request)

    def repo_of(ns: str, name: str) -> Repo | None:
        return hub.repos.get(f"{ns}/{name}")

    missing = lambda: error(404, "Repository not found", "RepoNotFound")  # noqa: E731
    unknown = lambda: error(404, "Invalid rev id", "RevisionNotFound")  # noqa: E731

    @app.get("/api/whoami-v2")
    def whoami(request: Request) -> Any:
        role = hub.tokens[request.headers.get("authorization", "").removeprefix("Bearer ")]
        orgs = [{"name": "speech-team", "roleInOrg": "write"}, {"name": "readers", "roleInOrg": "read"}]
        return {"name": "malgil", "type": "user", "orgs": orgs, "auth": {"accessToken": {"role": role}}}

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Any:
        content = (await request.json())["content"]
        if not content.startswith("---\n"):
            return JSONResponse({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        return {"errors": [], "warnings": []}

    @app.post("/api/repos/create")
    async def create(request: Request) -> Any:
        body = await request.json()
        name = f"{body['organization']}/{body['name']}"
        if name in hub.repos:
            return JSONResponse({"error": "You already created this model repo", "url": name}, 409)
        repo = Repo(body.get("visibility") == "private")
        repo.branches["main"] = repo.commit({".gitattributes": (ATTRIBUTES, False)}, "")
        hub.repos[name] = repo
        return {"url": str(request.base_url) + name, "name": name}

    @app.get("/api/models/{ns}/{name}/refs")
    def refs(ns: str, name: str) -> Any:
        if not (repo := repo_of(ns, name)):
            return missing()
        as_refs = lambda kind, found: [  # noqa: E731
            {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in found.items()
        ]
        return {
            "branches": as_refs("heads", repo.branches),
            "tags": as_refs("tags", repo.tags),
            "converts": [],
        }

    @app.api_route("/api/datasets/{ns}/{name}/{kind}/{ref}", methods=["GET"])
    @app.api_route("/api/models/{ns}/{name}/{kind}/{ref}", methods=["POST", "DELETE", "GET"])
    async def by_kind(request: Request, ns: str, name: str, kind: str, ref: str) -> Any:
        if not (repo := repo_of(ns, name)):
            return missing()
        body = await request.body()
        if kind == "branch":
            return branch(repo, request.method, ref, json.loads(body or b"{}"))
        if kind == "tag":
            return tag(repo, request.method, ref, json.loads(body or b"{}"))
        if kind == "commit":
            return commit(repo, f"{request.base_url}{ns}/{name}", ref, body)
        if not (head := repo.resolve(ref)):
            return unknown()
        files = repo.commits[head]
        if kind == "preupload":
            return preupload(files, json.loads(body))
        if kind == "revision":
            return {"id": f"{ns}/{name}", "sha": head, "siblings": [{"rfilename": n} for n in files]}
        if kind == "tree":
            return [entry(n, *content) for n, content in sorted(files.items())]
        return error(404, f"no such endpoint: {kind}")

    def branch(repo: Repo, method: str, name: str, body: dict[str, Any]) -> Any:
        if method == "DELETE":
            return Response(status_code=200 if repo.branches.pop(name, None) else 404)
        if name in repo.branches:
            return error(409, "Reference already exists")
        head = repo.resolve(body.get("startingPoint", "main"))
        if not head:
            return unknown()
        repo.branches[name] = head
        return {}

    def tag(repo: Repo, method: str, ref: str, body: dict[str, Any]) -> Any:
        if method == "DELETE":
            return Response(status_code=200) if repo.tags.pop(ref, None) else unknown()
        if body["tag"] in repo.tags:
            return error(409, "Tag reference exists already")
        head = repo.resolve(ref)
        if not head:
            return unknown()
        repo.tags[body["tag"]] = head
        return {}

    def preupload(files: dict[str, tuple[bytes, bool]], body: dict[str, Any]) -> Any:
        answer = []
        for wanted in body["files"]:
            path = wanted["path"]
            lfs = path.endswith(LFS_SUFFIXES)
            oid = None
            if path in files:
                content, is_lfs = files[path]
                oid = hashlib.sha256(content).hexdigest() if is_lfs else blob_id(content)
            mode = "lfs" if lfs else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answer}

    def commit(repo: Repo, name: str, ref: str, body: bytes) -> Any:
        rows = [json.loads(line) for line in body.splitlines()]
        if ref not in repo.branches:
            return unknown()
        head = repo.branches[ref]
        expected = rows[0]["value"].get("parentCommit")
        if expected and expected != head:
            return error(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[head])
        for row in rows[1:]:
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif row["key"] == "lfsFile":
                if value["oid"] not in hub.objects:
                    return error(422, f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = (hub.objects[value["oid"]], True)
            else:
                files.pop(value["path"], None)
        repo.branches[ref] = oid = repo.commit(files, head)
        return {"commitUrl": f"{name}/commit/{oid}", "commitOid": oid, "success": True}

    @app.post("/api/models/{ns}/{name}/paths-info/{ref}")
    async def paths_info(request: Request, ns: str, name: str, ref: str) -> Any:
        repo = repo_of(ns, name)
        head = repo.resolve(ref) if repo else None
        if repo is None or head is None:
            return missing() if repo is None else unknown()
        paths = (await request.form()).getlist("paths")
        return [entry(str(p), *repo.commits[head][str(p)]) for p in paths if p in repo.commits[head]]

    @app.post("/{ns}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request, ns: str, name: str) -> Any:
        base, answer = str(request.base_url), []
        for wanted in (await request.json())["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in hub.objects:
                found["actions"] = {
                    "upload": {"href": f"{base}lfs/{wanted['oid']}"},
                    "verify": {"href": f"{base}lfs/{wanted['oid']}/verify"},
                }
            answer.append(found)
        return {"transfer": "basic", "objects": answer}

    @app.put("/lfs/{oid}")
    async def put(request: Request, oid: str) -> Any:
        content = await request.body()
        if hashlib.sha256(content).hexdigest() != oid:
            return error(400, "other bytes than announced")
        hub.objects[oid] = content
        return Response(headers={"ETag": oid})

    @app.post("/lfs/{oid}/verify")
    def verify(oid: str) -> Any:
        return Response(status_code=200 if oid in hub.objects else 404)

    @app.api_route("/datasets/{ns}/{name}/resolve/{ref}/{path:path}", methods=["GET", "HEAD"])
    @app.api_route("/{ns}/{name}/resolve/{ref}/{path:path}", methods=["GET", "HEAD"])
    def resolve(request: Request, ns: str, name: str, ref: str, path: str) -> Any:
        repo = repo_of(ns, name)
        head = repo.resolve(ref) if repo else None
        if repo is None or head is None:
            return missing() if repo is None else unknown()
        if path not in repo.commits[head]:
            return error(404, "Entry not found", "EntryNotFound")
        content, lfs = repo.commits[head][path]
        etag = hashlib.sha256(content).hexdigest() if lfs else blob_id(content)
        headers = {"X-Repo-Commit": head, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if lfs:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        status = 200
        if wanted := request.headers.get("range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[start : end + 1], 206
        if request.method == "HEAD":
            return Response(status_code=status, headers={**headers, "Content-Length": str(len(content))})
        return Response(content, status, headers, media_type="application/octet-stream")

    return app


def start(hub: Hub) -> tuple[uvicorn.Server, str]:
    """Serves `hub` from a thread on a free port; returns the server (set should_exit) and its address."""
    server = uvicorn.Server(uvicorn.Config(make_app(hub), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server of the Hub's API did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    return server, f"http://127.0.0.1:{port}"


def redirect(patch: "pytest.MonkeyPatch", address: str, cache: Path) -> None:
    """Sends huggingface_hub, in this process, to the server at `address` with a cache of its own."""
    import huggingface_hub.constants as constants

    patch.setenv("HF_TOKEN", "hf_reader")
    patch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))


def files_of(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """A folder as the content of a commit."""
    return {path.name: (path.read_bytes(), path.suffix in LFS_SUFFIXES) for path in folder.iterdir()}


if __name__ == "__main__":
    uvicorn.run(make_app(Hub()), host="127.0.0.1", port=int(sys.argv[1]))
