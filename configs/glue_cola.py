"""BERT-base on GLUE's CoLA: is a sentence acceptable English? 8,551 sentences to train on; scored by Matthews
correlation.

    python train.py configs/glue_cola.py                                      data from the hub (nyu-mll/glue)
    python train.py configs/glue_cola.py --data.glue-folder glue_data/CoLA    GLUE's own TSV files

configs/README.md says where the settings come from and what could not be checked. Not run yet: no score, no time.
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Importance, Optimizer, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

optimizer = Optimizer(learning_rate=2e-5, warmup=0.0)

config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/glue_cola",
    data=DataConfig(task=task("cola"), lengths=(32, 64, 128), batch_size=32),
    fine_tune=FineTune(epochs=3, optimizer=optimizer, evaluations=5),
    importance=Importance(split="dev"),
    width=WidthStage(epochs=3, optimizer=optimizer, evaluations=5),
    depth=DepthStage(epochs=3, optimizer=optimizer, evaluations=5),
)
