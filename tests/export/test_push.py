"""An export on the hub: what is uploaded, to whom it is shown, and what is refused. A small server is the hub."""

import base64
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import export_run
from dynabert_jax.export.manifest import files_in
from dynabert_jax.export.push import PushError, check_push, check_whole, push_export
from dynabert_jax.runs.files import sealed, unsealed
from tiny_run import Finished

TOKEN = "hf_secret"


class FakeHub:
    """Repositories by name, with their files; which of them are private; and what they were asked."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}  # by checksum, as they are uploaded before the commit
        self.commits: list[str] = []
        self.address = ""

    def create(self, name: str, private: bool) -> None:
        self.files[name], self.private[name] = {".gitattributes": b""}, private


def make_handler(hub: FakeHub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        """The requests that huggingface_hub makes to create a repository and to upload a folder."""

        def log_message(self, *args: object) -> None:
            pass

        def reply(self, value: Any, status: int = 200, **headers: str) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            for key, header in headers.items():
                self.send_header(key.replace("_", "-"), header)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            name = "/".join(path.split("/")[2:4])
            if name not in hub.files:
                return self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            rows = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in hub.files[name].items()]
            if "/tree/" in path:
                return self.reply(rows)
            siblings = [{"rfilename": row["path"]} for row in rows]
            return self.reply({"id": name, "private": hub.private[name], "sha": "0" * 40, "siblings": siblings})

        def do_PUT(self) -> None:
            hub.large[self.path.rpartition("/")[2]] = self.body()
            self.reply({}, ETag='"x"')

        def do_POST(self) -> None:
            path, body = self.path.partition("?")[0].strip("/"), self.body()
            if path == "api/validate-yaml":
                return self.reply({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.reply({"error": "Invalid username or password."}, 401)
            if path == "api/repos/create":
                return self.create(json.loads(body))
            if path.endswith("/info/lfs/objects/batch"):
                return self.batch(json.loads(body))
            name = "/".join(path.split("/")[2:4])
            if "/preupload/" in path:
                files = [row["path"] for row in json.loads(body)["files"]]
                modes = [{"path": p, "uploadMode": "lfs" if p.endswith("s") else "regular"} for p in files]
                return self.reply({"files": [mode | {"shouldIgnore": False} for mode in modes]})
            if "/commit/" in path:
                return self.commit(name, [json.loads(line) for line in body.splitlines()])
            return self.reply({"error": f"no such request: {path}"}, 400)

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name.startswith("others/"):
                return self.reply({"error": "You don't have the rights to create a model under this namespace"}, 403)
            if name in hub.files:
                return self.reply({"error": "You already created this model repo", "url": self.url(name)}, 409)
            hub.create(name, bool(asked.get("private", asked.get("visibility") == "private")))
            return self.reply({"url": self.url(name), "name": name})

        def url(self, name: str) -> str:
            return f"{hub.address}/{name}"

        def batch(self, asked: dict[str, Any]) -> None:
            objects = [
                one | {"actions": {"upload": {"href": f"{hub.address}/large/{one['oid']}"}}} for one in asked["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": objects})

        def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                value = line["value"]
                match line["key"]:
                    case "header":
                        hub.commits.append(value["summary"])
                    case "file":
                        hub.files[name][value["path"]] = base64.b64decode(value["content"])
                    case "lfsFile":
                        hub.files[name][value["path"]] = hub.large[value["oid"]]
                    case "deletedFile":
                        del hub.files[name][value["path"]]
            url = f"{self.url(name)}/commit/{'0' * 40}"
            return self.reply({"success": True, "commitUrl": url, "commitOid": "0" * 40})

    return Handler


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "half"
    export_run(finished.folder, "hf", folder, subs=["w1_d0.5"], license="mit")
    return folder


def dynabert(hub: FakeHub, *arguments: Any, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: huggingface_hub reads its address when it is imported."""
    own = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    environment = {**os.environ, **own, **settings}
    command = [sys.executable, "-m", "dynabert_jax", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*files_in(folder), "manifest.json")}


def test_an_export_is_pushed_whole_to_a_private_repository(hub: FakeHub, exported: Path) -> None:
    done = dynabert(hub, "push", exported, "me/half")
    assert (done.returncode, done.stdout) == (0, f"pushed to {hub.address}/me/half (private)\n"), done.stderr
    assert hub.private == {"me/half": True}
    assert hub.files["me/half"] == {".gitattributes": b"", **contents(exported)}
    assert hub.commits == ["Export of w1_d0.5 (hf)"]
    assert TOKEN not in done.stdout + done.stderr


