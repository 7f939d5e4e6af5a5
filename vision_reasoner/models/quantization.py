"""Weights in 8 or 4 bits, through transformers' integrations of torchao and bitsandbytes.

What is quantized are the linear layers of the language model, while the weights are read: the vision tower, on which
coordinates depend most, and the output layer stay as they are. Computation stays in the model's own number format.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from vision_reasoner.errors import UsageError
from vision_reasoner.models.devices import QUANTIZATIONS

if TYPE_CHECKING:
    import torch

PACKAGES = {"8bit": "torchao", "4bit": "bitsandbytes"}
KEPT = ["model.visual", "lm_head"]  # modules that are not quantized


def quantization_config(quantize: str, device: "torch.device", dtype: "torch.dtype") -> Any:
    """What `from_pretrained` takes as `quantization_config`; None for "none".

    8 bits are torchao's: integers with a scale for each output channel. 4 bits are bitsandbytes' NF4, in blocks.

    Args:
        quantize: one of `devices.QUANTIZATIONS`.
        device: where the weights go.
        dtype: what is computed in.

    Raises:
        UsageError: there is no such value, its package is not installed, or the device is neither CUDA nor a CPU.
    """
    if quantize not in QUANTIZATIONS:
        raise UsageError(f"no quantize {quantize!r}: give one of {', '.join(QUANTIZATIONS)}")
    if quantize == "none":
        return None
    package = PACKAGES[quantize]
    if device.type not in ("cuda", "cpu"):
        raise UsageError(f"quantize {quantize} is for CUDA and the CPU, not {device.type}; leave it out")
    if importlib.util.find_spec(package) is None:
        raise UsageError(f'quantize {quantize} needs the package {package}: pip install -e ".[quantize]"')
    if quantize == "4bit":
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=KEPT
        )
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=KEPT)
