"""What reads files and settings, and how each is given bad ones: (random generator, empty folder) -> None or raises."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import load, save

from dynabert_jax.cli.train import main, read_config
from dynabert_jax.config import DataConfig, ModelConfig, RunConfig
from dynabert_jax.config.keys import ONLY_HARMLESS
from dynabert_jax.config.tasks import Task, task
from dynabert_jax.data.rows import open_rows
from dynabert_jax.data.texts import read_texts
from dynabert_jax.data.tokenizer import load_tokenizer, tokenize
from dynabert_jax.report.document import document
from dynabert_jax.report.facts import facts
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.latency_card import Where, latencies, read_card
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.hub import find_model

from . import sound
from .damage import ODD_VALUES, ODD_WORDS, damaged, damaged_json, damaged_safetensors, damaged_zip, spellings

Attempt = Callable[[Random, Path], object]
Tensors = dict[str, np.ndarray]

TASKS = (
    Task(name="words", text_columns=("text",), labels=("bad", "good")),
    Task(name="unnamed", text_columns=("text",)),
    Task(name="pairs", text_columns=("text", "rating")),
    Task(name="numbers", text_columns=("text",), label_column="rating", kind="regression", metrics=("pearson",)),
)
ODD_EXPRESSIONS = (
    "None", "True", "0", "-1", "1.5", "'1'", "''", "b'x'", "()", "[1.0]", "(0,)", "('a', 'b')", "{}", "{1}", "print",
    "object()", "lambda: 1", "float('nan')", "float('inf')", "10**30", "10**5000", "1/0", "config", "RunConfig", "...",
    "Optimizer()", "Task(name='x', text_columns=('a',))", "'\\0'", "'\\ud800'", "'x' * 5000", "[[]] * 9", "print(",
    "exec('raise SystemExit')", "exec('raise OSError')", "__import__('nothing')", "open('nothing')", "yield", "*[1]",
)  # fmt: skip


# Configurations


def configuration_file(rng: Random, folder: Path) -> None:
    """A Python file in which an argument is another one, or whose text is damaged."""
    text = sound.CONFIG_FILE
    for _ in range(rng.randint(0, 2)):
        text = _with_another_argument(rng, text)
    if rng.random() < 0.3:
        text = damaged(rng, text)
    sound.write(folder, {"config.py": text})
    read_config(folder / "config.py")


def _with_another_argument(rng: Random, text: bytes) -> bytes:
    """One `name=value` less, under another name, or with another value."""
    lines = text.split(b"\n")
    at = rng.choice([i for i, line in enumerate(lines) if b"=" in line])
    before, _, after = lines[at].partition(b"=")
    match rng.randrange(6):
        case 0:
            lines[at] = b""
        case 1:
            lines[at] = before + rng.choice((b"s", b"x", b"_", b"2")) + b"=" + after
        case 2:
            lines.insert(at, lines[at])
        case _:
            lines[at] = before + b"=" + rng.choice(ODD_EXPRESSIONS).encode() + b","
    return b"\n".join(lines)


def configuration_json(rng: Random, _: Path) -> None:
    content = damaged_json(rng, json.loads(sound.run_config().to_json()))
    RunConfig.from_json(content.decode("utf-8", errors="replace"))


def settings(rng: Random, folder: Path) -> None:
    """The command line of train.py."""
    sound.write(folder, {"config.py": sound.CONFIG_FILE})
    arguments = [word for _ in range(rng.randint(1, 3)) for word in _setting(rng)]
    file = rng.choice(("nothing.py", "", "\0", "x" * 300, ".")) if rng.random() < 0.05 else "config.py"
    main([str(folder / file), *arguments], lambda *_: None)


def _setting(rng: Random) -> list[str]:
    name = rng.choice(_SETTINGS)
    if rng.random() < 0.15:
        name = rng.choice((name[:-1], name + "s", name.upper(), "", "x", "-", "help"))
    values = [rng.choice(_WORDS) for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3)))]
    return [f"--{name}={''.join(values)}"] if rng.random() < 0.2 else [f"--{name}", *values]


def _names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every setting of a configuration, as in `depth.optimizer.learning-rate`."""
    inner = [name for key, value in values.items() if isinstance(value, dict) for name in _names(value, f"{key}.")]
    return [prefix + name.replace("_", "-") for name in (*values, *inner)]


