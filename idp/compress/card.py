"""The card of a compressed model: what was done to it, with what text, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator

from idp.compress.report import Compressed

__all__ = ["model_card"]


def model_card(made: Compressed) -> str:
    """Fill in the card, in Markdown with the front matter that hubs read."""
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            f"base_model: {made.dense}",
            "tags: [model-compression, llm-compressor, idp]",
            "---",
            "",
            f"# {made.dense}, {made.recipe}",
            "",
            f"{made.about} What the files hold: {made.kind}.{_left(made)}",
            "",
            "| | dense | compressed |",
            "|---|---|---|",
            f"| perplexity | {made.perplexity_before:.3f} | {made.perplexity_after:.3f} |",
            f"| megabytes | {made.bytes_before / 1e6:.2f} | {made.bytes_after / 1e6:.2f} |",
            f"| zeros | | {made.zeros:.1%} |",
            "",
            f"Perplexity is that of {made.calibration['perplexity_on']}, {made.calibration['row_tokens']} tokens each.",
            "",
            "## How it was made",
            "",
            *(f"- {name}: {value}" for name, value in _facts(made).items()),
            "",
            *_blocks(made),
            "## How to use it",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM",
            "",
            'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")',
            "```",
            "",
        ]
    )


def _left(made: Compressed) -> str:
    names = ", ".join(f"`{name}`" for name in made.unquantised)
    return f" Left as they were: {names}." if names else ""


def _facts(made: Compressed) -> dict[str, object]:
    text = made.calibration
    return {
        "recipe": f"`{made.recipe}`; as llm-compressor reads it in recipe.yaml",
        "options": ", ".join(f"{name}={value}" for name, value in made.options.items()) or "none",
        "calibration": f"{text['source']}, {text['rows']} rows of {text['row_tokens']} tokens, sha256 {text['digest']}",
        "seed": made.seed,
        "time": f"{made.seconds:.1f} s, {made.seconds_per_million:.2f} s per million parameters",
        "made by": ", ".join(f"{name} {number}" for name, number in made.versions.items()),
    }


def _blocks(made: Compressed) -> Iterator[str]:
    if not made.blocks:
        return
    yield "Error of each block's output on the calibration text, as a share of its mean square:"
    yield from ["", "| block | rounded to nearest | learned |", "|---|---|---|"]
    for number, block in enumerate(made.blocks):
        yield f"| {number} | {block.nearest / block.scale:.5f} | {block.learned / block.scale:.5f} |"
    yield ""
