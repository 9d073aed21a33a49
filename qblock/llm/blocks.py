"""The residual stack of a model: its blocks, their couplings, and running it without some.

A block is a whole layer, or with `granularity="sublayer"` one of the modules of a layer that
add to the residual stream. The coupling alpha_i multiplies what block i adds: alpha_i = 1 is
the original model, alpha_i = 0 the model without the block (arXiv:2602.00161).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from qblock.errors import ModelError
from qblock.llm.architecture import Architecture, find_architecture

Granularity: TypeAlias = Literal["block", "sublayer"]


@dataclass(frozen=True, eq=False)
class ResidualStack:
    """The N blocks of a model that add to its residual stream.

    Attributes:
        model: the causal language model.
        architecture: its description.
        path: where `layers` is in the model.
        layers: the list of layers.
        names: N block names: "3", or "3.attention" and "3.mlp" for sublayers.
        groups: N group names: "block", or the layer's kind in a mixed stack; for sublayers what
            they are, such as "attention".
        layer_of: N numbers of the layers the blocks are in.
        adds: for each block the modules whose outputs are what it adds.
    """

    model: nn.Module
    architecture: Architecture
    path: str
    layers: nn.ModuleList
    names: tuple[str, ...]
    groups: tuple[str, ...]
    layer_of: tuple[int, ...]
    adds: tuple[tuple[nn.Module, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def config(self) -> Any:
        """The configuration that describes the layers."""
        return _follow(self.model.config, self.architecture.config)

    @contextmanager
    def couplings(self, alpha: Tensor) -> Iterator[None]:
        """Within, what block i adds is multiplied by alpha[..., i].

        Differentiable in alpha, in reverse and forward mode. With gradient checkpointing run
        the backward pass inside too, since it computes the layers again.

        Args:
            alpha: floating point (N,), or (batch, N) to give each row of the batch its own, so
                that the gradient of the summed loss holds every row's gradient.
        """
        if alpha.shape[-1] != len(self) or alpha.ndim not in (1, 2):
            raise ValueError(f"alpha must be (N,) or (batch, N), N = {len(self)}: {alpha.shape}")
        with ExitStack() as hooks:
            for column, modules in enumerate(self.adds):
                for module in modules:
                    hook = _scaling(alpha[..., column])
                    hooks.callback(module.register_forward_hook(hook).remove)
            yield

    @contextmanager
    def skipping(self, removed: Iterable[int]) -> Iterator[None]:
        """Within, the blocks with these indices are left out, without a KV cache.

        Layers that lose all their blocks are really skipped; other blocks are multiplied by 0.
        """
        gone = set(removed)
        blocks_of: dict[int, set[int]] = {}
        for block, layer in enumerate(self.layer_of):
            blocks_of.setdefault(layer, set()).add(block)
        whole = [layer for layer, blocks in blocks_of.items() if blocks <= gone]
        partial = [block for block in gone if self.layer_of[block] not in whole]
        with ExitStack() as contexts:
            for block in partial:
                for module in self.adds[block]:
                    hook = module.register_forward_hook(_zeroing)
                    contexts.callback(hook.remove)
            for layer in whole:
                contexts.enter_context(_forward(self.layers[layer], self._pass_on))
            yield

    @contextmanager
    def resuming(self, layer: int, hidden: Tensor) -> Iterator[None]:
        """Within, the model starts at a layer: `hidden` enters it, and those before are not run.

        With layer = number of layers only the final norm and the head are run.
        """
        with ExitStack() as contexts:
            for before in range(layer):
                contexts.enter_context(_forward(self.layers[before], self._pass_on))
            if layer > 0:

                def inject(*_: Any, **__: Any) -> Any:
                    return self._pass_on(hidden)

                contexts.enter_context(_forward(self.layers[layer - 1], inject))
            yield

    @contextmanager
    def capturing(self) -> Iterator[list[Tensor]]:
        """Within, each run of the model fills the list that is given.

        Entry k is the residual stream that enters layer k, (batch, tokens, width); the last
        entry leaves the last layer.
        """
        streams: list[Tensor] = []

        def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            streams.append(args[0] if args else kwargs["hidden_states"])

        def leaving(_: nn.Module, __: Any, output: Any) -> None:
            streams.append(output[0] if self.architecture.returns_tuple else output)

        with ExitStack() as hooks:
            for layer in self.layers:
                hook = layer.register_forward_pre_hook(entering, with_kwargs=True)
                hooks.callback(hook.remove)
            hooks.callback(self.layers[-1].register_forward_hook(leaving).remove)
            yield streams

    def _pass_on(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """What a layer returns that adds nothing."""
        return (hidden_states, None) if self.architecture.returns_tuple else hidden_states


def residual_stack(
    model: nn.Module,
    granularity: Granularity = "block",
    *,
    architecture: str | Path | None = None,
) -> ResidualStack:
    """Find the blocks of a causal language model of transformers.

    Args:
        model: the model, with its `config`.
        granularity: what a block is: a "block" is a whole layer, a "sublayer" one of its parts.
        architecture: a TOML file that describes further architectures.

    Raises:
        ModelError: the architecture is not described, the description does not fit the model,
            or the model has one layer only.
    """
    config: Any = model.config
    described = find_architecture(config.model_type, architecture)
    layers = _find(model, described.layers, f"the model ({config.model_type})")
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"{described.layers!r} of the model ({config.model_type}) is a "
            f"{type(layers).__name__}, not a list of layers"
        )
    if len(layers) < 2:
        raise ModelError(f"the model has {len(layers)} layer(s): there is nothing to choose from")
    _check_required(_follow(config, described.config), described)
    names: list[str] = []
    groups: list[str] = []
    layer_of: list[int] = []
    adds: list[tuple[nn.Module, ...]] = []
    for number, layer in enumerate(layers):
        parts = {
            part: _find(layer, path, f"layer {number} ({type(layer).__name__})")
            for part, path in described.adds.items()
        }
        kind = _kind(layer, number, described)
        if granularity == "block":
            entries = [(str(number), kind or "block", tuple(parts.values()))]
        else:
            entries = [
                (f"{number}.{part}", kind or part, (module,)) for part, module in parts.items()
            ]
        for name, group, modules in entries:
            names.append(name)
            groups.append(group)
            layer_of.append(number)
            adds.append(modules)
    return ResidualStack(
        model=model,
        architecture=described,
        path=described.layers,
        layers=layers,
        names=tuple(names),
        groups=tuple(groups),
        layer_of=tuple(layer_of),
        adds=tuple(adds),
    )


def _find(root: nn.Module, path: str, where: str) -> Any:
    """The module at a dotted path."""
    found: Any = root
    for step in path.split("."):
        if not hasattr(found, step):
            children = ", ".join(name for name, _ in found.named_children())
            raise ModelError(
                f"{where} has no module {path!r}: {type(found).__name__} has no {step!r}, but "
                f"{children or 'no modules'}; correct the description of the architecture"
            )
        found = getattr(found, step)
    return found


def _follow(config: Any, path: str) -> Any:
    for step in path.split(".") if path else ():
        config = getattr(config, step)
    return config


def _check_required(config: Any, described: Architecture) -> None:
    for field, value in described.require.items():
        if getattr(config, field, value) != value:
            raise ModelError(
                f"this {config.model_type} model has {field}={getattr(config, field)!r}: blocks "
                f"can be removed cleanly only with {field}={value!r}, since otherwise a layer "
                "does more than add to the residual stream, or depends on its number"
            )


def _kind(layer: nn.Module, number: int, described: Architecture) -> str:
    """Group name of a layer in a mixed stack, else ""."""
    if not described.kind:
        return ""
    kind: Any = getattr(layer, described.kind, None)
    if kind not in described.kinds:
        raise ModelError(
            f"layer {number} is of kind {described.kind}={kind!r}; the description of the "
            f"architecture names {', '.join(described.kinds)}"
        )
    return described.kinds[kind]


def _scaling(coupling: Tensor) -> Callable[..., Any]:
    """A forward hook that multiplies a module's output by a coupling of shape () or (batch,)."""

    def scaled(_: nn.Module, __: Any, output: Any) -> Any:
        added = output[0] if isinstance(output, tuple) else output
        factor = coupling.to(device=added.device, dtype=added.dtype)
        if factor.ndim:
            # Some modules see batch and tokens as one axis, so the batch is split off anew.
            rows = added.reshape(len(factor), -1, added.shape[-1])
            result = (rows * factor[:, None, None]).view(added.shape)
        else:
            result = added * factor
        return (result, *output[1:]) if isinstance(output, tuple) else result

    return scaled


def _zeroing(_: nn.Module, __: Any, output: Any) -> Any:
    """A forward hook that makes a module add nothing, even where its output is not finite."""
    if isinstance(output, tuple):
        return (output[0].new_zeros(output[0].shape), *output[1:])
    return output.new_zeros(output.shape)


@contextmanager
def _forward(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within, another `forward` takes the place of the layer's own."""
    # A model spread over devices carries a forward of its own on each layer: put that back.
    own = layer.__dict__.get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own
