"""What the arguments of Hugging Face's Trainer, and of its example scripts, are called here."""

from collections.abc import Mapping

STAGES = ("fine_tune", "width", "depth")


def _of_stages(name: str) -> tuple[str, ...]:
    return tuple(f"{stage}.{name}" for stage in STAGES)


# Settings of a RunConfig, as dotted paths, and what is different about them.
Here = tuple[tuple[str, ...], str]

_EPOCHS: Here = (_of_stages("epochs"), "every stage has its own; --epochs sets all")
_BATCH: Here = (("data.batch_size",), "it counts the examples of all devices together")
_EVAL_BATCH: Here = (("data.eval_batch_size",), "it counts the examples of all devices together")
_LENGTHS: Here = (("data.lengths",), "the largest is the one to which texts are truncated")
_EVALUATIONS: Here = (_of_stages("evaluations"), "per epoch; there is always one at its end")
_WARMUP: Here = (_of_stages("optimizer.warmup"), "as a fraction of the stage's steps")
_DTYPE: Here = (("dtype",), "bfloat16 or float32; there is no float16")
_TEXTS: Here = (("data.task.text_columns",), "")

TRAINER_NAMES: Mapping[str, Here] = {
    "adam_beta1": (_of_stages("optimizer.b1"), ""),
    "adam_beta2": (_of_stages("optimizer.b2"), ""),
    "adam_epsilon": (_of_stages("optimizer.eps"), ""),
    "bf16": _DTYPE,
    "data_seed": (("data.split_seed", "seed"), "the first draws held-out rows, the second all else"),
    "dataset_config_name": (("data.hub",), "as path:configuration"),
    "dataset_name": (("data.hub",), "as path or path:configuration"),
    "do_eval": ((), "leave it out: every run scores its sub-networks"),
    "do_predict": ((), "leave it out: `dynabert predict RUN` predicts"),
    "do_regression": (("data.task.kind",), "regression or classification"),
    "do_train": ((), "leave it out: every run trains"),
    "eval_steps": _EVALUATIONS,
    "eval_strategy": _EVALUATIONS,
    "evaluation_strategy": _EVALUATIONS,
    "fp16": _DTYPE,
    "gradient_accumulation_steps": (
        ("gradient_accumulation",),
        "it divides a batch, and does not enlarge it; data.batch_size is the whole batch",
    ),
    "gradient_checkpointing": (("rematerialize",), ""),
    "label_column_name": (("data.task.label_column",), ""),
    "learning_rate": (_of_stages("optimizer.learning_rate"), "every stage has its own; --learning-rate sets all"),
    "load_best_model_at_end": (_of_stages("keep"), "best, which is the default, or last"),
    "logging_dir": (("run_dir",), "its tensorboard/ has the curves"),
    "logging_steps": (("log_every",), ""),
    "lr": (_of_stages("optimizer.learning_rate"), "every stage has its own; --learning-rate sets all"),
    "max_eval_samples": (("data.max_eval_examples",), ""),
    "max_grad_norm": (_of_stages("optimizer.clip_norm"), ""),
    "max_length": _LENGTHS,
    "max_seq_length": _LENGTHS,
    "max_steps": _EPOCHS,
    "max_train_samples": (("data.max_train_examples",), ""),
    "metric_for_best_model": (("data.task.metrics",), "the first one chooses"),
    "model_name": (("model",), ""),
    "model_name_or_path": (("model",), ""),
    "num_epochs": _EPOCHS,
    "num_train_epochs": _EPOCHS,
    "output_dir": (("run_dir",), ""),
    "overwrite_output_dir": (("run_dir",), "a run resumes in its folder; name a new one to begin again"),
    "per_device_eval_batch_size": _EVAL_BATCH,
    "per_device_train_batch_size": _BATCH,
    "per_gpu_train_batch_size": _BATCH,
    "resume_from_checkpoint": ((), "leave it out: the same command resumes"),
    "save_steps": (("checkpoint_every",), ""),
    "sentence1_key": _TEXTS,
    "sentence2_key": _TEXTS,
    "task_name": (("data.task",), 'such as task("sst2") in the configuration'),
    "text_column_name": _TEXTS,
    "text_column_names": _TEXTS,
    "train_batch_size": _BATCH,
    "validation_file": (("data.dev_file",), ""),
    "warmup_ratio": _WARMUP,
    "warmup_steps": _WARMUP,
    "weight_decay": (_of_stages("optimizer.weight_decay"), ""),
}


def trainer_hint(name: str, as_flags: bool = False) -> str:
    """What a setting of Trainer is called here; empty if Trainer has no such setting.

    Args:
        name: as given; `-` and `_` are the same.
        as_flags: name flags of the command line instead of a configuration's keys.
    """
    found = TRAINER_NAMES.get(name.replace("-", "_"))
    if found is None:
        return ""
    paths, note = found
    if not paths:
        here, note = note, ""
    elif as_flags:
        here = f"here it is {', '.join(map(flag, paths))}"
    else:
        here = f"here it is {', '.join(paths)} of a RunConfig"
    return f"that is a name of Hugging Face's Trainer; {here}" + (f" ({note})" if note else "")


def flag(path: str) -> str:
    """The flag of a setting: fine_tune.epochs is --fine-tune.epochs."""
    return "--" + path.replace("_", "-")
