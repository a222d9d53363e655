from __future__ import annotations

import pytest
import torch

from idp.compress.compress import compress
from idp.model.load import load
from idp.model.view import decoder_layers


@pytest.mark.parametrize("architecture", ["llama", "opt", "qwen3", "gemma2", "gpt_neox"])
def test_every_block_is_at_least_as_near_as_rounding_to_nearest(dense_folder, some_text, tmp_path, architecture):
    made = compress(
        dense_folder(architecture), "flexround:bits=3,iterations=25,group=0", tmp_path / "m", calibration=some_text
    )
    assert len(made.blocks) == 2
    assert all(block.learned <= block.nearest for block in made.blocks)
    assert made.blocks[0].learned < made.blocks[0].nearest  # and something was learned


@pytest.mark.parametrize(
    "options", ["group=16", "group=0,symmetric=true", "group=16,init=searched", "symmetric=true,bits=2"]
)
def test_plain_transformers_loads_what_was_learned(dense_folder, some_text, tmp_path, monkeypatch, options):
    from transformers import AutoModelForCausalLM

    from idp.compress import compress as compressing

    memory = {}

    def remember(lm, *args):
        ids = torch.arange(5, 25)[None]
        with torch.no_grad():
            memory["logits"] = lm.model(ids).logits
        return real(lm, *args)

    real = compressing.save
    monkeypatch.setattr(compressing, "save", remember)
    compress(dense_folder(), f"flexround:iterations=5,{options}", tmp_path / "m", calibration=some_text)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(plain(torch.arange(5, 25)[None]).logits, memory["logits"], atol=1e-3, rtol=0)


def test_the_same_seed_gives_the_same_bytes(dense_folder, some_text, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        compress(dense_folder(), "flexround:bits=2,iterations=10", tmp_path / name, calibration=some_text, seed=seed)
    first, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == same != other


def test_what_is_outside_the_blocks_is_rounded_to_nearest(dense_folder, some_text, tmp_path):
    recipe = tmp_path / "all.yaml"
    recipe.write_text(
        """
        all_stage:
          all_modifiers:
            FlexRoundModifier:
              iterations: 2
              config_groups: {all: {targets: [Linear], weights: {num_bits: 8, symmetric: true, strategy: channel}}}
        """
    )
    compress(dense_folder(), str(recipe), tmp_path / "m", calibration=some_text)
    dense, lm = (load(folder, "cpu", "float32").model for folder in (dense_folder(), tmp_path / "m"))
    difference = (dense.lm_head.weight - lm.lm_head.weight).abs()
    step = dense.lm_head.weight.abs().amax(dim=1, keepdim=True) / 127.5
    assert difference.max() > 0 and (difference <= 0.51 * step).all()


def test_the_learning_rate_is_the_published_one_unless_told(tiny_lm):
    from idp.compress.flexround.modifier import FlexRoundModifier

    def rate(bits, **given):
        scheme = {"targets": ["Linear"], "weights": {"num_bits": bits}}
        modifier = FlexRoundModifier(config_groups={"all": scheme}, **given)
        linear = decoder_layers(tiny_lm())[0].mlp.up_proj
        linear.quantization_scheme = modifier.resolved_config.config_groups["all"]
        try:
            return modifier._learning({"up": linear}).learning_rate
        finally:
            del linear.quantization_scheme

    assert (rate(8), rate(4), rate(3), rate(2), rate(4, learning_rate=0.1)) == (3e-3, 3e-3, 2.5e-3, 2.5e-3, 0.1)


def test_only_calibration_text_is_remembered(dense_folder, some_text, tmp_path, monkeypatch):
    from idp.compress.flexround.modifier import FlexRoundModifier

    real, seen = FlexRoundModifier._remember, []

    def remember(self, module, args, kwargs):
        seen.append(module)
        real(self, module, args, kwargs)

    monkeypatch.setattr(FlexRoundModifier, "_remember", remember)
    compress(dense_folder(), "flexround:bits=3,iterations=20", tmp_path / "m", calibration=some_text)
    assert len(seen) == 2 * some_text.rows


@pytest.mark.parametrize("left", [0, 1])
def test_a_recipe_may_leave_a_block_out(dense_folder, some_text, tmp_path, left):
    recipe = tmp_path / "some.yaml"
    recipe.write_text(
        f"""
        some_stage:
          some_modifiers:
            FlexRoundModifier:
              iterations: 3
              ignore: [lm_head, "re:.*layers.{left}[.].*"]
              config_groups: {{all: {{targets: [Linear], weights: {{num_bits: 3, strategy: channel}}}}}}
        """
    )
    made = compress(dense_folder(), str(recipe), tmp_path / "m", calibration=some_text)
    assert len(made.blocks) == 1
    assert {name.split(".")[2] for name in made.unquantised} == {str(left)}
