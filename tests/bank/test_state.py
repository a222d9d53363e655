from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from idp.bank import SelectorState
from idp.errors import OutputError, SelectorError


def test_a_state_survives_a_file_of_its_own(tmp_path):
    state = SelectorState({"noise": 0.25, "prompts": ["ä", "b"]}, {"sums": torch.rand(3, 2, dtype=torch.float64)})
    path = state.save(tmp_path / "new" / "feedback.safetensors")
    again = SelectorState.load(path)
    assert again.config == state.config
    assert torch.equal(again.tensors["sums"], state.tensors["sums"])
    before = path.read_bytes()
    assert state.save(path).read_bytes() == before
    assert SelectorState.load(SelectorState().save(tmp_path / "empty.safetensors")).tensors == {}


def test_a_failed_write_leaves_the_old_state(tmp_path, monkeypatch):
    path = SelectorState({"feedback": 1}).save(tmp_path / "state")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        SelectorState({"feedback": 2}).save(path)
    assert SelectorState.load(path).config == {"feedback": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_what_is_no_state_is_refused(tmp_path):
    with pytest.raises(SelectorError, match="no selector's state at"):
        SelectorState.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    save_file({"a": torch.ones(1)}, tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(SelectorError, match="is not a selector's state"):
            SelectorState.load(tmp_path / name)
    for config in ({"object": object()}, {"number": float("nan")}):
        with pytest.raises(SelectorError, match="cannot be written as JSON"):
            SelectorState(config).save(tmp_path / "never")
    assert not (tmp_path / "never").exists()
