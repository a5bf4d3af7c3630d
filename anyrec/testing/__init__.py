"""Layer 4: conformance checks that authors of plugins run on their own components.

- `encoders`: `check_encoder` and `check_fusion`. `indexes`: `check_index`. `errors`: what they raise.
"""

from anyrec.testing.encoders import check_encoder, check_fusion
from anyrec.testing.errors import ConformanceError
from anyrec.testing.indexes import check_index

__all__ = ["ConformanceError", "check_encoder", "check_fusion", "check_index"]
