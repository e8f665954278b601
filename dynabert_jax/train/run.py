"""A run, in order, on one page.

Data and weights; fine-tune; score and rewire; learn every width; learn every width and depth; optionally fine-tune
all sub-networks on the labels; score every sub-network. A stopped run resumes from its last checkpoint when it is
started again with the same configuration. On several hosts, every host makes the same call (docs/scale.md).
"""

from pathlib import Path

from dynabert_jax import recipe
from dynabert_jax.config.run import RunConfig
from dynabert_jax.data.encode import encode
from dynabert_jax.data.texts import read_texts
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.plan import plan_run
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.system import devices
from dynabert_jax.train.answers import answer_dev
from dynabert_jax.train.context import Context, begun, check_same_run, what_is_known
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
from dynabert_jax.train.results import Results, publish
from dynabert_jax.train.take_over import check_source, open_source
from dynabert_jax.weights.files import classes_of, load_model
from dynabert_jax.weights.hub import find_model
from dynabert_jax.weights.rewire import by_importance, rewire


def train_run(config: RunConfig, only: str | None = None, from_run: str | Path | None = None) -> Results:
    """Trains the stages of the configuration and scores the sub-networks of the last one.

    Args:
        config: the whole run.
        only: the name of the only stage to train; the stages before it must be finished, here or in `from_run`.
        from_run: the folder of another run. Its finished stages are taken over as long as they were made with the same
            settings, data and weights; the others train.

    Raises:
        UserError: something is wrong that the user can fix; most of it is found before the first step.
        Stopped: by SIGTERM or Ctrl-C, after all work is saved; the same call resumes.
    """
    # 1. Read and check the data, the pretrained weights and the run folder before anything is written.
    context = prepare(config, only, from_run)
    plan, params = context.plan, context.first
    tell_understood(context.pretrained, context.data)
    tell(context.chosen)

    with begun(context):
        answer_dev(context)  # where it has no labels

        # 2. Fine-tune the full network on the labels: the first teacher.
        if plan.fine_tune:
            params = train_stage(context, Distillation(plan.fine_tune), params, teacher=None)
        teacher = params

        # 3. Put the important heads and neurons first, then let every width learn from the fine-tuned network.
        if plan.width and config.importance:
            order = by_importance(score_importance(context, config.importance, params))
            params = train_stage(context, Distillation(plan.width), rewire(params, order), teacher=params)

        # 4. Let every width and depth learn from the width-adaptive network.
        if plan.depth:
            params = train_stage(context, Distillation(plan.depth), params, teacher=params)

        # 5. Fine-tune all sub-networks on the labels.
        if plan.final:
            params = train_stage(context, Distillation(plan.final), params, teacher=None)

        # 6. Write the weights that every sub-network is cut from, and score each of them and their first teacher.
        return publish(context, params, teacher)


def dry_run(config: RunConfig, only: str | None = None, from_run: str | Path | None = None) -> DryRun:
    """Checks everything, runs a few steps of every stage, and reports what `train_run` would do. Writes nothing."""
    context = prepare(config, only, from_run)
    return try_out(context, [Distillation(stage) for stage in context.plan.stages], context.first)


def prepare(config: RunConfig, only: str | None = None, from_run: str | Path | None = None) -> Context:
    """Reads and checks everything that a run needs, and chooses what the configuration leaves open. Writes nothing."""
    folder, asked, task = RunFolder.open(config), config, config.data.task
    source = open_source(folder, from_run)
    settings = settings_so_far(asked, folder, source)
    of_model = classes_of(find_model(settings.model), task) if settings.data.only_unlabelled else ()
    texts = read_texts(settings.data, of_model)
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
    context = Context(config, plan, pretrained, data, folder, source, only, chosen)
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
