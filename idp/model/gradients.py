"""Whether gradients reach what is put in front of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from idp.errors import ModelError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["has_gradients", "no_gradient", "require_gradients"]


def has_gradients(lm: LanguageModel) -> bool:
    """Whether gradients reach the input embeddings, which is how prompts are tuned; found out once."""
    return lm.find_out("gradients", lambda: _reached(lm))


def require_gradients(lm: LanguageModel) -> None:
    """Check that prompts can be tuned on a model.

    Raises:
        ModelError: no gradient reaches its input embeddings.
    """
    if not has_gradients(lm):
        raise no_gradient(lm)


def no_gradient(lm: LanguageModel) -> ModelError:
    """The error for a model that cannot be trained through."""
    return ModelError(
        f"no gradient reaches the input embeddings of {lm.name}, so no prompt can be tuned on it: its kernels have no "
        "backward pass. Build a bank of text prompts instead (--method texts)."
    )


@torch.enable_grad()
def _reached(lm: LanguageModel) -> bool:
    tokens = torch.arange(3, 5, device=lm.device) % lm.vocab_size
    embeds = lm.embed(tokens)[None].detach().requires_grad_()  # (B, T, d)
    likeliest = lm.model(inputs_embeds=embeds, use_cache=False).logits[0, -1].max()
    if not likeliest.requires_grad:
        return False
    [gradient] = torch.autograd.grad(likeliest, [embeds], allow_unused=True)
    # From token to token it goes through the layers' weights; what stays in the residual stream proves nothing.
    return gradient is not None and bool(gradient[0, 0].any())
