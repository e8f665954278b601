"""MiniLM (22M parameters) on all movie reviews: about 8,000 sentences to train on, 1,000 to select by, 1,000 to test.

python train.py configs/movie_reviews.py

26 minutes on 2 cores of an Intel Xeon; mean test accuracy of the twelve sub-networks 87.28, of their teacher 87.95
(seed 42).
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Optimizer, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

optimizer = Optimizer(learning_rate=1e-4, warmup=0.1)

config = RunConfig(
    model="sample:minilm",
    run_dir="runs/movie_reviews",
    data=DataConfig(task=task("movie_reviews"), lengths=(24, 48), batch_size=32),
    fine_tune=FineTune(epochs=2, evaluations=1, optimizer=optimizer),
    width=WidthStage(epochs=1, evaluations=1, optimizer=optimizer),
    depth=DepthStage(epochs=1, evaluations=1, optimizer=optimizer),
    dtype="bfloat16",
)
