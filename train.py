"""Trains a DynaBERT:

    python train.py configs/movie_reviews_quick.py

The walk in time order: data and weights; fine-tune; score and rewire; learn every width; learn every width and depth;
optionally fine-tune them all on the labels; score every sub-network. A run that was stopped goes on from its last
checkpoint when the same command is given again. On several hosts, every one gives this command (docs/scale.md).
"""

import signal
import sys

if __name__ == "__main__":
    # Until `cli` listens, there is nothing to save: Ctrl-C ends at once, without a traceback of what is being imported.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


from dynabert_jax.cli.train import main
from dynabert_jax.config import RunConfig
from dynabert_jax.data.encode import encode, load_tokenizer
from dynabert_jax.data.texts import read_texts
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.plan import plan_run
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.train.context import Context, check_same_run
from dynabert_jax.train.dry_run import rehearse
from dynabert_jax.train.importance import score_importance
from dynabert_jax.train.loop import check_finished, train_stage
from dynabert_jax.train.preflight import check_data, check_memory, check_settings, check_space, warn_of_dtype
from dynabert_jax.train.results import publish
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.hub import find_model
from dynabert_jax.weights.rewire import by_importance, rewire


def run(config: RunConfig, only: str | None = None, *, dry_run: bool = False) -> list[Row]:
    """Goes through the stages that the configuration names and scores the last one's sub-networks.

    Args:
        config: the whole run.
        only: train the stage of this name alone and end behind it; the ones before it must be finished.
        dry_run: check everything, take a few steps of every stage, print what the run would do, and write nothing.
    """
    # 1. The run folder, the data, the pretrained weights: what can be wrong is found out before anything is written.
    folder = RunFolder.open(config)
    texts = read_texts(config.data)
    source = find_model(config.model)
    pretrained = load_model(source, labels=config.data.task.outputs(texts.labels), seed=config.seed)
    check_settings(config, pretrained)
    warn_of_dtype(config)
    check_space(config, pretrained)
    data = encode(texts, load_tokenizer(source), config.data.max_length)
    check_data(config, pretrained, data)
    check_memory(config, pretrained, data)
    context, params = Context(config, pretrained, data, folder), pretrained.params
    check_same_run(context)
    plan = plan_run(pretrained.config, config if only is None else config.until(only))
    if only is not None:
        check_finished(context, plan.objectives[:-1])
    if dry_run:
        return rehearse(context, plan, params)

    with folder.begun(config):
        # 2. Fine-tune the full network on the labels: the first teacher.
        if plan.fine_tune:
            params = train_stage(context, plan.fine_tune, params, teacher=None)

        # 3. Put the important heads and neurons first, then let every width learn from the fine-tuned network.
        if plan.width and config.importance:
            order = by_importance(score_importance(context, config.importance, params))
            params = train_stage(context, plan.width, rewire(params, order), teacher=params)

        # 4. Let every width and depth learn from the width-adaptive network.
        if plan.depth:
            params = train_stage(context, plan.depth, params, teacher=params)

        # 5. Fine-tune all sub-networks on the labels.
        if plan.final:
            params = train_stage(context, plan.final, params, teacher=None)

        # 6. Write the weights that every sub-network is cut from, and score each of them.
        return publish(context, plan, params, source)


if __name__ == "__main__":
    sys.exit(main(run))
