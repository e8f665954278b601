"""BERT-base on GLUE's MRPC: do two sentences say the same? 3,668 pairs to train on; scored by accuracy.

    python train.py configs/glue_mrpc.py                                      data from the hub (nyu-mll/glue)
    python train.py configs/glue_mrpc.py --data.glue-folder glue_data/MRPC    GLUE's own TSV files

configs/README.md says where the settings come from and what could not be checked. Not run yet: no score, no time.
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Importance, Optimizer, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

optimizer = Optimizer(learning_rate=2e-5, warmup=0.0)

config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/glue_mrpc",
    data=DataConfig(task=task("mrpc"), lengths=(32, 64, 128), batch_size=32),
    fine_tune=FineTune(epochs=3, optimizer=optimizer, evaluations=2),
    importance=Importance(split="dev"),
    width=WidthStage(epochs=3, optimizer=optimizer, evaluations=2),
    depth=DepthStage(epochs=3, optimizer=optimizer, evaluations=2),
)
