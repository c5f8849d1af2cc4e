"""16-bit arithmetic, where the device has it."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that the device computes faster with than with 32 bits, or None."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None
