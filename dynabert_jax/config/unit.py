"""The user's unit of a regression's number."""

from typing import Annotated

import pydantic

from dynabert_jax.config.checked import Checked, Positive

Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
EPSILON = 2.0**-23  # how far float32 numbers near 1 are apart


class Unit(Checked):
    """What the standardised numbers 0 and 1, in which a regression is learned, are in the user's unit.

    Attributes:
        mean: of the labels in train; what 0 means.
        deviation: their standard deviation; how much more 1 means.
    """

    mean: Finite = 0.0
    deviation: Positive = 1.0

    def tolerance(self, standardised: float) -> float:
        """How far two answers may be apart in this unit which may differ by that much in standardised numbers.

        Numbers far from 0 are also rounded: by a few of the steps between float32 numbers near the mean.
        """
        return standardised * self.deviation + 4 * EPSILON * abs(self.mean)
