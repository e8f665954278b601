"""examples/serve: the service answers over HTTP what `dynabert predict` answers, and refuses what it cannot answer."""

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynabert_jax.config import ModelConfig
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.export import onnx_file
from dynabert_jax.export.export import export_run
from dynabert_jax.export.folder import write_tokenizer
from dynabert_jax.export.manifest import Manifest, Structure, checksums, write_manifest
from dynabert_jax.export.model_card import written_by
from dynabert_jax.infer.runner import Source
from dynabert_jax.model.params import Model
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.subnetwork import SubNetwork
from tiny import random_params
from tiny_run import MODEL, VOCABULARY, Finished, sentences

for package in ("onnx", "onnxruntime", "fastapi", "uvicorn"):
    pytest.importorskip(package)

SERVE = Path(__file__).parents[2] / "examples" / "serve"
TEXTS = [row[0] for row in sentences(20, seed=5)] + [
    "",
    "good " * 40,
    "[MASK] a [SEP] film",
    "\u00c9t\u00e9  \U0001f600",
]
PAIRS = [(text, TEXTS[-1 - i]) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "half"
    export_run(finished.folder, "onnx", folder, subs=["w1_d0.5"], int8=True)
    return folder


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SERVE))


# Its answers, without HTTP


def bert_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")


def roberta_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=letters)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))


ROBERTA = MODEL.replace(model_type="roberta", vocab_size=300, type_vocab_size=1, pad_token_id=1)
KINDS = {
    "pairs": (MODEL, bert_tokenizer, {}, 2),
    "one segment": (MODEL.replace(type_vocab_size=1), bert_tokenizer, {}, 2),
    "no segments": (MODEL, bert_tokenizer, {"model_input_names": ["input_ids", "attention_mask"]}, 2),
    "from the left": (MODEL, bert_tokenizer, {"truncation_side": "left"}, 1),
    "special tokens are text": (MODEL, bert_tokenizer, {"split_special_tokens": True}, 1),
    "regression": (MODEL.replace(labels=("score",), head="regression"), bert_tokenizer, {}, 2),
    "roberta": (ROBERTA, roberta_tokenizer, {}, 1),
    "pairs of roberta": (ROBERTA, roberta_tokenizer, {}, 2),
}


def export_of(folder: Path, config: ModelConfig, make: Any, settings: dict[str, Any], columns: int) -> Path:
    """An export of random weights, as `export_run` writes it."""
    source, out = folder / "source", folder / "out"
    source.mkdir()
    out.mkdir()
    make(source)
    kind = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer"}[config.model_type]
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | settings))
    sub = SubNetwork.full(config)
    onnx_file.write(Source(Model(config, random_params(config)), (sub,)), out)
    write_tokenizer(out, load_tokenizer(source, config), 12)
    names = ("text", "text2")[:columns]
    values = {"format": "onnx", "subs": (Structure.of(sub),), "text_columns": names, "lengths": (8, 12)}
    of_model = {"labels": config.labels, "head": config.head}
    write_manifest(out, Manifest(**values, **of_model, files=checksums(out), written_by=written_by()))
    return out


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_export_is_read_as_it_was_trained(kind: str, tmp_path: Path) -> None:
    from network import Network

    config, make, settings, columns = KINDS[kind]
    folder = export_of(tmp_path, config, make, settings, columns)
    texts = TEXTS if columns == 1 else PAIRS
    network, predictor = Network(folder), Predictor(folder, batch_size=4)
    assert (network.labels, network.takes_pairs) == (list(config.labels), columns == 2)
    assert_same(network(texts), predictor(texts))
    assert_same([network([text])[0] for text in texts], predictor(texts))


def assert_same(answers: Sequence[dict[str, Any]], predictions: Sequence[Any]) -> None:
    """Answers of the service and predictions of this package."""
    for answer, wanted in zip(answers, predictions, strict=True):
        if wanted.number is not None:
            assert answer == {"number": pytest.approx(wanted.number, abs=1e-4)}
        else:
            shares = {name: pytest.approx(share, abs=1e-4) for name, share in wanted.probabilities.items()}
            assert answer == {"label": wanted.label, "probabilities": shares}


