"""Finding a model: folders here, and the real hub client against a small hub of the tests' own."""

import dataclasses
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from dynabert_jax.weights.hub import ModelNotFoundError, find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZER = {"vocab.txt": "[PAD]", "tokenizer_config.json": "{}"}
OTHER = {"README.md": "words", "tf_model.h5": "x", "model.fp16.safetensors": "x", "onnx/model.onnx": "x"}
CONFIG = {"config.json": "{}"}


@dataclasses.dataclass
class FakeHub:
    """What the small hub holds, file by file, and what was fetched from it."""

    models: dict[str, dict[str, str]]
    gated: set[str]
    fetched: list[str]


def make_handler(hub: FakeHub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        """The four requests that the hub's client makes for a snapshot."""

        def log_message(self, *args: object) -> None:
            pass

        def reply(self, content: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            for model, files in hub.models.items():
                if path.startswith(f"api/models/{model}/tree/"):
                    rows = [{"type": "file", "path": p, "size": len(c), "oid": p} for p, c in files.items()]
                    return self.reply(json.dumps(rows).encode())
                if path.startswith(f"api/models/{model}/revision/"):
                    return self.reply(json.dumps({"id": model, "sha": COMMIT}).encode())
                if path.startswith(f"{model}/resolve/"):
                    return self.send_file(model, path.removeprefix(f"{model}/resolve/{COMMIT}/"))
            return self.reply(b"", 404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def send_file(self, model: str, file: str) -> None:
            if model in hub.gated:
                return self.reply(b"", 403, X_Error_Code="GatedRepo")
            if self.command == "GET":
                hub.fetched.append(file)
            content = hub.models[model][file].encode()
            tag = hashlib.sha1(content).hexdigest()
            return self.reply(content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub on this machine, which the hub's client takes for the real one, and an empty cache."""
    fake = FakeHub({}, set(), [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(fake)) as server:
        use_endpoint(monkeypatch, server.server_port)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield fake
        huggingface_hub.close_session()
        server.shutdown()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    huggingface_hub.close_session()  # the next one is made with this environment


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_model(tmp_path) == tmp_path
    assert find_model(str(tmp_path)) == tmp_path


def test_a_relative_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "organization" / "model").mkdir(parents=True)
    (tmp_path / "organization" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("organization/model").resolve() == tmp_path / "organization" / "model"


def test_a_folder_without_config_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(ModelNotFoundError, match=r"no config\.json \(it holds: weights\.bin\)"):
        find_model(tmp_path)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ModelNotFoundError, match="is a file; name the folder"):
        find_model(str(tmp_path / "model.safetensors"))


def test_a_name_that_no_folder_can_have_is_not_a_model() -> None:
    with pytest.raises(ModelNotFoundError, match=r"cannot be read .*File name too long.*choose a folder that you can"):
        find_model("x" * 300)


@pytest.mark.parametrize(
    "name",
    ["./model", "../model", "~/no/such/model", "~nobody-here/model", "/no/such/model", "runs/one/model", "runs/x"],
)
def test_a_path_that_is_not_there_is_never_looked_up_on_the_hub(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hub.models[name] = CONFIG
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        find_model(name)


def test_an_unknown_sample_names_the_one_there_is() -> None:
    with pytest.raises(ModelNotFoundError, match="use 'sample:minilm'"):
        find_model("sample:mini")


def test_the_sample_is_fetched_by_the_samples_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.data.samples.fetch_minilm", lambda: tmp_path)
    assert find_model("sample:minilm") == tmp_path


def test_only_what_is_needed_is_fetched_and_safetensors_are_preferred(hub: FakeHub) -> None:
    weights = {"model.safetensors": "safe", "pytorch_model.bin": "pickle"}
    hub.models["bert-tiny"] = CONFIG | TOKENIZER | OTHER | weights
    folder = find_model("bert-tiny")
    assert files_in(folder) == {*CONFIG, *TOKENIZER, "model.safetensors"}
    assert (folder / "model.safetensors").read_text() == "safe"


def test_shards_are_fetched(hub: FakeHub) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": str(i) for i in (1, 2)}
    hub.models["org/big"] = CONFIG | OTHER | shards | {"model.safetensors.index.json": "{}", "pytorch_model.bin": "x"}
    assert files_in(find_model("org/big")) == {"config.json", "model.safetensors.index.json", *shards}


def test_pytorch_files_are_fetched_where_there_are_no_safetensors(hub: FakeHub) -> None:
    hub.models["org/old"] = CONFIG | TOKENIZER | {"pytorch_model.bin": "pickle"}
    assert files_in(find_model("org/old")) == {*CONFIG, *TOKENIZER, "pytorch_model.bin"}


def test_the_cache_is_used_again_also_without_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.models["org/old"] = CONFIG | {"pytorch_model.bin": "pickle"}
    first = find_model("org/old")
    fetched = list(hub.fetched)
    assert find_model("org/old") == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model("org/old") == first
    assert hub.fetched == fetched


def test_a_repository_without_config_is_an_error(hub: FakeHub) -> None:
    hub.models["org/empty"] = {"README.md": "words", "vocab.txt": "x", "pytorch_model.bin": "x"}
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        find_model("org/empty")


def test_a_repository_that_does_not_exist(hub: FakeHub) -> None:
    assert not hub.models
    with pytest.raises(ModelNotFoundError, match="no folder 'org/nothing' here, and no model of that name on the hub"):
        find_model("org/nothing")


def test_a_gated_repository(hub: FakeHub) -> None:
    hub.models["org/gated"] = CONFIG
    hub.gated.add("org/gated")
    with pytest.raises(ModelNotFoundError, match="'org/gated' is gated; ask for access"):
        find_model("org/gated")


@pytest.mark.parametrize("name", ["a model", "bert--tiny", "bert.git"])
def test_a_name_that_cannot_be_on_the_hub(hub: FakeHub, name: str) -> None:
    hub.models[name] = CONFIG
    with pytest.raises(ModelNotFoundError, match="is neither a folder here nor a name on the hub"):
        find_model(name)


def test_without_network_the_message_says_how_to_bring_the_model(
    hub: FakeHub, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["org/model"] = CONFIG
    use_endpoint(monkeypatch, unused_port)
    with pytest.raises(ModelNotFoundError, match=r"`hf download org/model --local-dir model`.*\./model"):
        find_model("org/model")


def test_offline_the_message_names_the_setting(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.models["org/model"] = CONFIG
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=r"HF_HUB_OFFLINE is set.*`hf download org/model"):
        find_model("org/model")
