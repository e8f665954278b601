"""Answers to texts: the network's own, in the texts' order, whatever the file, and none for what cannot be read."""

import csv
import gzip
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from dynabert_jax.cli import commands
from dynabert_jax.config import ConfigError, ModelConfig
from dynabert_jax.data.encode import Split
from dynabert_jax.data.rows import DataError, open_rows
from dynabert_jax.data.tokenizer import load_tokenizer, tokenize
from dynabert_jax.evaluate.evaluate import EvaluationError, logits_of
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.in_jax import forward_program
from dynabert_jax.model.bert import Bert
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.serve import predict
from dynabert_jax.serve.open import PredictError
from dynabert_jax.serve.predict import CHUNK, Predictor, predict_file, predict_texts, softmax
from dynabert_jax.weights.files import load_model, save_model
from tiny_run import MODEL, VOCABULARY, Finished, sentences, write_csv, write_model

TEXTS = [row[0] for row in sentences(21, seed=7)] + ["", 'a "good", plot', "unheard words", "good " * 40]


@pytest.fixture(scope="module")
def predictor(finished: Finished) -> Predictor:
    return Predictor(finished.folder, "w1_d0.5", batch_size=4)


@pytest.fixture(scope="module")
def logits(finished: Finished) -> np.ndarray:
    """Of the evaluation, which pads and orders by itself, `[n, C]`."""
    run = read_finished(finished.folder)
    tokens = tokenize(
        load_tokenizer(run.model.folder, run.shape), [(text,) for text in TEXTS], run.config.data.max_length
    )
    split = Split("texts", [t.input_ids for t in tokens], [t.token_type_ids for t in tokens], np.zeros(len(TEXTS)))
    runner = in_jax.open_model(run.model.cut(run.sub("w1_d0.5")), run.config.dtype)
    return logits_of(runner, split, run.config.data, run.model.config.pad_token_id)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a fine-tuned model without a run."""

    def write(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("models") / "model"
        write_model(folder, MODEL.replace(**changes))
        return folder

    return write


def assert_close(left: Any, right: Any) -> None:
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


# Texts


def test_answers_are_those_of_the_evaluation(predictor: Predictor, logits: np.ndarray) -> None:
    answers = predictor(TEXTS)
    assert_close(predictor.logits(TEXTS), logits)
    assert_close([list(answer.probabilities.values()) for answer in answers], softmax(logits))
    assert [answer.label for answer in answers] == [MODEL.labels[i] for i in logits.argmax(axis=1)]
    assert len(np.unique(logits.round(6), axis=0)) > 15  # so that an exchange of two would be seen
    assert answers[0].probabilities.keys() == {"bad", "good"}
    assert answers[0].number is None


def test_a_text_alone_gets_the_same_answer(predictor: Predictor, logits: np.ndarray) -> None:
    for text, expected in zip(TEXTS, logits, strict=True):
        assert_close(predictor.logits([text])[0], expected)
    assert predictor([]) == []


def test_one_call_is_enough(finished: Finished, predictor: Predictor) -> None:
    assert predict_texts(str(finished.folder), TEXTS[:3], sub="w1_d0.5", batch_size=4) == predictor(TEXTS[:3])
    largest = predict_texts(finished.folder, TEXTS[:3], batch_size=4)
    assert largest == Predictor(finished.folder, "w1_d1", batch_size=4)(TEXTS[:3])
    assert largest != predictor(TEXTS[:3])


def test_every_shape_is_traced_once(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    apply = Bert.apply

    def counting(self: Bert, variables: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
        traced.append(ids.shape)
        return apply(self, variables, ids, *args, **kwargs)

    monkeypatch.setattr(Bert, "apply", counting)
    forward_program.cache_clear()
    predictor = Predictor(finished.folder, batch_size=8)
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:4], TEXTS[:1], TEXTS[5:]):
        predictor(texts)
    assert len(traced) == len(set(traced)) == 2


def test_a_model_without_a_run_answers(model: Callable[..., Path]) -> None:
    folder = model()
    loaded = load_model(folder)
    ids = [VOCABULARY.index(token) for token in ("[CLS]", "good", "film", "[SEP]")]
    shape = (1, len(ids))
    expected = Bert(MODEL).apply(
        {"params": loaded.params}, np.array([ids]), np.ones(shape), np.zeros(shape, np.int32), full(MODEL)
    )
    assert_close(Predictor(folder, batch_size=4).logits(["good film"]), expected.logits)


def full(config: ModelConfig) -> Any:
    from dynabert_jax.subnetwork import SubNetwork

    return SubNetwork.full(config)


def test_pairs_are_read_as_pairs(model: Callable[..., Path]) -> None:
    predictor = Predictor(model(), batch_size=4)
    pairs = [("good film", "bad plot"), ("bad plot", "good film"), ("", "great")]
    together, joined = predictor.logits(pairs), predictor.logits([" ".join(pair) for pair in pairs])
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert np.abs(together - joined).max() > 1e-3
    assert_close(np.concatenate([predictor.logits([pair]) for pair in pairs]), together)


def test_a_regression_answers_with_a_number(model: Callable[..., Path]) -> None:
    predictor = Predictor(model(head="regression", labels=("stars",)), batch_size=4)
    answers = predictor(TEXTS)
    assert_close([answer.number for answer in answers], predictor.logits(TEXTS)[:, 0])
    assert {answer.label for answer in answers} == {None}
    assert answers[0].columns == {"prediction": pytest.approx(answers[0].number, rel=1e-5)}
    assert predictor.columns == ("prediction",)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("good film", r"texts must be a list; got the single text 'good film'; put it in \[ \]"),
        (["good", 3], "a text must be a string or a pair of strings; got 3"),
        (["good", None], "a text must be a string or a pair of strings; got None"),
        ([("good", "bad")], "single sentences are needed here; got 'good', 'bad'"),
        (["good", ("good", "bad", "fine")], "a text must be a string or a pair of strings; got .+fine"),
        (["good", "\udcff bad"], r"a text must be valid Unicode; got '\\udcff bad'; .+ its source is not UTF-8"),
    ],
)
def test_what_is_no_text_is_reported(predictor: Predictor, texts: Any, message: str) -> None:
    with pytest.raises(PredictError, match=message):
        predictor(texts)


def test_weights_that_have_diverged_are_reported(model: Callable[..., Path], tmp_path: Path) -> None:
    folder = model()
    loaded = load_model(folder)
    loaded.params["classifier"]["bias"][:] = 3e38  # every one is a number, and their sums are not
    loaded.params["classifier"]["kernel"][:] = 3e38
    save_model(tmp_path / "broken", loaded.config, loaded.params, tokenizer_from=folder)
    with pytest.raises(EvaluationError, match="answers 2 of 2 examples of the texts with NaN"):
        predict_texts(tmp_path / "broken", ["good", "bad"], batch_size=4)


# Files


def rows_of(count: int) -> list[dict[str, Any]]:
    texts = itertools.islice(itertools.cycle(TEXTS), count)
    return [{"id": str(i), "text": text, "label": "?"} for i, text in enumerate(texts)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".csv":
            write_csv(path, list(rows[0]), [tuple(row.values()) for row in rows])
        case ".tsv":
            path.write_text("".join("\t".join(cells) + "\n" for cells in (rows[0], *(row.values() for row in rows))))
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in open_rows(path)]


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("written", [".csv", ".tsv", ".jsonl"])
def test_rows_of_every_format_come_back_with_their_answers(
    predictor: Predictor, logits: np.ndarray, extension: str, written: str, tmp_path: Path
) -> None:
    rows = rows_of(len(TEXTS))
    source, out = write_rows(tmp_path / f"in{extension}", rows), tmp_path / f"out{written}"
    assert predict_file(predictor, source, out) == len(rows)
    back = read_rows(out)
    assert [{name: row[name] for name in ("id", "text", "label")} for row in back] == rows
    assert list(back[0]) == ["id", "text", "label", "prediction", "probability_bad", "probability_good"]
    shares = [[float(row["probability_bad"]), float(row["probability_good"])] for row in back]
    assert_close(shares, softmax(logits))
    assert [row["prediction"] for row in back] == [MODEL.labels[i] for i in logits.argmax(axis=1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, out.name])


@pytest.mark.parametrize("name", ["in.CSV", "in.csv.gz"])
def test_upper_case_and_compressed_files_are_answered(predictor: Predictor, name: str, tmp_path: Path) -> None:
    """With the index that pandas writes: a column without a name."""
    content = b",text\n0,good\n1,bad plot\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert predict_file(predictor, tmp_path / name, tmp_path / "out.TSV") == 2
    answers = [answer.label for answer in predictor(["good", "bad plot"])]
    assert [(row[""], row["text"], row["prediction"]) for row in read_rows(tmp_path / "out.TSV")] == [
        ("0", "good", answers[0]),
        ("1", "bad plot", answers[1]),
    ]


def test_one_json_list_is_answered_row_by_row(predictor: Predictor, tmp_path: Path) -> None:
    rows = [{"text": "good", "n": 1}, {"n": 2, "text": "bad plot"}]
    (tmp_path / "in.jsonl").write_text(json.dumps(rows, indent=2))
    assert predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 2
    assert [{"text": row["text"], "n": row["n"]} for row in read_rows(tmp_path / "out.jsonl")] == rows


def test_cells_stay_what_they_are(predictor: Predictor, tmp_path: Path) -> None:
    rows = [{"text": "good", "n": 3, "list": [1, "é"], "none": None}, {"text": "bad", "n": 0.5, "list": {}, "none": 1}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    predict_file(predictor, source, tmp_path / "out.jsonl")
    predict_file(predictor, source, tmp_path / "out.csv")
    named = ("text", "n", "list", "none")
    assert [{name: row[name] for name in named} for row in read_rows(tmp_path / "out.jsonl")] == rows
    assert [[row[name] for name in named] for row in read_rows(tmp_path / "out.csv")] == [
        ["good", "3", '[1, "é"]', ""],
        ["bad", "0.5", "{}", "1"],
    ]


def test_texts_of_one_column_may_be_empty(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('text\n""\ngood\n\n""\n')
    assert predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv") == 3
    assert [row["text"] for row in read_rows(tmp_path / "out.csv")] == ["", "good", ""]
    (tmp_path / "none.csv").write_text("text,id\n")
    assert predict_file(predictor, tmp_path / "none.csv", tmp_path / "none.tsv") == 0
    assert (tmp_path / "none.tsv").read_text() == "text\tid\tprediction\tprobability_bad\tprobability_good\n"


def test_two_columns_are_pairs(model: Callable[..., Path], tmp_path: Path) -> None:
    predictor = Predictor(model(), batch_size=4)
    rows = [{"b": "bad plot", "a": "good"}, {"b": "fine", "a": "poor"}]
    source = write_rows(tmp_path / "in.csv", rows)
    predict_file(predictor, source, tmp_path / "out.jsonl", ("a", "b"))
    expected = [answer.columns for answer in predictor([("good", "bad plot"), ("poor", "fine")])]
    assert [row["prediction"] for row in read_rows(tmp_path / "out.jsonl")] == [e["prediction"] for e in expected]
    assert [row["probability_bad"] for row in read_rows(tmp_path / "out.jsonl")] == pytest.approx(
        [e["probability_bad"] for e in expected], rel=1e-5
    )


class Counting(Predictor):
    """Answers at once, and says how many rows had been read when it was asked."""

    def __init__(self, rows_read: Callable[[], int]):
        self.asked: list[tuple[int, int]] = []
        self.labels, self.text_columns, self.batch_size = ("bad", "good"), ("text",), 4
        self._config, self._rows_read = MODEL, rows_read

    def logits(self, texts: Sequence[Any]) -> np.ndarray:
        self.asked.append((len(texts), self._rows_read()))
        return np.zeros((len(texts), 2), np.float32)


@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
def test_memory_does_not_grow_with_the_file(extension: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read as they are needed, and a file of 30 MB passes through 4."""
    read = itertools.count()
    last = [0]

    class Watched:
        def __init__(self, path: Path):
            self.rows = open_rows(path)
            self.columns, self.check = self.rows.columns, self.rows.check

        def __iter__(self) -> Iterator[Any]:
            for row in self.rows:
                last[0] = next(read)
                yield row

    monkeypatch.setattr("dynabert_jax.serve.predict.open_rows", Watched)
    count, chunk = 30_000, 4 * CHUNK
    source = write_rows(tmp_path / f"in{extension}", [{"text": "good " * 200, "id": str(i)} for i in range(count)])
    predictor = Counting(lambda: last[0] - count + 1)  # the first pass checks every row
    tracemalloc.start()
    try:
        assert predict_file(predictor, source, tmp_path / "out.jsonl") == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [asked for asked, _ in predictor.asked] == [*[chunk] * (count // chunk), count % chunk]
    assert all(seen <= (i + 1) * chunk for i, (_, seen) in enumerate(predictor.asked))
    assert peak < 4e6
    with (tmp_path / "out.jsonl").open() as file:
        assert [json.loads(line)["id"] for line in file] == [str(i) for i in range(count)]


# Errors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", "sentence,id\ngood,1\n", r"no column 'text'; did you mean 'sentence'\? there are: sentence, id"),
        ("in.csv", "text,id\ngood,1\nbad\n", r"row 2 \(line 3\): cells: 1, columns: 2"),
        ("in.csv", "text,prediction\ngood,1\n", r"row 1 \(line 2\): there is a 'prediction' already"),
        ("in.jsonl", '{"text": "good"}\n{"text": "bad", "prediction": "mine"}\n', r"row 2 .+ a 'prediction' already"),
        ("in.csv", "", "the file is empty"),
        ("in.csv", 'text,id\n"good', "line 2: unexpected end of data; close its quotes"),
        ("in.txt", "good", "the extension '.txt' is not supported"),
        ("in.jsonl", '{"text": "good"}\n{"text": null}\n', r"row 2 \(line 2\): a text must be a string; there is none"),
        ("in.jsonl", '{"text": "good"}\n{"text": 3}\n', "got 3"),
        (
            "in.jsonl",
            '{"text": "good"}\n{"text": "\\ud800 x"}\n',
            r"row 2 \(line 2\): 'text' is not valid Unicode: '\\ud8",
        ),
        ("in.jsonl", '{"text": "good", "id": "\\ud800"}\n', r"row 1 \(line 1\): .+ not valid Unicode"),
        ("in.jsonl", '{"text": "good"}\n{"text": \n', r"row 2 \(line 2\): not JSON"),
        ("in.jsonl", '{"text": "good"}\n["bad"]\n', r"row 2 \(line 2\): a JSON object is needed; got \[\"bad\"\]"),
        ("in.jsonl", "\n", "the file holds no rows"),
        ("in.jsonl", '{"text": "good"}\n{"text": "bad", "more": 1}\n', "the first row has no 'more'"),
        ("in.parquet", "no parquet", "not a readable .parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing(
    predictor: Predictor, name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((DataError, PredictError), match=message):
        predict_file(predictor, tmp_path / name, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_paths_in_the_home_folder(
    finished: Finished, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(finished.folder)
    assert predict_texts("~/run", ["good"], sub="w1_d0.5", batch_size=4) == predictor(["good"])
    write_rows(tmp_path / "in.csv", rows_of(2))
    assert predict_file(predictor, "~/in.csv", "~/out.csv") == 2
    assert (tmp_path / "out.csv").is_file()


@pytest.mark.parametrize(("sub", "batch_size"), [(5, 4), ("w1_d0.5", 1.5), ("w1_d0.5", "3"), ("w1_d0.5", True)])
def test_settings_of_another_type_are_reported(finished: Finished, sub: Any, batch_size: Any) -> None:
    with pytest.raises(PredictError, match=r"named by a string, .+ got 5|must be at least 1; got .+ whole number"):
        Predictor(finished.folder, sub, batch_size)


def test_a_model_may_know_of_a_run(model: Callable[..., Path]) -> None:
    file = model() / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run_dir": "of another program"}))
    assert len(predict_texts(file.parent, ["good"], batch_size=4)) == 1


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(PredictError, match="is a folder; name a file"):
        predict.check_out(tmp_path / "in.csv", tmp_path, force=False)


def test_what_is_interrupted_leaves_nothing(predictor: Predictor, tmp_path: Path, monkeypatch: Any) -> None:
    source = write_rows(tmp_path / "in.csv", rows_of(5))
    (tmp_path / "out.csv").write_text("before")

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "logits", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, source, tmp_path / "out.csv", force=True)
    assert (tmp_path / "out.csv").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_tab_cannot_stand_in_a_tsv(predictor: Predictor, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good"}, {"text": "bad\tplot"}])
    with pytest.raises(DataError, match=r"row 2 \(line 2\): its 'text' holds a tab .+ write a .csv or .jsonl"):
        predict_file(predictor, source, tmp_path / "out.tsv")


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)

    def give(*arguments: Any) -> int:
        monkeypatch.setattr("sys.argv", ["dynabert", "predict", *map(str, arguments), "--batch", "4"])
        return commands.main()

    return give


def test_texts_are_answered_on_the_command_line(
    command: Callable[..., int], finished: Finished, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(finished.folder, "--text", "good film", "", "--sub", "w1_d0.5", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["good film", ""]
    expected = predictor(["good film", ""])
    assert [line["prediction"] for line in lines] == [answer.label for answer in expected]
    assert command(finished.folder, "--text", "good film", "--sub", "w1_d0.5") == 0
    share = expected[0].probabilities
    said = f"{expected[0].label}  (bad {share['bad']:.4f}, good {share['good']:.4f})  good film\n"
    assert capsys.readouterr().out == said


def test_pairs_and_numbers_on_the_command_line(
    command: Callable[..., int], model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(head="regression", labels=("stars",))
    number = Predictor(folder, batch_size=4)([("good", "bad")])[0].number
    assert command(folder, "--text", "good", "--text2", "bad") == 0
    assert capsys.readouterr().out == f"{number:.4f}  good | bad\n"
    assert command(folder, "--text", "good", "--text2", "bad", "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert line == {"text": "good", "text2": "bad", "prediction": pytest.approx(number, rel=1e-5)}


def test_files_are_answered_on_the_command_line(
    command: Callable[..., int], finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("line", "words"), ("1", "good film")])
    given = (finished.folder, "--file", source, "--out", out, "--text-columns", "words")
    assert command(*given) == 0
    assert f"1 rows written to {out}" in capsys.readouterr().out
    assert command(*given) == 2
    assert f"{out} already exists; name another file, or replace it with --force" in capsys.readouterr().err
    assert command(*given, "--force") == 0


def test_the_file_that_is_read_is_never_replaced(
    command: Callable[..., int], finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also under another name."""
    source, link = tmp_path / "in.csv", tmp_path / "link.csv"
    source.write_text("words\ngood film\n")
    link.symlink_to(source)
    for out in (source, link):
        assert command(finished.folder, "--file", source, "--out", out, "--text-columns", "words", "--force") == 2
        assert f"{out} is the file that is read, and would be lost" in capsys.readouterr().err
    assert source.read_text() == "words\ngood film\n"


def test_what_cannot_be_asked_is_reported(
    command: Callable[..., int],
    finished: Finished,
    model: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": "good"}])
    out, missing = tmp_path / "out.csv", tmp_path / "missing"
    headless = tmp_path / "headless"
    loaded = load_model(model())
    save_model(headless, loaded.config, loaded.params, tokenizer_from=loaded.folder)
    strip_classifier(headless)
    run, plain = finished.folder, loaded.folder
    for arguments, message in {
        (run,): "give --text, or --file with --out",
        (run, "--text", "a", "--file", source): "got both --text and --file; give only one of them",
        (run, "--text", "a", "--out", out): "need --file",
        (run, "--file", source): "--file needs --out",
        (run, "--file", source, "--out", out, "--json"): "takes neither --text2 nor --json",
        (run, "--file", missing, "--out", out): f"{missing}: no such file",
        (run, "--file", source, "--out", tmp_path / "out.txt"): "name a .csv, .tsv, .jsonl",
        (run, "--file", source, "--out", missing / "out.csv"): "is in a folder that does not exist",
        (run, "--file", source, "--out", out, "--text-columns", "txt"): "no column 'txt'; did you mean 'text'?",
        (run, "--file", source, "--out", out, "--text-columns", "text", "a"): "single sentences are needed here",
        (run, "--file", source, "--out", out, "--text-columns", "a", "b", "c"): "got a, b, c",
        (run, "--text", "a", "--sub", "w2_d1"): "no sub-network 'w2_d1'; did you mean",
        (run, "--text", "a", "--text2", "b"): "single sentences are needed here; got 'a', 'b'",
        (run, "--text", "a", "b", "--text2", "b"): "got 2 first sentences and 1 second ones",
        (plain, "--text", "a", "--sub", "w1_d1"): "is a single network, not a run",
        (plain, "--file", source, "--out", out): "name the text column with --text-columns; the file has: text",
        (headless, "--text", "a"): "has no classifier, so its answers would be random",
        (missing, "--text", "a"): f"there is no folder {missing}",
    }.items():
        assert command(*arguments) == 2, arguments
        assert message in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(PredictError, match="the batch size must be at least 1; got 0"):
        Predictor(run, batch_size=0)


def strip_classifier(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    kept = {name: array for name, array in load_file(file).items() if not name.startswith("classifier")}
    save_file(kept, file)


def test_a_parquet_files_own_values_are_written_as_they_are(predictor: Predictor, tmp_path: Path) -> None:
    """Also where `datasets` declares names for its numbers."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "kind": datasets.ClassLabel(names=["neg", "pos"])})
    datasets.Dataset.from_dict({"text": ["good", "bad"], "kind": [1, -1]}, features=features).to_parquet(
        tmp_path / "in.parquet"
    )
    predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.jsonl", ["text"])
    with (tmp_path / "out.jsonl").open() as file:
        assert [json.loads(line)["kind"] for line in file] == [1, -1]


# Devices, and spreadsheets


@pytest.mark.parametrize(("asked", "taken"), [(32, 33), (1, 3), (3, 3)])
def test_a_batch_is_rounded_up_to_the_devices(
    asked: int, taken: int, finished: Finished, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three devices and one text, with the default batch."""
    monkeypatch.setattr(jax, "local_devices", lambda *_: jax.devices()[:3])
    three = Predictor(finished.folder, "w1_d0.5", batch_size=asked)
    assert three.batch_size == taken
    for count in (1, 2, 3):
        assert_close(three.logits(TEXTS[:count]), predictor.logits(TEXTS[:count]))


def test_formulas_are_escaped_where_that_is_asked_for(predictor: Predictor, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [["text", "=name"], ["=1+1", "a"], ["@SUM(A1)", "-5"], ["-good", "+1.5"], ["a=b", "-2+3"], ["\tgood", ""]]
    with source.open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    def written(**options: bool) -> list[list[str]]:
        predict_file(predictor, source, out, ("text",), force=True, **options)
        with out.open(newline="") as file:
            return [row[:2] for row in csv.reader(file)]

    assert written() == rows  # by default the data come out as they went in
    assert written(escape_formulas=True) == [
        ["text", "'=name"], ["'=1+1", "a"], ["'@SUM(A1)", "-5"], ["'-good", "+1.5"], ["a=b", "'-2+3"], ["'\tgood", ""]
    ]  # fmt: skip


# Models that cannot answer


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, '{"model_type": "bert", "model_type": "roberta"}']
)
def test_a_configuration_that_cannot_be_read_is_named(content: str, model: Callable[..., Path]) -> None:
    folder = model()
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json is damaged \(JsonError: it (is nested too deep|has the key)"):
        Predictor(folder)


@pytest.mark.parametrize("architecture", ["BertForTokenClassification", "BertForMultipleChoice"])
def test_a_model_for_another_task_does_not_predict(architecture: str, model: Callable[..., Path]) -> None:
    folder = model()
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": [architecture]}))
    with pytest.raises(PredictError, match=r"has no classifier \(it has heads of other tasks: classifier\), so its"):
        Predictor(folder)


def test_a_model_without_a_pooler_does_not_predict(model: Callable[..., Path]) -> None:
    from safetensors.numpy import load_file, save_file

    file = model() / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if "pooler" not in name}, file)
    with pytest.raises(PredictError, match=r"has no pooler and no classifier \(.*\), so its answers would be random"):
        Predictor(file.parent)
