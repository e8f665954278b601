"""MiniLM (22M parameters) on all movie reviews: about 8,000 sentences to train on, 1,000 to select by, 1,000 to test.

python train.py configs/movie_reviews.py
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Optimizer, RunConfig, WidthStage
from dynabert_jax.tasks import task

optimizer = Optimizer(learning_rate=5e-5, warmup=0.1)

config = RunConfig(
    model="sample:minilm",
    run_dir="runs/movie_reviews",
    data=DataConfig(task=task("movie_reviews"), max_length=64, lengths=(32, 64)),
    fine_tune=FineTune(epochs=3, optimizer=optimizer),
    width=WidthStage(epochs=2, optimizer=optimizer),
    depth=DepthStage(epochs=2, optimizer=optimizer),
)
