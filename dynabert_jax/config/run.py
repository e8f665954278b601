"""The settings of a whole run; the defaults are the paper's values, or None for what the recipe chooses."""

from collections.abc import Mapping
from typing import Self

import pydantic

from dynabert_jax.config.checked import AtLeastOne, Checked, ConfigError, Dtype, Name, Seed
from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.stages import DepthStage, FinalStage, FineTune, Importance, Stage, WidthStage


class RunConfig(Checked):
    """A whole run. Its stages run in this order; a stage that is None is left out.

    Settings inside of `data` and the stages that are None are chosen by `dynabert_jax.recipe`, once the data and the
    model have been read. What a run has used is in its config.json.

    Attributes:
        model: a local folder or a hub name in Hugging Face's format, or `sample:minilm`.
        run_dir: the folder to which everything is written.
        dtype: type of the inputs of matmuls; parameters, sums and everything else stay float32.
        gradient_accumulation: least number of microbatches into which the batch of a training step is divided: less
            memory, the same step. A CPU may use more.
        rematerialize: compute a layer's activations again in the backward pass instead of keeping them: less memory on
            accelerators for a third more work.
        log_every: steps between two rows of the training log.
        checkpoint_every: steps between two checkpoints to resume from; one is also written at every evaluation.
    """

    model: Name
    data: DataConfig
    run_dir: Name
    fine_tune: FineTune | None = FineTune()
    importance: Importance | None = Importance()
    width: WidthStage | None = WidthStage()
    depth: DepthStage | None = DepthStage()
    final: FinalStage | None = None
    seed: Seed = 42
    dtype: Dtype = "float32"
    gradient_accumulation: AtLeastOne = 1
    rematerialize: bool = False
    log_every: AtLeastOne = 10
    checkpoint_every: AtLeastOne = 200

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.width is not None and self.importance is None:
            raise ValueError(
                "the width stage needs importance, without which its narrow sub-networks are arbitrary; set "
                "importance, or leave the width stage out"
            )
        self._check_labels()
        return self

    def _check_labels(self) -> None:
        """Unlabelled texts cannot be learned by stages that learn from labels."""
        if not self.data.unlabelled_files:
            return
        by_label = [name for name in ("width", "depth") if getattr(getattr(self, name), "label_weight", 0)]
        if by_label:
            raise ValueError(
                f"{by_label[0]}.label_weight needs labels, and data.unlabelled_files have none; set it to 0, or leave "
                "the unlabelled files out"
            )
        needing = [name for name in ("fine_tune", "final") if getattr(self, name) is not None]
        if needing and self.data.only_unlabelled:
            raise ValueError(
                f"{' and '.join(needing)} need labels, and data.unlabelled_files have none; set {needing[0]} to None "
                "and name a model that is fine-tuned already, or add a train_file with labels"
            )

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The stages of the run by name, in order."""
        named = {"fine_tune": self.fine_tune, "width": self.width, "depth": self.depth, "final": self.final}
        return {name: stage for name, stage in named.items() if stage is not None}

    def with_stages(self, *, epochs: int | None = None, learning_rate: float | None = None) -> Self:
        """The same run with these values in every stage that it has; None leaves a value as it is."""
        changed = {}
        for name, stage in self.stages.items():
            rate = stage.optimizer.learning_rate if learning_rate is None else learning_rate
            optimizer = stage.optimizer.replace(learning_rate=rate)
            changed[name] = stage.replace(optimizer=optimizer, epochs=stage.epochs if epochs is None else epochs)
        return self.replace(**changed)

    def until(self, stage: str) -> Self:
        """The same run, ending after the stage of that name.

        Raises:
            ConfigError: the run has no such stage.
        """
        names = list(self.stages)
        if stage not in names:
            raise ConfigError(f"the run has no stage {stage!r}; it has {', '.join(names)}")
        return self.replace(**dict.fromkeys(names[names.index(stage) + 1 :]))
