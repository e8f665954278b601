"""BERT-base on GLUE's SST-2: is a film review positive? 67,349 phrases to train on; scored by accuracy.

    python train.py configs/glue_sst2.py                                       data from the hub (nyu-mll/glue)
    python train.py configs/glue_sst2.py --data.glue-folder glue_data/SST-2    GLUE's own TSV files

configs/README.md says where the settings come from and what could not be checked. Not run yet: no score, no time.
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Importance, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/glue_sst2",
    data=DataConfig(task=task("sst2")),
    fine_tune=FineTune(evaluations=10),
    importance=Importance(split="dev"),
    width=WidthStage(evaluations=10),
    depth=DepthStage(evaluations=10),
)
