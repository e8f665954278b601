"""BERT-base on GLUE's QQP: do two questions ask the same? 363,846 pairs to train on; scored by accuracy.

    python train.py configs/glue_qqp.py                                     data from the hub (nyu-mll/glue)
    python train.py configs/glue_qqp.py --data.glue-folder glue_data/QQP    GLUE's own TSV files

configs/README.md says where the settings come from and what could not be checked. Not run yet: no score, no time.
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Importance, Optimizer, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

optimizer = Optimizer(learning_rate=2e-5, warmup=0.0)

config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/glue_qqp",
    data=DataConfig(task=task("qqp"), lengths=(32, 64, 128), batch_size=32),
    fine_tune=FineTune(epochs=3, optimizer=optimizer, evaluations=10),
    importance=Importance(split="dev"),
    width=WidthStage(epochs=3, optimizer=optimizer, evaluations=10),
    depth=DepthStage(epochs=3, optimizer=optimizer, evaluations=10),
)
