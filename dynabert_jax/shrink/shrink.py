"""Train, measure, choose and export: a model or a finished run -> one small model in a folder, and what it costs."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import get_args

from dynabert_jax import cost
from dynabert_jax.choose.backends import BackendName
from dynabert_jax.choose.bench import BenchSettings, bench_run, check_backends, here
from dynabert_jax.choose.choose import Candidate, ChoiceError, Limits
from dynabert_jax.choose.question import Answer, Question, ask
from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.stages import FineTune
from dynabert_jax.cost import size
from dynabert_jax.data.texts import read_texts
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate.rows import shown
from dynabert_jax.export.export import Exported, export_run
from dynabert_jax.export.folder import check_target
from dynabert_jax.export.formats import FormatName, find_format
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.folder import is_run
from dynabert_jax.runs.latency_card import LatencyError, Where
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import expanded
from dynabert_jax.train.run import train_run
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.hub import find_model

log = logging.getLogger(__name__)

INT8: BackendName = "onnxruntime-int8"
POINT = Limits(max_loss=1.0)  # the smallest size that is at most one point below the teacher


class ShrinkError(UserError, ValueError):
    """A request that contradicts itself; the message says what was given and what to do."""


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """The exported model, and what it gained and lost.

    Attributes:
        run: the folder of the run that it was cut from.
        answer: the choice, with the scores and latencies that it is based on.
        exported: what was written.
        parameters: of the full network.
    """

    run: Path
    answer: Answer
    exported: Exported
    parameters: int

    @property
    def best(self) -> Candidate:
        return self.answer.best

    @property
    def speed_up(self) -> float | None:
        """How many times as fast as the full network it is; None if no latency was asked for."""
        return next((row.speed_up for row in self.answer.measured if row.sub == self.best.sub), None)

    @property
    def summary(self) -> str:
        """What was gained and lost against the teacher, in one line."""
        row, teacher = self.answer.rows[0], self.answer.teacher
        score = f"{row.measure} x 100 is {shown(row.metric, self.best.score)}"
        if teacher is not None:
            change = 100 * (self.best.score - teacher.score)
            score += f", {change:+.2f} against the teacher's {shown(row.metric, teacher.score)}"
        own = [one for one in self.exported.losses if one.split == row.split]
        in_8_bits = [f"{shown(row.metric, one.quantized)} in 8 bits, in which it is exported" for one in own]
        parts = [score, *in_8_bits, f"{size(self.best.parameters)} parameters of {size(self.parameters)}"]
        if self.speed_up is not None and self.best.latency_ms is not None:
            parts.append(f"{self.best.latency_ms:.4g} ms, {self.speed_up:.2f} times as fast as the full network")
        return f"{self.best.sub} in {self.exported.folder}: {'; '.join(parts)}"

    def __str__(self) -> str:
        return f"{self.answer}\n\n{self.exported}\n\n{self.summary}"

    def to_json(self) -> str:
        """The same as JSON; scores are fractions."""
        values = {
            "run": str(self.run),
            "chosen": dataclasses.asdict(self.best),
            "metric": self.answer.rows[0].metric,
            "against": self.answer.rows[0].against,
            "teacher": None if self.answer.teacher is None else self.answer.teacher.score,
            "parameters_of_full": self.parameters,
            "speed_up": self.speed_up,
            "exported": json.loads(self.exported.to_json()),
        }
        return json.dumps(values, indent=2)


def shrink_run(
    source: str | Path,
    out: str | Path,
    data: DataConfig | None = None,
    limits: Limits = POINT,
    *,
    backend: BackendName | None = None,
    format: FormatName | None = None,
    run_dir: str | Path | None = None,
    force: bool = False,
) -> Shrunk:
    """Trains unless there is a finished run, times the sizes if a latency is limited, chooses one, and exports it.

    Everything is kept in the run's folder, so that a call that was stopped, or has another budget, goes on from there.

    Args:
        source: the folder of a finished run; or a model, as in `RunConfig.model`. A model whose head fits the data is
            the teacher; any other is fine-tuned first.
        out: the folder to export to.
        data: what a model is trained on; None with a finished run.
        limits: the budget; by default the cheapest size whose score is at most 1 point below the teacher's.
        backend: what will run the network: latencies and, in 8 bits, scores are of it. None: what runs the format.
        format: of the export. None: what the backend runs; for jax, Hugging Face's.
        run_dir: where a model is trained; None: `runs/` and the name of `out`.
        force: replace `out` if it is an earlier export.

    Raises:
        ShrinkError: the arguments contradict each other.
        UserError: as `train_run`, `bench_run`, `choose_run` and `export_run` raise it; what can be found before
            training is.
    """
    out, backend, format = expanded(out), *_matched(backend, format)
    check_target(out, force)
    find_format(format)
    if limits.max_latency_ms is not None:
        check_backends(BenchSettings(backends=(backend,)))
    run = _finished(source, data, run_dir) if is_run(expanded(source)) else _trained(source, data, run_dir, out)
    answer = _choice(run, limits, backend)
    exported = export_run(run.folder.path, format, out, subs=[answer.best.sub], force=force, int8=backend == INT8)
    full = cost.parameters(run.shape, SubNetwork.full(run.shape))
    return Shrunk(run.folder.path, answer, exported, full)


def _matched(backend: BackendName | None, format: FormatName | None) -> tuple[BackendName, FormatName]:
    """The backend and the format, each by the other if it is not given."""
    if backend is not None and backend not in get_args(BackendName):
        raise ShrinkError(f"there is no backend {backend!r}; there are {', '.join(get_args(BackendName))}")
    if format is None:
        format = "hf" if backend in (None, "jax") else "onnx"
    if backend is None:
        backend = "onnxruntime" if format == "onnx" else "jax"
    if (backend == "jax") == (format == "onnx"):
        raise ShrinkError(
            f"backend {backend} does not run what is exported as {format}; leave one of the two out, and it follows "
            "from the other"
        )
    return backend, format


# The run


def _finished(source: str | Path, data: DataConfig | None, run_dir: str | Path | None) -> Finished:
    if data is not None or run_dir is not None:
        raise ShrinkError(f"{source} is a run, which has its data and its folder; leave out the data and --run-dir")
    return read_finished(expanded(source))


def _trained(model: str | Path, data: DataConfig | None, run_dir: str | Path | None, out: Path) -> Finished:
    """The run of a model; one that is finished trains nothing."""
    if data is None:
        raise ShrinkError(
            f"{model} is a model, or there is no finished run of that name: to train, add --train with labelled data, "
            "or --unlabelled with texts"
        )
    folder = expanded(run_dir or Path("runs") / out.name)
    config = RunConfig(model=str(model), run_dir=str(folder), data=data, fine_tune=None)
    reason = "" if data.only_unlabelled else _why_no_teacher(config)
    if reason:
        log.info("%s is fine-tuned first: %s", model, reason)
        config = config.replace(fine_tune=FineTune())
    else:
        log.info("%s is the teacher, as it is", model)
    log.info("the run is in %s", folder)
    return train_run(config)


def _why_no_teacher(config: RunConfig) -> str:
    """Why a model's head does not fit the labelled data, in words; empty if it does."""
    task, labels = config.data.task, read_texts(config.data).labels
    model = load_model(find_model(config.model), labels=task.outputs(labels), seed=config.seed, head=task.kind)
    theirs = model.checkpoint_labels
    nameless = theirs == tuple(f"LABEL_{i}" for i in range(len(theirs)))
    if model.new:
        return f"it has no {' and no '.join(model.new)} for {', '.join(model.config.labels)}"
    if model.labels_by_position and not nameless:
        return f"its classes are {', '.join(theirs)}, and those of the data {', '.join(labels)}"
    return ""


# The choice


def _choice(run: Finished, limits: Limits, backend: BackendName) -> Answer:
    """The best size; it is measured if a latency is limited, and no measurement of this device is there."""
    by_latency = limits.max_latency_ms is not None
    where = Where()
    if by_latency:
        dtype = run.config.dtype if backend == "jax" else None
        where = Where(
            device=here((backend,)).device, backend=backend, dtype=dtype, batch=1, length=run.config.data.max_length
        )
    question = Question(limits, where)
    path = run.folder.path
    try:
        answer = ask(path, question)
    except LatencyError:
        bench_run(path, BenchSettings(backends=(backend,)))
        answer = ask(path, question)
    if answer.choice.best is None:
        try:
            _ = answer.best
        except ChoiceError as error:
            raise ChoiceError(f"{error}\nNothing trains again: repeat the command with another limit") from None
    return answer
