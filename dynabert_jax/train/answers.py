"""The teacher's answers, which take the place of labels where there are none."""

from dynabert_jax.data.encode import Split
from dynabert_jax.evaluate.evaluate import answered_by
from dynabert_jax.model.params import Model
from dynabert_jax.runs.answers import PART, unlabelled_dev, with_answers
from dynabert_jax.system import devices
from dynabert_jax.train.context import Context


def answer_dev(context: Context) -> None:
    """Gives dev the answers of the pretrained model for labels if it has none: computed once, and kept in the folder.

    Without labels nothing is fine-tuned, so the pretrained model is the run's teacher.
    """
    missing, folder = unlabelled_dev(context.data), context.folder
    if missing and devices.any_host(not folder.answers_file.exists()):
        teacher = Model(context.model.config, context.pretrained.params)
        answers = {name: answered(context, teacher, split) for name, split in missing.items()}
        if devices.is_first():
            origin = context.origin(PART, context.pretrained.fingerprint)
            folder.write_answers({name: split.labels for name, split in answers.items()}, origin)
        devices.wait_for_all("answers are written")
    context.data = with_answers(context.data, folder, context.config, context.pretrained.fingerprint)


def answered(context: Context, teacher: Model, split: Split) -> Split:
    """The split with the answers of a teacher."""
    return answered_by(teacher, context.config.model, split, context.config.data, context.config.dtype)