_SETTINGS = ("stage", *_names(sound.run_config().model_dump()))
# The kernel takes no NUL in an argument, and no word of megabytes.
_WORDS = (
    *(word for word in ODD_WORDS if "\0" not in word and len(word) < 10_000), "1", "3", "0.5", "1e-5", "fine_tune",
    "width", "depth", "final", "bfloat16", "last", "False", "train.csv", "bad", "--", "-x", "--seed", "--help",
)  # fmt: skip


# Data


def table(rng: Random, folder: Path) -> None:
    """A file of rows whose bytes are damaged, or whose cells are odd, as training reads it."""
    file = _write_table(rng, folder)
    chosen = rng.choice(TASKS)
    read_texts(DataConfig(task=chosen, train_file=str(file), dev_file=str(file) if rng.random() < 0.3 else None))


def row_file(rng: Random, folder: Path) -> None:
    """The same, as predicting reads it, a row at a time."""
    for _ in open_rows(_write_table(rng, folder)):
        pass


def two_readings(rng: Random, folder: Path) -> None:
    """The same, by both: where both read it, they read the same texts in the same rows."""
    file = _write_table(rng, folder)
    trained = read_texts(DataConfig(task=TASKS[1], train_file=str(file), dev_file=str(file))).train
    asked = [(str(row.values["text"]), row.place) for row in open_rows(file)]
    same = [(text, trained.place(row)) for row, (text,) in enumerate(trained.texts)] == asked
    assert same, f"training and prediction read {file} in two ways"


NAMES = ("good", "bad", "caf\u00e9 au lait", "so so", "1", "12", "-1", "0.5")


def spelled_labels(rng: Random, folder: Path) -> None:
    """Classes in several spellings: no class is divided in two, and no two are joined."""
    names = rng.sample(NAMES, rng.randint(2, 4))
    odd, rows = rng.choice((0.0, 0.02, 0.2, 1.0)), [name for name in names for _ in range(rng.randint(1, 8))]
    files = {split: _spelled(rng, folder / f"{split}.csv", rows, odd) for split in ("train", "dev")}
    task = TASKS[1].replace(labels=tuple(names)) if rng.random() < 0.3 else TASKS[1]
    texts = read_texts(DataConfig(task=task, train_file=str(folder / "train.csv"), dev_file=str(folder / "dev.csv")))
    for split, read in (("train", texts.train), ("dev", texts.dev["dev"])):
        pairs = {(texts.labels[i], name) for i, name in zip(read.labels, files[split], strict=True)}
        assert len(pairs) == len({label for label, _ in pairs}) == len({name for _, name in pairs}), sorted(pairs)


def _spelled(rng: Random, file: Path, names: list[str], odd: float) -> list[str]:
    """Writes a row for each name, and tells the names in the order of the rows."""
    names = rng.sample(names, len(names))
    labels = [spellings(rng, name) if rng.random() < odd else name for name in names]
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["text", "label"], *((f"film {i}", label) for i, label in enumerate(labels))])
    return names


def _write_table(rng: Random, folder: Path) -> Path:
    name = rng.choice(sorted(sound.tables()))
    write = _WRITERS[Path(name).suffix] if rng.random() < 0.5 else lambda *_: damaged(rng, sound.tables()[name])
    sound.write(folder, {name: write(rng, folder)})
    return folder / name


def _odd_csv(rng: Random, _: Path) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator=rng.choice(("\n", "\r\n", "\r"))).writerows(_odd_rows(rng))
    return text.getvalue().encode()


