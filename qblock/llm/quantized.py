"""Quantized weights: what of them can be measured, and what is refused rather than got wrong.

A measurement leaves all weights frozen, so that quantized ones can be measured wherever
transformers itself reads them. Writing and training need plain floats.
"""

from collections.abc import Iterable
from typing import Any

from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from qblock.errors import ModelError

_SCALES = ("_scale", "_scale_2", "_scale_inv")
"""How the names of scales end that quantizers keep beside the weights."""


def refuse_unknown_method(config: Any, source: str) -> None:
    """Refuse weights in a format that transformers would read as if they were plain numbers.

    Args:
        config: of the model, before its weights are loaded.
        source: the model's name.

    Raises:
        ModelError: the method is none of transformers'.
    """
    quantized = getattr(config, "quantization_config", None)
    if not isinstance(quantized, dict):
        return
    method = str(quantized.get("quant_method"))
    if not any(known.startswith(method) for known in AUTO_QUANTIZATION_CONFIG_MAPPING):
        raise ModelError(
            f"the weights of {source} are quantized by {method!r}, which transformers cannot read: "
            "give the model in bfloat16, or quantized in one of its formats (such as 'fp8')"
        )


def refuse_unread_scales(unexpected: Iterable[str], source: str) -> None:
    """Refuse weights whose scales were left unread, whatever the configuration says.

    Args:
        unexpected: names in the weights' files that the model has no place for.
        source: the model's name.

    Raises:
        ModelError: a scale is among them.
    """
    scales = sorted(name for name in unexpected if name.endswith(_SCALES))
    if scales:
        raise ModelError(
            f"the weights of {source} are quantized in a format that its configuration does not "
            f"declare ({scales[0]} would be left out): give the model in bfloat16"
        )


def is_quantized(model: Any) -> bool:
    """Whether weights in memory are something else than plain numbers."""
    return getattr(model, "hf_quantizer", None) is not None


def refuse_derivatives(model: Any) -> None:
    """Refuse kernels without derivatives, through which a gradient would be silently wrong.

    Raises:
        ModelError: the model is quantized so that it can only be run.
    """
    if is_quantized(model) and not model.hf_quantizer.is_trainable:
        raise ModelError(
            "this quantized model can be run but not differentiated: use the curvature "
            "'ablation', which only runs it, or the model in bfloat16"
        )


def refuse_quantized(model: Any, source: str, work: str) -> None:
    """Refuse to write or train quantized weights.

    Raises:
        ModelError: the weights are not plain floats.
    """
    if is_quantized(model):
        raise ModelError(
            f"the weights of {source} are quantized, and {work} needs plain ones: give the model "
            "in bfloat16 (a sensitivity measured on the quantized one serves for it as well), "
            "and quantize the result"
        )
