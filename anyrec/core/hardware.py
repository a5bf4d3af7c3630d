"""What the hardware can do."""

from __future__ import annotations

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # torch has no public name for it