def _odd_gz(rng: Random, folder: Path) -> bytes:
    return gzip.compress(_odd_csv(rng, folder), mtime=0)


def _odd_tsv(rng: Random, _: Path) -> bytes:
    end = rng.choice(("\n", "\r\n", "\r"))
    return "".join("\t".join(map(str, row)) + end for row in _odd_rows(rng)).encode()


def _odd_rows(rng: Random) -> list[list[Any]]:
    """Cells of which some are odd, rows of which some are too long or too short, and perhaps a strange header."""
    rows: list[list[Any]] = [["text", "label", "rating"], *(list(row.values()) for row in sound.ROWS)]
    for _ in range(rng.randint(1, 4)):
        row = rng.choice(rows)
        match rng.randrange(5):
            case 0 if row:
                row.pop(rng.randrange(len(row)))
            case 1:
                row.append(rng.choice(ODD_WORDS))
            case 2:
                rows.insert(rng.randint(0, len(rows)), [rng.choice(ODD_WORDS)] * rng.randint(0, 3))
            case _ if row:
                row[rng.randrange(len(row))] = rng.choice(("text", "label", *ODD_WORDS))
    return rows


def _odd_jsonl(rng: Random, _: Path) -> bytes:
    lines = [damaged_json(rng, row) if rng.random() < 0.2 else json.dumps(row).encode() for row in sound.ROWS]
    joined = rng.choice((b"\n", b"\n\n", b"\r\n", b" ", b",")).join(lines)
    return b"[" + joined + b"]" if rng.random() < 0.2 else joined


def _odd_parquet(rng: Random, _: Path) -> bytes:
    """Whole files of unusual types."""
    columns = {name: pyarrow.array([row[name] for row in sound.ROWS]) for name in sound.ROWS[0]}
    name = rng.choice(sorted(columns))
    columns[name] = _odd_column(rng, len(sound.ROWS))
    names = [rng.choice(("text", "label", "", "x")) if rng.random() < 0.1 else name for name in columns]
    made = pyarrow.Table.from_arrays(list(columns.values()), names=names)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(made.slice(0, rng.choice((0, 1, 2, len(sound.ROWS)))), sink)
    return sink.getvalue().to_pybytes()


def _odd_column(rng: Random, size: int) -> Any:
    values = rng.choice((
        [None], [1, None], [b"a", b"\xff"], [True, False], [0.5, float("nan")], [float("inf")], [["a"], []], [[1.0]],
        [{"a": 1}], [2**62], [""], ["0", "1"], ["a", None],
    ))  # fmt: skip
    array = pyarrow.array([values[i % len(values)] for i in range(size)])
    if pyarrow.types.is_integer(array.type):
        kinds = (pyarrow.timestamp("ns"), pyarrow.duration("s"), pyarrow.date64(), pyarrow.uint64())
        return array.cast(rng.choice((*kinds, array.type)), safe=False)
    is_text = pyarrow.types.is_string(array.type)
    return array.dictionary_encode() if is_text and rng.random() < 0.5 else array


_WRITERS: Mapping[str, Callable[[Random, Path], bytes]] = {
    ".csv": _odd_csv, ".gz": _odd_gz, ".tsv": _odd_tsv, ".jsonl": _odd_jsonl, ".parquet": _odd_parquet,
}  # fmt: skip


