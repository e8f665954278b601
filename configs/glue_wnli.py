"""BERT-base on GLUE's WNLI: what does a pronoun refer to? 635 pairs to train on; scored by accuracy.

    python train.py configs/glue_wnli.py                                      data from the hub (nyu-mll/glue)
    python train.py configs/glue_wnli.py --data.glue-folder glue_data/WNLI    GLUE's own TSV files

configs/README.md says where the settings come from and what could not be checked. Not run yet: no score, no time.
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Importance, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/glue_wnli",
    data=DataConfig(task=task("wnli")),
    fine_tune=FineTune(),
    importance=Importance(split="dev"),
    width=WidthStage(),
    depth=DepthStage(),
)
