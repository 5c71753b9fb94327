"""Weights in the layout that oneDNN multiplies in bfloat16: brought into it once, not again for every product.

PyTorch leaves linear layers as they are and lets oneDNN rearrange their weights each time. Where a model writes one
token after the other, that takes as long as the product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Linear
from torch.nn.functional import linear

from r1ranker_ir.models.cpu_precision import computes_in_bfloat16

MOST_BYTES = 4 * 2**30
"""Larger models stay as they are: packed weights take memory besides the plain ones."""


def pack_weights(model: Any) -> bool:
    """Packs the bfloat16 linear layers of a model on a CPU that computes in it; says whether there were any.

    What is packed no longer follows the layer's weights: for inference only.
    """
    if not (computes_in_bfloat16() and _can_pack()):
        return False
    layers = [each for each in model.modules() if type(each) is Linear and _is_on_cpu_in_bfloat16(each)]
    if sum(each.weight.nbytes for each in layers) > MOST_BYTES:
        return False
    with torch.no_grad():
        for layer in layers:
            layer.forward = _PackedProduct(layer)  # type: ignore[assignment]
    return bool(layers)


def _is_on_cpu_in_bfloat16(layer: Linear) -> bool:
    return layer.weight.device.type == "cpu" and layer.weight.dtype == torch.bfloat16


def _can_pack() -> bool:
    # What torch.compile packs weights with. It is not documented, and a version of torch may lack it.
    return all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))


class _PackedProduct:
    def __init__(self, layer: Linear) -> None:
        self._layer = layer
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight, 1)

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        layer = self._layer
        if numbers.dtype != torch.bfloat16 or not numbers.numel():
            return linear(numbers, layer.weight, layer.bias)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(numbers, self._packed, layer.bias, "none", [], "")
        return product