def glue_folder(rng: Random, folder: Path) -> None:
    chosen = task(rng.choice(("sst2", "cola", "rte", "stsb", "mrpc")))
    assert chosen.glue is not None
    header = chosen.glue.columns or ("index", *chosen.glue.text_columns, chosen.glue.label_column)
    label = {"stsb": "2.5", "rte": "entailment"}.get(chosen.name, "1")
    other = {"stsb": "1.0", "rte": "not_entailment"}.get(chosen.name, "0")
    row = {chosen.glue.label_column: label}
    lines = [] if chosen.glue.columns else ["\t".join(header)]
    lines += ["\t".join((row | {chosen.glue.label_column: kind}).get(name, "a") for name in header)
              for kind in (label, other) * 4]  # fmt: skip
    sound_file = ("\n".join(lines) + "\n").encode()
    sound.write(folder, {"train.tsv": damaged(rng, sound_file), "dev.tsv": sound_file})
    read_texts(DataConfig(task=chosen, glue_folder=str(folder)))


def source_names(rng: Random, folder: Path) -> None:
    """Names of models, files and data sets that are none, or of strange things."""
    name = rng.choice((*(word for word in ODD_WORDS if len(word) < 10_000), "a/b", "a/b/c", "sample:x", "a:b:c", "."))
    inside = str(folder / name) if rng.random() < 0.3 and name not in ("/", "../..") else name
    match rng.randrange(4):
        case 0:
            find_model(inside)
        case 1:
            RunFolder.open(sound.run_config().replace(run_dir=inside))
        case 2:
            read_texts(DataConfig(task=TASKS[0], train_file=inside))
        case _:
            read_texts(DataConfig(task=TASKS[0], glue_folder=inside))


# Models


def model_configuration(rng: Random, folder: Path) -> None:
    files = sound.model_folder()
    values = json.loads(files["config.json"])
    if rng.random() < 0.4:  # as a cut model has it
        values["dynabert"] = {"head_size": 4, "heads": [4, 4], "neurons": [24, 24]}
    _load_model(rng, sound.write(folder, files | {"config.json": damaged_json(rng, values)}))


def safetensors(rng: Random, folder: Path) -> None:
    files = sound.model_folder()
    damage = rng.choice((damaged, damaged_safetensors))
    _load_model(rng, sound.write(folder, files | {"model.safetensors": damage(rng, files["model.safetensors"])}))


def torch_file(rng: Random, folder: Path) -> None:
    files = {name: sound.model()[name] for name in ("config.json", "vocab.txt")}
    kind, damage = rng.choice((("zip", damaged), ("zip", damaged_zip), ("legacy", damaged), ("legacy", _damaged_start)))
    _load_model(rng, sound.write(folder, files | {"pytorch_model.bin": damage(rng, sound.model()[kind])}))


def _damaged_start(rng: Random, content: bytes) -> bytes:
    """Damage in the description of the tensors: most of a file is their numbers."""
    return damaged(rng, content[:6000]) + content[6000:]


def other_models(rng: Random, folder: Path) -> None:
    """Whole files, of a model for something else: names with a prefix, other heads, numbers that are none."""
    files = sound.model_folder()
    tensors = load(files["model.safetensors"])
    for _ in range(rng.randint(1, 3)):
        tensors = rng.choice(_CHANGES)(rng, tensors)
    values = json.loads(files["config.json"])
    key = rng.choice(("architectures", "id2label", "num_labels", "type_vocab_size", *ONLY_HARMLESS))
    values[key] = rng.choice((*ODD_VALUES, ["BertForTokenClassification"], {"0": 1, "1": 2}, {"0": "a", "2": "b"}))
    _load_model(
        rng,
        sound.write(folder, files | {"model.safetensors": save(tensors), "config.json": json.dumps(values).encode()}),
    )


def _with_prefix(rng: Random, tensors: Tensors) -> Tensors:
    prefix, only = rng.choice(("module.", "_orig_mod.", "student.", "roberta.", ".", "bert.")), rng.random() < 0.3
    return {name if only and rng.random() < 0.5 else prefix + name: tensor for name, tensor in tensors.items()}


def _without_some(rng: Random, tensors: Tensors) -> Tensors:
    part = rng.choice(("pooler", "classifier", "bias", "layer.1", "embeddings", "LayerNorm"))
    return {name: tensor for name, tensor in tensors.items() if part not in name}


