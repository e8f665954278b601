"""A model that you have fine-tuned yourself is the teacher: nothing is fine-tuned, and every size learns from it.

bash scripts/run.sh configs/own_teacher.py --model FOLDER

FOLDER holds a BERT or RoBERTa in Hugging Face's format, fine-tuned on movie reviews (negative, positive). Texts without
labels help, too: append --data.unlabelled-files more.txt. docs/shrink.md says more.
"""

from dynabert_jax.config import DataConfig, RunConfig
from dynabert_jax.config.tasks import task

config = RunConfig(
    model="my_model",
    run_dir="runs/own_teacher",
    fine_tune=None,
    data=DataConfig(task=task("movie_reviews")),
)
