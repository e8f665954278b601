"""BERT-base on GLUE's STS-B: how alike are two sentences, from 0 to 5? 5,749 pairs to train on; scored by Pearson
correlation.

    python train.py configs/glue_stsb.py                                       data from the hub (nyu-mll/glue)
    python train.py configs/glue_stsb.py --data.glue-folder glue_data/STS-B    GLUE's own TSV files

configs/README.md says where the settings come from and what could not be checked. Not run yet: no score, no time.
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Importance, Optimizer, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

optimizer = Optimizer(learning_rate=2e-5, warmup=0.0)

config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/glue_stsb",
    data=DataConfig(task=task("stsb"), lengths=(32, 64, 128), batch_size=32),
    fine_tune=FineTune(epochs=3, optimizer=optimizer, evaluations=4),
    importance=Importance(split="dev"),
    width=WidthStage(epochs=3, optimizer=optimizer, evaluations=4),
    depth=DepthStage(epochs=3, optimizer=optimizer, evaluations=4),
)
