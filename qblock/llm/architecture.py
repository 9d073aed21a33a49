"""Architectures as data: where a model's residual stack is and what each layer adds to it."""

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qblock.errors import ModelError

_BUNDLED = "architectures.toml"


class DenseLayers(BaseModel):
    """The configuration fields that say which layers of a sparse (MoE) stack are dense."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: str
    indices: str


class Architecture(BaseModel):
    """One entry of an architectures file; `architectures.toml` explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_types: tuple[str, ...] = Field(min_length=1)
    layers: str
    adds: Mapping[str, str] = Field(min_length=1)
    outputs: Mapping[str, tuple[str, ...]] = {}
    config: str = ""
    kind: str = ""
    kinds: Mapping[str, str] = {}
    returns_tuple: bool = False
    per_layer: tuple[str, ...] = ("layer_types",)
    dense: DenseLayers | None = None
    reset: Mapping[str, Any] = {}
    require: Mapping[str, Any] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: tuple[Architecture, ...]


def read_architectures(text: str, source: str) -> dict[str, Architecture]:
    """Architectures of a TOML text by model type.

    Raises:
        ModelError: not TOML, or a field that is missing, unknown or of the wrong type.
    """
    try:
        entries = _File(**tomllib.loads(text)).architecture
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{source} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{source}: {where}: {first['msg']}") from None
    return {name: entry for entry in entries for name in entry.model_types}


@functools.cache
def known_architectures() -> Mapping[str, Architecture]:
    """The architectures that come with qblock, by `config.model_type`."""
    text = (importlib.resources.files("qblock.llm") / _BUNDLED).read_text(encoding="utf-8")
    return read_architectures(text, _BUNDLED)


def find_architecture(model_type: str, file: str | Path | None = None) -> Architecture:
    """The description of a model type, from `file` first and then from qblock's own.

    Raises:
        ModelError: not described; the message says what was looked for and how to describe it.
    """
    known = dict(known_architectures())
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"cannot read the architectures file {file}: {error}") from None
        known |= read_architectures(text, str(file))
    if model_type not in known:
        raise ModelError(
            f"no description of the architecture {model_type!r} (config.model_type); described "
            f"are {', '.join(sorted(known))}. To describe it, give --architecture FILE with\n"
            f'  [[architecture]]\n  model_types = ["{model_type}"]\n'
            '  layers = "model.layers"  # path of the list of layers\n'
            '  adds = { attention = "self_attn", mlp = "mlp" }  # modules whose outputs are added'
        )
    return known[model_type]
