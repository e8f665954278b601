"""A run, in order, on one page.

Data and weights; fine-tune; score and rewire; learn every width; learn every width and depth; optionally fine-tune
all sub-networks on the labels; score every sub-network. A stopped run resumes from its last checkpoint when it is
started again with the same configuration. On several hosts, every host makes the same call (docs/scale.md).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dynabert_jax import recipe
from dynabert_jax.config.run import RunConfig
from dynabert_jax.data.encode import encode
from dynabert_jax.data.given import GivenRows
from dynabert_jax.data.texts import read_texts
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.plan import plan_run
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.given import check_kept, with_given
from dynabert_jax.system import devices
from dynabert_jax.train.answers import answer_dev
from dynabert_jax.train.context import Context, begun, check_same_run, keep_rows, what_is_known
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.dry_run import DryRun, try_out
from dynabert_jax.train.importance import score_importance
from dynabert_jax.train.loop import check_finished, train_stage
from dynabert_jax.train.preflight import (
    check_data,
    check_memory,
    check_metrics,
    check_settings,
    check_space,
    tell,
    tell_understood,
    warn_of_data,
    warn_of_dtype,
)
from dynabert_jax.train.results import Results, finished_before, publish
from dynabert_jax.train.take_over import check_source, open_source
from dynabert_jax.weights.files import classes_of, load_model
from dynabert_jax.weights.hub import find_model
from dynabert_jax.weights.rewire import by_importance, rewire


def train_run(
    config: RunConfig,
    from_run: str | Path | None = None,
    *,
    train: GivenRows | None = None,
    dev: GivenRows | None = None,
    test: GivenRows | None = None,
    unlabelled: GivenRows | None = None,
) -> Finished:
    """Trains all stages of the configuration and scores the sub-networks of the last one.

    A run that is finished is returned as it is, if its configuration and data are the same.

    Args:
        config: the whole run.
        from_run: the folder of another run. Its finished stages are taken over as long as they were made with the same
            settings, data and weights; the others train.
        train: rows in the place of the configuration's `train_file`: a pandas DataFrame, a `datasets.Dataset`, or a
            list of dicts, with the task's columns. A missing value is an empty cell. The rows are kept in the run's
            folder, where other commands find them; to resume, give the same ones again.
        dev: likewise; None: the configuration's, or a tenth of train is held out.
        test: likewise.
        unlabelled: rows of texts, in addition to `unlabelled_files`.

    Raises:
        UserError: something is wrong that the user can fix; most of it is found before the first step.
        Stopped: by SIGTERM or Ctrl-C, after all work is saved; the same call resumes.
    """
    given = {"train": train, "dev": dev, "test": test, "unlabelled": unlabelled}
    context = prepare(config, None, from_run, given)
    finished = finished_before(context)
    if finished is None:
        walk(context)
        devices.wait_for_all("the results are written")
    return finished or read_finished(context.folder.path)


def train_one_stage(config: RunConfig, stage: str, from_run: str | Path | None = None) -> Results:
    """Trains one stage, and scores the sub-networks that it trains.

    Args:
        config: the whole run.
        stage: its name; the stages before it must be finished, here or in `from_run`.
        from_run: as for `train_run`, which says what is raised, too.
    """
    return walk(prepare(config, stage, from_run))


def walk(context: Context) -> Results:
    """Goes through the stages of the plan in order: each is trained, resumed, or finished already."""
    plan, params = context.plan, context.first
    tell_understood(context.pretrained, context.data)
    tell(context.chosen)

    with begun(context):
        # 1. Keep the rows that are nowhere else, and give them the teacher's answers where they have no labels.
        keep_rows(context)
        answer_dev(context)

        # 2. Fine-tune the full network on the labels: the first teacher.
        if plan.fine_tune:
            params = train_stage(context, Distillation(plan.fine_tune), params, teacher=None)
        teacher = params

        # 3. Put the important heads and neurons first, then let every width learn from the fine-tuned network.
        if plan.width and context.config.importance:
            order = by_importance(score_importance(context, context.config.importance, params))
            params = train_stage(context, Distillation(plan.width), rewire(params, order), teacher=params)

        # 4. Let every width and depth learn from the width-adaptive network.
        if plan.depth:
            params = train_stage(context, Distillation(plan.depth), params, teacher=params)

        # 5. Fine-tune all sub-networks on the labels.
        if plan.final:
            params = train_stage(context, Distillation(plan.final), params, teacher=None)

        # 6. Write the weights that every sub-network is cut from, and score each of them and their first teacher.
        return publish(context, params, teacher)


def dry_run(
    config: RunConfig,
    only: str | None = None,
    from_run: str | Path | None = None,
    *,
    train: GivenRows | None = None,
    dev: GivenRows | None = None,
    test: GivenRows | None = None,
    unlabelled: GivenRows | None = None,
) -> DryRun:
    """Checks everything, runs a few steps of every stage, and reports what `train_run` would do. Writes nothing.

    Args:
        config: the whole run.
        only: the name of the only stage to train, as for `train_one_stage`; None: all.
        from_run, train, dev, test, unlabelled: as for `train_run`.
    """
    given = {"train": train, "dev": dev, "test": test, "unlabelled": unlabelled}
    context = prepare(config, only, from_run, given)
    return try_out(context, [Distillation(stage) for stage in context.plan.stages], context.first)


def prepare(
    config: RunConfig,
    only: str | None = None,
    from_run: str | Path | None = None,
    splits: Mapping[str, GivenRows | None] = MappingProxyType({}),
) -> Context:
    """Reads and checks everything that a run needs, and chooses what the configuration leaves open. Writes nothing.

    Args:
        splits: rows that are given, by the name of the split.
    """
    config, given = with_given(config, splits)
    folder, asked, task = RunFolder.open(config), config, config.data.task
    source = open_source(folder, from_run)
    settings = settings_so_far(asked, folder, source)
    of_model = classes_of(find_model(settings.model), task) if settings.data.only_unlabelled else ()
    texts = read_texts(settings.data, of_model, given)
    check_kept(given)
    check_metrics(task, texts.labels)
    start = find_model(settings.model)
    pretrained = load_model(start, labels=task.outputs(texts.labels), seed=settings.seed, head=task.kind)
    data = encode(texts, load_tokenizer(start, pretrained.config), recipe.longest_text(settings, pretrained.config))
    known = what_is_known(settings, data)
    config = recipe.complete(settings, pretrained.config, known)
    plan = plan_run(pretrained.config, config if only is None else config.until(only))
    check_settings(config, pretrained)
    warn_of_dtype(config)
    check_space(config, pretrained)
    warn_of_data(data)
    check_data(config, pretrained, data)
    check_memory(config, plan.stages, pretrained, data)
    chosen = recipe.told(asked, config, pretrained.config, known)
    context = Context(config, plan, pretrained, data, folder, source, only, chosen, given)
    if devices.num_hosts() > 1:  # one process has nothing to compare, and hashing all that takes a while
        check_same_run(context)
    if only is not None:
        before = [Distillation(stage) for stage in plan.stages[:-1]]
        check_finished(context, before) if context.source is None else check_source(context, before)
    return context


def settings_so_far(config: RunConfig, folder: RunFolder, source: RunFolder | None) -> RunConfig:
    """The configuration with what it leaves open taken from the run that it resumes or whose stages it takes over."""
    begun_before = source if source is not None and not folder.config_file.exists() else folder
    return begun_before.resumed(config)