def _with_another_head(rng: Random, tensors: Tensors) -> Tensors:
    name = rng.choice(("qa_outputs.weight", "lm_head.bias", "cls.predictions.bias", "pre_classifier.weight", "x", ""))
    return tensors | {name: np.zeros((rng.randint(0, 3), 16), np.float32)}


def _with_no_number(rng: Random, tensors: Tensors) -> Tensors:
    name = rng.choice(sorted(tensors))
    changed = tensors[name].copy()
    changed.flat[rng.randrange(changed.size) if changed.size else slice(0)] = rng.choice((np.nan, np.inf, -np.inf))
    return tensors | {name: changed}


def _turned(rng: Random, tensors: Tensors) -> Tensors:
    name = rng.choice(sorted(tensors))
    return tensors | {name: np.ascontiguousarray(tensors[name].T)}


_CHANGES: tuple[Callable[[Random, Tensors], Tensors], ...] = (
    _with_prefix, _without_some, _with_another_head, _with_no_number, _turned,
)  # fmt: skip


def shards(rng: Random, folder: Path) -> None:
    """An index of several files of weights."""
    files = sound.model_folder()
    files["one.safetensors"] = files.pop("model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(("classifier.weight", "classifier.bias"), "one.safetensors")}
    if rng.random() < 0.3:  # files of the right form that are not each other's
        index["weight_map"]["classifier.bias"] = rng.choice(
            ("../one.safetensors", "/x", "two.safetensors", ".", "a/b", "\0")
        )
        files["two.safetensors"] = files["one.safetensors"]
    files["model.safetensors.index.json"] = damaged_json(rng, index)
    _load_model(rng, sound.write(folder, files))


def _load_model(rng: Random, folder: Path) -> None:
    labels = rng.choice((None, ("bad", "good"), ("good", "BAD"), ("a", "b", "c"), ("score",)))
    load_model(find_model(folder), labels)


def tokenizer(rng: Random, folder: Path) -> None:
    files = dict(rng.choice((sound.tokenizer(), sound.roberta_tokenizer())))
    name = rng.choice(sorted(files))
    if name.endswith(".json") and rng.random() < 0.7:
        files[name] = damaged_json(rng, json.loads(files[name]))
    else:
        files[name] = damaged(rng, files[name])
    if rng.random() < 0.2:
        del files[rng.choice(sorted(files))]
    _tokenize(folder, files)


def odd_tokenizer(rng: Random, folder: Path) -> None:
    """Files of the right form with parts and settings that are strange together."""
    files = dict(sound.tokenizer())
    values, settings = json.loads(files["tokenizer.json"]), json.loads(files["tokenizer_config.json"])
    for name in rng.sample(sorted(_PARTS), rng.randint(0, 2)):
        values[name] = rng.choice(_PARTS[name])
    for name in rng.sample(sorted(_ODD_SETTINGS), rng.randint(0, 3)):
        settings[name] = rng.choice(_ODD_SETTINGS[name])
    if rng.random() < 0.2:
        values["model"]["vocab"]["good"] = rng.choice((99, 100, 2**31, 2**32 - 1, 2**40, -1))
    files["tokenizer.json"], files["tokenizer_config.json"] = (json.dumps(one).encode() for one in (values, settings))
    if rng.random() < 0.3:
        del files[rng.choice(sorted(files))]
    _tokenize(folder, files)


def _tokenize(folder: Path, files: sound.Files) -> None:
    tokenizer = load_tokenizer(sound.write(folder, files), sound.LARGE)
    for texts in ([("good film",), ("a \u2603",), ("a" * 40 + "!",)], [("good", "[SEP]"), ("", "")]):
        for tokens in tokenize(tokenizer, texts, 12):
            assert len(tokens.input_ids) == len(tokens.token_type_ids)


_PARTS: Mapping[str, tuple[Any, ...]] = {
    "normalizer": (
        None, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**5},
        {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}]},
        {"type": "Prepend", "prepend": "x"},
    ),
    "pre_tokenizer": (
        None, {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Split", "pattern": {"Regex": "^(a+)+$"}, "behavior": "Isolated", "invert": False},
    ),
    "post_processor": (None, {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}),
    "truncation": (None, {"direction": "Left", "max_length": 3, "strategy": "OnlyFirst", "stride": 1}),
    "padding": ({"strategy": {"Fixed": 30}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 5, "pad_token": "[PAD]"},),
}  # fmt: skip
_ODD_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "model_max_length": (1, -5, 0, 1e30, 10**30, 12.0, 12.5, None, "x", True),
    "tokenizer_class": ("PreTrainedTokenizerFast", "RobertaTokenizer", "T5Tokenizer", "Nothing", None, 3),
    "do_lower_case": (True, False, None, "x"),
    "strip_accents": (True, False, None),
    "model_input_names": (["input_ids"], ["token_type_ids"], [], None, "x"),
    "add_bos_token": (True,),
    "padding_side": ("left", "x"),
    "truncation_side": ("left", "x"),
    "unk_token": ("[PAD]", "new", None, 3),
    "split_special_tokens": (True,),
}  # fmt: skip