def test_a_new_export_replaces_an_earlier_one(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    hub.create("me/half", private=False)
    hub.files["me/half"] |= {"manifest.json": b"{}", "model.onnx": b"an earlier one"}
    edited = Path(shutil.copytree(exported, tmp_path / "edited"))
    with (edited / "README.md").open("a") as card:
        card.write("\nTrained by me.\n")
    refused = dynabert(hub, "push", edited, "me/half")
    assert refused.returncode == 2
    assert "me/half is public; allow that with --public" in refused.stderr
    assert "model.onnx" in hub.files["me/half"]
    done = dynabert(hub, "push", edited, "me/half", "--public", "--json")
    assert json.loads(done.stdout) == {"name": "me/half", "url": f"{hub.address}/me/half", "public": True}
    assert hub.files["me/half"] == {".gitattributes": b"", **contents(edited)}
    assert b"Trained by me" in hub.files["me/half"]["README.md"]


def test_an_export_is_made_and_pushed_by_one_command(hub: FakeHub, finished: Finished, tmp_path: Path) -> None:
    arguments = ("export", finished.folder, "--sub", "w1_d0.5", "--format", "hf", "--out", tmp_path / "out")
    done = dynabert(hub, *arguments, "--push", "me/half", "--license", "apache-2.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"written to {tmp_path / 'out'}\npushed to {hub.address}/me/half (private)\n")
    assert b"license: apache-2.0" in hub.files["me/half"]["README.md"]


def test_what_the_hub_refuses_is_said_with_what_to_do(hub: FakeHub, exported: Path) -> None:
    hub.create("me/web", private=True)
    hub.files["me/web"]["index.html"] = b"a page"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for name, settings, message in (
            ("me/web", {}, "me/web holds index.html and no export, so it is not replaced; name another repository"),
            ("others/half", {}, "others/half cannot be pushed: the token may not write to others/half; log in with"),
            ("me/half", {"HF_TOKEN": "hf_old"}, "me/half cannot be pushed: the token is not valid; log in with"),
            ("me/half", {"HF_ENDPOINT": closed}, "me/half cannot be pushed: the hub cannot be reached ("),
        ):
            done = dynabert(hub, "push", exported, name, **settings)
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert message in done.stderr
            assert "Traceback" not in done.stderr
    assert hub.files == {"me/web": {".gitattributes": b"", "index.html": b"a page"}}


def test_what_cannot_be_pushed_is_said_before_an_export_is_made(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    with pytest.raises(PushError, match="while HF_HUB_OFFLINE is set"):
        check_push("me/half")
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    check_push("me/half")
    for name, message in (("half", r"such as me/half; got 'half'"), ("a/b/c", "'a/b/c' is no name of a repository")):
        with pytest.raises(PushError, match=message):
            export_run(finished.folder, "hf", tmp_path / "out", subs=["w1_d0.5"], push=name)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PushError, match="needs a token of the hub; log in with `hf auth login`, or set HF_TOKEN"):
        export_run(finished.folder, "hf", tmp_path / "out", subs=["w1_d0.5"], push="me/half")
    with pytest.raises(ExportError, match="name a repository with --push, or leave it out"):
        export_run(finished.folder, "hf", tmp_path / "out", subs=["w1_d0.5"], public=True)
    assert not any(tmp_path.iterdir())


def test_only_a_whole_export_is_pushed(exported: Path, finished: Finished, tmp_path: Path) -> None:
    assert check_whole(exported).format == "hf"
    with pytest.raises(ExportError, match=r"is no export with a manifest\.json; make one with `dynabert export`"):
        push_export(finished.folder, "me/half")
    with pytest.raises(ExportError, match="is no export"):
        push_export(tmp_path / "nothing", "me/half")
    copied = Path(shutil.copytree(exported, tmp_path / "copied"))
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"notes\.txt is not of this export; remove it"):
        push_export(copied, "me/half")
    (copied / "notes.txt").unlink()
    (copied / "README.md").unlink()
    with pytest.raises(ExportError, match=r"README\.md is missing; export it again"):
        push_export(copied, "me/half")
    (copied / "README.md").touch()
    with (copied / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ExportError, match=r"model\.safetensors is damaged, or was changed .+ export it again"):
        push_export(copied, "me/half")
    manifest = unsealed((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(sealed(manifest | {"files": list(manifest["files"])}))
    with pytest.raises(ExportError, match="by an older version, without checksums; export it again"):
        push_export(copied, "me/half")
