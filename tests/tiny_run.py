"""What whole runs are tried on: a model of twenty words, sentences that two of them decide, and a configuration."""

import contextlib
import csv
import dataclasses
import json
import logging
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from dynabert_jax.config import Importance, ModelConfig
from dynabert_jax.config.complete import (
    CompleteData,
    CompleteDepthStage,
    CompleteFinalStage,
    CompleteFineTune,
    CompleteOptimizer,
    CompleteRun,
    CompleteWidthStage,
)
from dynabert_jax.config.tasks import Task
from dynabert_jax.runs.finished import Finished as FinishedRun
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.origin import Origin, settings_of
from dynabert_jax.train.objective import Objective
from dynabert_jax.train.step import make_update
from dynabert_jax.weights.files import load_model, save_model
from tiny import Params, random_params

GOOD, BAD = ("good", "great", "fine"), ("bad", "awful", "poor")
OTHER = ("film", "plot", "scene", "actor", "the", "a", "was", "and", "very")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER)
LABELS = ("bad", "good")

MODEL = ModelConfig(
    model_type="bert",
    vocab_size=len(VOCABULARY),
    hidden_size=16,
    head_size=4,
    heads=(4, 4),
    neurons=(24, 24),
    max_position_embeddings=24,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    pad_token_id=0,
    hidden_dropout=0.1,
    attention_dropout=0.0,
    labels=LABELS,
)
TASK = Task(name="words", text_columns=("text",), labels=LABELS)
STEPS = 12  # of every stage: 44 sentences make 6 batches of 8, and there are 2 epochs

Row = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Materials:
    """A pretrained model without a classifier and files of sentences, in one folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def file(self, split: str) -> str:
        return str(self.folder / f"{split}.csv")

    def data(self, **changes: Any) -> CompleteData:
        files = {f"{split}_file": self.file(split) for split in ("train", "dev", "test")}
        values = {"task": TASK, "lengths": (12,), "batch_size": 8, "eval_batch_size": 8}
        return CompleteData(**(files | values | changes))

    def config(self, run_dir: Path, **changes: Any) -> CompleteRun:
        """All four stages, of the same length so that they share compiled updates."""
        stage = {"epochs": 2, "optimizer": CompleteOptimizer(learning_rate=1e-2)}
        values = {
            "model": str(self.model),
            "run_dir": str(run_dir),
            "data": self.data(),
            "fine_tune": CompleteFineTune(**stage, keep="last"),
            "importance": Importance(batch_size=8, max_examples=20),
            "width": CompleteWidthStage(**stage, widths=(1.0, 0.5)),
            "depth": CompleteDepthStage(**stage, widths=(1.0, 0.5), depths=(1.0, 0.5)),
            "final": CompleteFinalStage(**stage, widths=(1.0,), depths=(1.0, 0.5)),
            "log_every": 5,
            "checkpoint_every": 4,
        }
        return CompleteRun(**(values | changes))

    def few_students(self, run_dir: Path, **changes: Any) -> CompleteRun:
        """All four stages, of five students together: compiling them takes most of a run's time."""
        config = self.config(run_dir, **changes)
        assert config.width is not None
        assert config.depth is not None
        assert config.final is not None
        return config.replace(
            width=config.width.replace(widths=(0.5,)),
            depth=config.depth.replace(widths=(1.0,)),
            final=config.final.replace(depths=(0.5,)),
        )

    def fine_tuning(self, run_dir: Path, **changes: Any) -> CompleteRun:
        """The first stage alone."""
        return self.config(run_dir, **({"importance": None, "width": None, "depth": None, "final": None} | changes))


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that was made in this process, what it returned, logged and showed, and the programs it compiled."""

    config: CompleteRun
    results: FinishedRun
    messages: list[str]
    errors: str
    programs: Path

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)


def write_materials(folder: Path) -> Materials:
    materials = Materials(folder)
    write_model(materials.model, MODEL)
    for seed, (split, count) in enumerate({"train": 44, "dev": 21, "test": 13}.items()):
        write_csv(Path(materials.file(split)), ("text", "label"), sentences(count, seed))
    return materials


def write_model(folder: Path, config: ModelConfig) -> None:
    """In Hugging Face's format, with a vocabulary for tokenizer. It knows good words from bad ones, if not for what."""
    params = random_params(config)
    words = params["embeddings"]["word"]["embedding"]  # [V, H]
    direction = np.random.default_rng(1).standard_normal(config.hidden_size, np.float32)  # [H]
    for sign, group in ((4.0, GOOD), (-4.0, BAD)):
        words[[VOCABULARY.index(word) for word in group]] += sign * direction
    save_model(folder, config, params)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")


def sentences(count: int, seed: int) -> list[Row]:
    """Texts of 1 to 9 words, one of which is good or bad, and what they are."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.choice(LABELS)
        words = [rng.choice(OTHER) for _ in range(rng.randrange(9))]
        words.insert(rng.randint(0, len(words)), rng.choice(GOOD if label == "good" else BAD))
        rows.append((" ".join(words), label))
    return rows


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Row], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])


def shared_updates() -> Callable[[Objective, int], Any]:
    """`make_update`, made once for each optimizer and number of steps: its result depends on nothing else here."""
    made: dict[tuple[CompleteOptimizer, int], Any] = {}

    def make(objective: Objective, total_steps: int) -> Any:
        key = (objective.stage.settings.optimizer, total_steps)
        if key not in made:
            made[key] = make_update(objective, total_steps)
        return made[key]

    return make


@contextlib.contextmanager
def programs_kept_in(folder: Path) -> Iterator[None]:
    """Writes compiled programs to a folder, where processes with `cache_settings` in their environment find them."""
    settings = {name.lower(): value for name, value in cache_settings(folder).items()}
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax decides at its first compilation whether it uses one
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@contextlib.contextmanager
def messages_logged() -> Iterator[list[str]]:
    """What the package reports in the block, one message after the other."""
    messages: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("dynabert_jax")
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def cache_settings(folder: Path) -> dict[str, Any]:
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0.0,
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
    }


def write_config(path: Path, config: CompleteRun) -> Path:
    """A configuration as users have it."""
    path.with_suffix(".json").write_text(config.to_json())
    path.write_text(
        "from pathlib import Path\n\nfrom dynabert_jax import RunConfig\n\n"
        'config = RunConfig.from_json(Path(__file__).with_suffix(".json").read_text())\n'
    )
    return path


def any_origin(config: CompleteRun, part: str) -> Origin:
    """Of a part of a run, whatever its data and weights are."""
    return Origin(part, settings_of(config, part), None, None, None)


def record_model(run: Path) -> None:
    """As if the run had made the model that is there, with the configuration that is there."""
    folder = RunFolder(run)
    origin = Origin("model", folder.config(), None, None, load_model(folder.model).fingerprint)
    folder.write_model_record(origin)


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_equal_trees(left: Params, right: Params) -> None:
    """Bit for bit on the CPU; accelerators may add in another order each time."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    tolerance = 0.0 if jax.default_backend() == "cpu" else 1e-4
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def cpu_devices(number: int) -> dict[str, str]:
    """The environment of a process that has so many devices of the CPU, and this one's other flags."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={number}"}
