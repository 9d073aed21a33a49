"""Knowledge distillation: how far a pruned model is from the model it was made from.

The logits' part is Hinton, Vinyals and Dean's (arXiv:1503.02531): T^2 KL(teacher || student)
between the distributions softened by a temperature T. The hidden part compares the residual
streams that enter the layers both models have, so that what a removed layer did is learnt by
those before it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qblock.errors import ModelError
from qblock.llm.blocks import ResidualStack

TOKEN_TILE = 64
"""Tokens whose softened distributions are held at a time."""


def kept_layers(original: ResidualStack, pruned: ResidualStack) -> tuple[int, ...]:
    """For each layer of the pruned model the original's layer of the same weights, ascending.

    The weights themselves are compared, so that it does not matter what pruned the model.

    Raises:
        ModelError: a layer of the pruned model is none of the original's, in this order, or their
            residual streams are of other widths.
    """
    widths = [s.model.get_input_embeddings().embedding_dim for s in (original, pruned)]
    if widths[0] != widths[1]:
        raise ModelError(
            f"the residual streams are {widths[0]} and {widths[1]} wide: give the model that was "
            "pruned, or leave out the hidden-state loss, which compares them"
        )
    if len(original.layers) == len(pruned.layers):
        return tuple(range(len(pruned.layers)))  # whatever was removed is part of a layer
    found: list[int] = []
    for number, layer in enumerate(pruned.layers):
        later = range(found[-1] + 1 if found else 0, len(original.layers))
        match = next((n for n in later if _same_weights(original.layers[n], layer)), None)
        if match is None:
            raise ModelError(
                f"layer {number} of the pruned model has the weights of no layer of the original "
                "that could be meant: give the model that it was pruned from, or leave out the "
                "hidden-state loss, which needs to know the layers that were kept"
            )
        found.append(match)
    return tuple(found)


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    theirs = dict(other.named_parameters())
    ours = dict(one.named_parameters())
    return ours.keys() == theirs.keys() and all(
        weight.shape == theirs[name].shape
        and torch.equal(weight.to("cpu"), theirs[name].to("cpu", weight.dtype))
        for name, weight in ours.items()
    )


@dataclass(frozen=True, eq=False)
class Distillation:
    """The loss of a student beside its teacher.

    Attributes:
        teacher: the original's blocks; its weights are frozen.
        student: the pruned model's blocks.
        temperature: T > 0 of the softened distributions.
        hidden: weight of the hidden-state loss; not computed if 0.
        kept: see `kept_layers`; not used if `hidden` is 0.
    """

    teacher: ResidualStack
    student: ResidualStack
    temperature: float = 1.0
    hidden: float = 0.0
    kept: tuple[int, ...] = ()

    def __call__(self, forward: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss summed over tokens, a scalar, and the student's logits (b, L, V).

        Args:
            forward: the student as it is to be called: itself, or wrapped for several devices.
            ids: int64 (b, L).
            mask: bool (b, L), False on padding.
        """
        if not self.hidden:
            with torch.no_grad():
                wanted = self.teacher.model(input_ids=ids, use_cache=False).logits
            given = forward(input_ids=ids, use_cache=False).logits
            return summed_kl(given, wanted, mask, self.temperature), given
        with torch.no_grad(), self.teacher.capturing() as theirs:
            wanted = self.teacher.model(input_ids=ids, use_cache=False).logits
        with self.student.capturing() as ours:
            given = forward(input_ids=ids, use_cache=False).logits
        places = [*self.kept, len(self.teacher.layers)]
        pairs = [(ours[n], theirs[place]) for n, place in enumerate(places) if place > 0]
        streams = sum(_stream_loss(a, b, mask) for a, b in pairs) / len(pairs)
        divergence = summed_kl(given, wanted, mask, self.temperature)
        return divergence + self.hidden * streams, given


def _stream_loss(ours: Tensor, theirs: Tensor, mask: Tensor) -> Tensor:
    """|a - b|^2 summed over tokens, in units of the mean |b|^2 of a token."""
    theirs = theirs.to(ours.device).float()[mask]
    difference = (ours.float()[mask] - theirs).square().sum()
    return difference / theirs.square().sum(-1).mean()


def summed_kl(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over tokens.

    Args:
        student: logits (b, L, V); differentiable once.
        teacher: logits (b, L, V); overwritten.
        mask: bool (b, L), which tokens count.
        temperature: T > 0.
    """
    result: Tensor = _SummedKL.apply(
        student.flatten(0, 1), teacher.to(student.device).flatten(0, 1), mask.flatten(), temperature
    )
    return result


class _SummedKL(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Finds the gradient T (p_student - p_teacher) with the value, tile by tile.

    So that beside the two models' logits nothing of their size is held: the gradient takes the
    place of the teacher's logits.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, mask: Tensor, temperature: float
    ) -> Tensor:
        gradient = teacher if teacher.dtype == student.dtype else torch.empty_like(student)
        total = torch.zeros((), dtype=torch.float64, device=student.device)
        for start in range(0, len(student), TOKEN_TILE):
            tile = slice(start, start + TOKEN_TILE)
            log_p = (teacher[tile].float() / temperature).log_softmax(-1)
            log_q = (student[tile].float() / temperature).log_softmax(-1)
            p, counts = log_p.exp(), mask[tile, None]
            total += ((log_p.sub_(log_q)).mul_(p).sum(-1, keepdim=True) * counts).sum()
            gradient[tile] = log_q.exp_().sub_(p).mul_(counts * temperature).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return (total * temperature**2).float()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].to(gradient.dtype), None, None, None