@pytest.mark.usefixtures("example")
def test_what_is_no_export_or_was_changed_is_not_served(exported: Path, finished: Finished, tmp_path: Path) -> None:
    from network import INT8, ExportError, Network

    with pytest.raises(ExportError, match=r"is no export with a manifest\.json"):
        Network(finished.folder)
    export_run(finished.folder, "hf", tmp_path / "hf", subs=["w1_d0.5"])
    with pytest.raises(ExportError, match="is an export in the format hf; make one with --format onnx"):
        Network(tmp_path / "hf")
    copied = Path(shutil.copytree(exported, tmp_path / "copied"))
    (copied / INT8).unlink()
    with pytest.raises(ExportError, match=r"has no model_int8\.onnx; export with --int8"):
        Network(copied, INT8)
    (copied / "tokenizer.json").write_text((copied / "tokenizer.json").read_text() + " ")
    with pytest.raises(ExportError, match=r"tokenizer\.json is damaged, or was changed"):
        Network(copied)


@pytest.mark.usefixtures("example")
def test_a_setting_that_is_misspelt_or_no_number_is_refused() -> None:
    from app import Settings

    assert Settings.read({"SERVE_MODEL": "half", "SERVE_BATCH": "8", "HOME": "/"}) == Settings("half", batch=8)
    for environment, message in (
        ({}, "SERVE_MODEL is not set; there are SERVE_MODEL, SERVE_INT8"),
        ({"SERVE_MODEL": "half", "SERVE_BATCHES": "8"}, "there is no setting SERVE_BATCHES"),
        ({"SERVE_MODEL": "half", "SERVE_BATCH": "-8"}, "SERVE_BATCH must be a whole number; got '-8'"),
        ({"SERVE_MODEL": "half", "SERVE_BATCH": "0"}, "are at least 1"),
        ({"SERVE_MODEL": "half", "SERVE_WAITING": "8"}, "a request of 64 texts never fits"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Settings.read(environment)


# Batches


@pytest.mark.usefixtures("example")
def test_items_of_many_callers_share_batches_and_each_gets_its_own_answers() -> None:
    from batcher import Batcher

    batches: list[int] = []

    def double(items: Sequence[int]) -> list[int]:
        batches.append(len(items))
        time.sleep(0.01)
        return [2 * item for item in items]

    async def ask() -> list[list[int]]:
        async with Batcher(double, largest=8, wait=0.05, waiting=100).running() as batcher:
            return await asyncio.gather(*(batcher.answer([i, -i]) for i in range(20)))

    assert asyncio.run(ask()) == [[2 * i, -2 * i] for i in range(20)]
    assert sum(batches) == 40
    assert max(batches) == 8
    assert len(batches) == 5


@pytest.mark.usefixtures("example")
def test_a_batch_that_fails_or_is_left_does_not_stop_the_next() -> None:
    from batcher import Batcher, FullError

    started, released = threading.Event(), threading.Event()

    def run(items: Sequence[str]) -> Sequence[str]:
        started.set()
        released.wait(10)
        if "bad" in items:
            raise ValueError("this batch fails")
        return items

    async def ask() -> None:
        async with Batcher(run, largest=1, wait=0.0, waiting=2).running() as batcher:
            first = asyncio.create_task(batcher.answer(["bad"]))
            await asyncio.to_thread(started.wait, 10)
            left = asyncio.create_task(batcher.answer(["left"]))
            third = asyncio.create_task(batcher.answer(["good"]))
            await asyncio.sleep(0)
            with pytest.raises(FullError):
                await batcher.answer(["one more"])
            left.cancel()
            released.set()
            with pytest.raises(ValueError, match="this batch fails"):
                await first
            assert await third == ["good"]

    asyncio.run(ask())


# Over HTTP


@pytest.fixture(scope="module")
def address(exported: Path) -> Iterator[str]:
    """A service in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"SERVE_MODEL": str(exported), "SERVE_TEXTS": "30", "SERVE_CHARACTERS": "500", "SERVE_THREADS": "1"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "app:create", "--app-dir", str(SERVE)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], env=os.environ | settings,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()[0]
        try:
            if ask(f"{address}/ready")[0] == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the service does not start")


def ask(url: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Any]:
    """The status and the answer, which is always JSON."""
    data = raw if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_service_answers_as_the_command(address: str, exported: Path) -> None:
    command = [sys.executable, "-m", "dynabert_jax", "predict", str(exported), "--json", "--text", *TEXTS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    status, answer = ask(f"{address}/predict", {"text": TEXTS})
    assert status == 200
    for line, prediction in zip(printed, answer["predictions"], strict=True):
        wanted = json.loads(line)
        assert prediction["label"] == wanted["prediction"]
        for name, share in prediction["probabilities"].items():
            assert share == pytest.approx(wanted[f"probability_{name}"], abs=1e-4)


def test_requests_at_the_same_time_get_their_own_answers(address: str, exported: Path) -> None:
    predictions = Predictor(exported)(TEXTS)
    wanted = [prediction.probabilities["good"] for prediction in predictions]
    assert np.ptp(wanted) > 0.1  # else any answer would do

    def of(i: int) -> float:
        status, answer = ask(f"{address}/predict", {"text": TEXTS[i % len(TEXTS)]})
        assert status == 200
        (prediction,) = answer["predictions"]
        return float(prediction["probabilities"]["good"])

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(of, range(8 * len(TEXTS))))
    np.testing.assert_allclose(found, wanted * 8, rtol=0, atol=1e-4)


def test_its_state_is_told(address: str) -> None:
    assert ask(f"{address}/health") == (200, {"status": "alive"})
    assert ask(f"{address}/ready") == (200, {"status": "ready", "labels": ["bad", "good"], "pairs": False})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 422, "JSON decode error"),
        (b"", 422, "body: Field required"),
        (b"[1]", 422, "body: "),
        (b"{}", 422, "text: Field required"),
        (b'{"text": 1}', 422, "text.str: Input should be a valid string"),
        (b'{"text": ["a", null]}', 422, "text.list[str].1: Input should be a valid string"),
        (b'{"text": "\\ud800"}', 422, "a text has half of a surrogate pair"),
        (b'{"text": "a", "texts": ["a"]}', 422, "texts: Extra inputs are not permitted"),
        (b'{"text": []}', 422, "a request has 1 to 30 texts; got 0"),
        (json.dumps({"text": ["a"] * 31}).encode(), 422, "a request has 1 to 30 texts; got 31"),
        (json.dumps({"text": "a" * 501}).encode(), 422, "a text has at most 500 characters; got 501"),
        (b'{"text": "a", "text2": "b"}', 422, "this network reads single texts: leave text2 out"),
        (b" " * 1_000_000, 413, "a request has at most 370,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_plain_words(
    body: bytes, status: int, message: str, address: str
) -> None:
    code, answer = ask(f"{address}/predict", raw=body)
    assert code == status
    assert message in answer["error"]
    assert ask(f"{address}/predict", {"text": "a good film"})[0] == 200


def test_pairs_are_asked_for_where_the_network_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SERVE))
    from app import RefusedError, Settings, Texts, taken

    settings = Settings("half", texts=2)
    assert taken(Texts(text="a", text2="b"), True, settings) == [("a", "b")]
    assert taken(Texts(text=["a", "c"], text2=["b", "d"]), True, settings) == [("a", "b"), ("c", "d")]
    for body, message in (
        (Texts(text="a"), "reads pairs: give text and text2"),
        (Texts(text=["a", "c"], text2=["b"]), "must be as many; got 2 and 1"),
        (Texts(text=["a"], text2="b"), "must be as many"),
        (Texts(text="a", text2="b" * 20_001), "at most 20,000 characters; got 20,001"),
    ):
        with pytest.raises(RefusedError, match=message):
            taken(body, True, settings)


# The image


def test_the_image_copies_what_is_there_and_runs_what_the_readme_runs() -> None:
    lines = re.sub(r"\\\n\s*", "", (SERVE / "Dockerfile").read_text()).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    names = [name for name, _ in instructions]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    for source in (source for name, rest in instructions if name == "COPY" for source in rest.split()[:-1]):
        assert source.startswith("--") or (SERVE / source).exists() or source == "model", source
    given = dict(instructions)
    assert names.index("USER") < names.index("CMD")
    assert given["USER"] not in ("root", "0")
    assert "/ready" in given["HEALTHCHECK"]
    assert json.loads(given["CMD"])[:3] == ["uvicorn", "--factory", "app:create"]
    assert shlex.join(json.loads(given["CMD"])[:3]) in (SERVE / "README.md").read_text()
    ignored = (SERVE / ".dockerignore").read_text().split()
    assert not {"model", "app.py", "network.py", "batcher.py", "requirements.txt"} & set(ignored)


def test_what_serving_needs_has_neither_jax_nor_this_package() -> None:
    given = {line.split(">")[0] for line in (SERVE / "requirements.txt").read_text().splitlines() if line[0] != "#"}
    used = set()
    for file in SERVE.glob("*.py"):
        used |= set(re.findall(r"^(?:from|import) (\w+)", file.read_text(), re.MULTILINE))
    brought = {"pydantic", "starlette", "app", "batcher", "network"}  # by fastapi, and its own files
    assert used - set(sys.stdlib_module_names) - brought <= given
