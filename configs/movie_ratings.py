"""MiniLM (22M parameters) on the ratings of all movie reviews, a regression: how positive is a sentence, from -4 to 4?
8,485 sentences to train on, 1,060 to select by, 1,060 to test; scored by Pearson correlation. Not run yet: no score,
no time.

python train.py configs/movie_ratings.py
"""

from dynabert_jax.config import DataConfig, DepthStage, FineTune, Optimizer, RunConfig, WidthStage
from dynabert_jax.config.tasks import task

optimizer = Optimizer(learning_rate=1e-4, warmup=0.1)

config = RunConfig(
    model="sample:minilm",
    run_dir="runs/movie_ratings",
    data=DataConfig(task=task("movie_ratings"), lengths=(24, 48), batch_size=32),
    fine_tune=FineTune(epochs=2, evaluations=1, optimizer=optimizer),
    width=WidthStage(epochs=1, evaluations=1, optimizer=optimizer),
    depth=DepthStage(epochs=1, evaluations=1, optimizer=optimizer),
    dtype="bfloat16",
)
