"""What compression did to each layer, as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from idp.pictures import require_matplotlib

if TYPE_CHECKING:
    from idp.evaluate.damage.result import Damage

__all__ = ["draw"]

_COLUMNS = 4
_MOST_KINDS = 15


def draw(damage: Damage) -> bytes:
    """Draw bars over the layers as PNG: the error of the blocks' outputs, and below a panel a kind of matrix.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    kinds: list[str | None] = [None, *damage.kinds[:_MOST_KINDS]]
    high = -(-len(kinds) // _COLUMNS)
    figure = require_matplotlib().Figure(figsize=(11, 3.2 + 1.9 * high), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.6, 1.9 * high))
    _outputs(above.subplots(), damage)
    panels = below.subplots(high, _COLUMNS, squeeze=False, sharex=True, sharey=True).flatten()
    for panel, kind in zip(panels, kinds, strict=False):
        _matrices(panel, damage, kind)
    _scale(panels[0], (share for kind in kinds for share in _weights(damage, kind)), room=1.05)  # shared by all
    for panel in panels[len(kinds) :]:
        panel.set_axis_off()
    below.supylabel("weights: error in %", fontsize=9)
    left_out = len(damage.kinds) - len(kinds) + 1
    below.supxlabel(f"layer ({left_out} more kinds of matrices are in the table)" if left_out else "layer", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _outputs(panel: Any, damage: Damage) -> None:
    """The outputs of the blocks: all the error that has come together, and before it the block's own."""
    read = damage.reading
    title = f"{damage.compressed} against {damage.dense}: KL {read.kl.value:.3f} nats a token, perplexity "
    panel.set_title(f"{title}{read.dense_perplexity:.2f} → {read.compressed_perplexity:.2f}", fontsize=10)
    _bars(panel, read.path, color="tab:blue", width=0.8, alpha=0.45, label="all blocks compressed")
    if read.own:
        _bars(panel, read.own, color="tab:blue", width=0.45, label="this block alone compressed")
    _scale(panel, (*read.path, *(read.own or ())), room=1.2)  # the legend stands above the bars
    panel.set_ylabel("output: error in %", fontsize=9)
    panel.legend(fontsize=8, loc="upper left", ncols=2)


def _matrices(panel: Any, damage: Damage, kind: str | None) -> None:
    """The weights of a kind, of every layer that has it."""
    panel.set_title("all matrices" if kind is None else kind, fontsize=9)
    _bars(panel, _weights(damage, kind), color="0.45" if kind is None else "tab:orange", width=0.8)


def _weights(damage: Damage, kind: str | None) -> list[float]:
    """The error of a kind in every layer; where there is no such matrix there is no bar."""
    return [damage.weight_error(layer, kind) or 0.0 for layer in damage.layers]


def _bars(panel: Any, shares: Sequence[float], **style: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.bar(range(len(shares)), [100 * share if math.isfinite(share) else 0.0 for share in shares], **style)
    panel.set_xlim(-0.7, len(shares) - 0.3)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _scale(panel: Any, shares: Iterable[float], room: float) -> None:
    """Let the axis begin at 0 and end above the highest bar; where there is none, at 1 %."""
    highest = max((share for share in shares if math.isfinite(share)), default=0.0)
    panel.set_ylim(0, room * 100 * highest if highest else 1)
