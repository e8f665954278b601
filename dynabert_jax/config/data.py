"""Where the examples come from and how they become batches."""

from typing import Self

import pydantic

from dynabert_jax.config.checked import AtLeastOne, Checked, Count, Seed
from dynabert_jax.config.tasks import Task


class DataConfig(Checked):
    """Where the examples come from and how they become batches.

    Name at most one source: the user's files, a folder in GLUE's TSV format, or a hub data set. The default is the
    task's own source (`Task.hub`, or the sample data). The unlabelled files may come in addition, or be all there is.

    Attributes:
        task: what the columns mean; one of `dynabert_jax.config.tasks` by name, or the user's own `Task`.
        train_file, dev_file, test_file: CSV, TSV, JSONL or Parquet. Without dev_file, a tenth of train is held out:
            of each class its share, and all copies of a text together.
        unlabelled_files: CSV, TSV, JSONL or Parquet files of which only the text columns are read, and .txt files with
            one text a line. The width and depth stages train on them, too. Without another source they are all that is
            trained on, the classes are the model's, and a dev_file may have labels; without one, a tenth is held out,
            and the teacher's answers take the place of labels: scores are agreement with the teacher.
        glue_folder: a folder with GLUE's train.tsv and dev.tsv.
        hub: a hub data set, `path` or `path:configuration`.
        lengths: the static lengths, in tokens, to which batches are padded; texts beyond the largest are truncated.
            None: the recipe's, by the lengths of the texts.
        batch_size: examples per training step, over all devices together. None: the recipe's, by their number.
        eval_batch_size: examples per evaluation batch, over all devices together.
        max_train_examples, max_eval_examples: use only this many, drawn with split_seed; every class keeps a row, as
            long as there is room; 0 means all. Unlabelled texts count only where nothing else is trained on.
        split_seed: seed for a split or subset that the data set does not define.
    """

    task: Task
    train_file: str | None = None
    dev_file: str | None = None
    test_file: str | None = None
    unlabelled_files: tuple[str, ...] = ()
    glue_folder: str | None = None
    hub: str | None = None
    lengths: tuple[AtLeastOne, ...] | None = None
    batch_size: AtLeastOne | None = None
    eval_batch_size: AtLeastOne = 32
    max_train_examples: Count = 0
    max_eval_examples: Count = 0
    split_seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        sources = [name for name in ("train_file", "glue_folder", "hub") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"name only one source of data; got {' and '.join(sources)}")
        if (self.dev_file or self.test_file) and not (self.train_file or self.only_unlabelled):
            raise ValueError("dev_file and test_file need a train_file; set train_file, too")
        if self.only_unlabelled and self.test_file and not self.dev_file:
            raise ValueError(
                "a test_file with labels needs a dev_file with labels beside unlabelled_files: without one, dev scores "
                "would be agreement with the teacher, and test scores would not"
            )
        if self.lengths is not None:
            _check_lengths(self.lengths)
        return self

    @property
    def only_unlabelled(self) -> bool:
        """Whether nothing but unlabelled texts is trained on."""
        labelled = (self.train_file, self.glue_folder, self.hub, self.task.hub, self.task.sample)
        return bool(self.unlabelled_files) and not any(labelled)


def _check_lengths(lengths: tuple[int, ...]) -> None:
    if not lengths or list(lengths) != sorted(set(lengths)):
        raise ValueError(f"lengths must be one or more numbers in ascending order, without repeats; got {lengths}")
    if lengths[-1] < 3:
        raise ValueError(f"lengths {lengths} leave no room for a token between [CLS] and [SEP]; use 3 or more")
