"""Arrays by what they hold: the one place that names them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Flags", "Ints", "Ints32"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