# Runs


def latency_card(rng: Random, folder: Path) -> None:
    content = damaged_json(rng, json.loads(sound.card().to_json()))
    sound.write(folder, {"latency.json": content})
    wanted = {name: rng.choice(ODD_VALUES) for name in Where.model_fields if rng.random() < 0.1}
    latencies(read_card(folder / "latency.json", sound.FINGERPRINT), Where(**wanted))


def finished_run(rng: Random, folder: Path) -> None:
    """Its configuration, results or model, damaged."""
    files = dict(sound.run())
    name = rng.choice(("config.json", "results.json"))
    _write_run(folder, files | {name: damaged_json(rng, json.loads(files[name]))})
    run = read_finished(folder)
    run.subs, run.fingerprint  # noqa: B018 (what everything asks of it)


def reported_run(rng: Random, folder: Path) -> None:
    """Any text that a page is made of, damaged."""
    files = dict(sound.run())
    name = rng.choice([name for name in files if not name.endswith(".npz")])
    texts = files[name].splitlines() if name.endswith(".jsonl") else [files[name]]
    files[name] = b"\n".join(damaged_json(rng, json.loads(text)) for text in texts)
    _write_run(folder, files)
    document(facts(folder))


def _write_run(folder: Path, files: sound.Files) -> None:
    sound.write(folder, files)
    sound.write(folder / "model", sound.model_folder())


def model_json(rng: Random, _: Path) -> None:
    """A model's shape in our own JSON."""
    content = damaged_json(rng, json.loads(sound.tiny_run.MODEL.to_json()))
    ModelConfig.from_json(content.decode("utf-8", errors="replace"))


# By name, and how often of a hundred: what is quick and has many ways to fail more often.
READERS: Mapping[str, tuple[Attempt, int]] = {
    "configuration_file": (configuration_file, 8),
    "configuration_json": (configuration_json, 7),
    "model_json": (model_json, 2),
    "settings": (settings, 5),
    "table": (table, 16),
    "row_file": (row_file, 12),
    "two_readings": (two_readings, 8),
    "spelled_labels": (spelled_labels, 4),
    "glue_folder": (glue_folder, 3),
    "source_names": (source_names, 3),
    "model_configuration": (model_configuration, 9),
    "safetensors": (safetensors, 7),
    "torch_file": (torch_file, 8),
    "shards": (shards, 3),
    "tokenizer": (tokenizer, 5),
    "odd_tokenizer": (odd_tokenizer, 5),
    "other_models": (other_models, 5),
    "latency_card": (latency_card, 4),
    "finished_run": (finished_run, 4),
    "reported_run": (reported_run, 4),
}
