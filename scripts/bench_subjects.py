"""What the benchmark of generation runs: a bank, a router, the rivals, and requests that need different prompts."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.model import DynamicPromptModel
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.run.inputs import pad_left
from idp.run.prefix import assemble
from idp.select.base import Selector
from idp.select.calibration import Calibration
from idp.select.constant import StaticSelector
from idp.select.registry import get_selector

PROMPTS = 8
SHORTEST, LONGEST = 16, 100
RANK = 8
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXAMPLES_A_TOPIC = 16
WORDS_A_TOPIC = 24
LARGE = 2**30  # parameters from which a request is 512 tokens in and 128 out


@dataclass(frozen=True)
class Plan:
    """Sizes of everything.

    Attributes:
        lengths: tokens of each prompt of the bank.
        tokens: most tokens of a request; the others have down to three quarters of it.
        new_tokens: what is generated for each.
        singles: requests of the runs at batch 1.
        batch: rows of the large batch.
        repeats: times everything is measured.
        seed: of prompts and requests.
    """

    lengths: tuple[int, ...]
    tokens: int
    new_tokens: int
    singles: int
    batch: int
    repeats: int
    seed: int


@dataclass(frozen=True, eq=False)
class Call:
    """One call of `generate`: ids and mask `(B, T)`, and what was chosen for its rows."""

    ids: Tensor
    mask: Tensor
    choices: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens to be read, padding not counted."""
        return int(self.mask.sum())

    def alone(self) -> list[Call]:
        """Every row as a call of its own, without padding."""
        rows = [ids[mask.bool()][None] for ids, mask in zip(self.ids, self.mask, strict=True)]  # (1, T) each
        return [Call(ids, torch.ones_like(ids), (choice,)) for ids, choice in zip(rows, self.choices, strict=True)]


def plan_for(lm: LanguageModel, tokens: int, new_tokens: int, repeats: int, seed: int, quick: bool) -> Plan:
    """Sizes that fit a model; 0 stands for its own."""
    if quick:
        return Plan(tuple(range(2, 2 + PROMPTS)), tokens or 8, new_tokens or 3, 2, 4, repeats, seed)
    is_large = sum(parameter.numel() for parameter in lm.model.parameters()) > LARGE
    own_tokens, own_new = (512, 128) if is_large else (32, 64)
    step = (LONGEST - SHORTEST) / (PROMPTS - 1)
    lengths = tuple(round(SHORTEST + step * number) for number in range(PROMPTS))
    return Plan(lengths, tokens or own_tokens, new_tokens or own_new, 4, 16, repeats, seed)


def random_prompt(lm: LanguageModel, length: int, seed: int) -> Prompt:
    """A prompt of random numbers on the scale of the model's own embeddings."""
    known = lm.embed(torch.arange(min(lm.vocab_size, 1000))).float().cpu()  # (v, d)
    noise = torch.randn(length, lm.hidden_size, generator=torch.Generator().manual_seed(seed + length))
    return Prompt(f"random-{length}", embedding=noise * known.std() + known.mean())


def request(lm: LanguageModel, topic: int, tokens: int, seed: int) -> list[int]:
    """A request about a topic, which is a few words that no other topic has: random embeddings have no other sense."""
    special = set(lm.tokenizer.all_special_ids)
    words = [number for number in range(topic, lm.vocab_size, PROMPTS) if number not in special][:WORDS_A_TOPIC]
    return random.Random(f"{seed} {topic} {tokens}").choices(words, k=tokens)


def calibration(lm: LanguageModel, plan: Plan) -> Calibration:
    """Requests of every topic, each answered well under the prompt of its topic only."""
    topics = [topic for topic in range(PROMPTS) for _ in range(EXAMPLES_A_TOPIC)]
    inputs = [request(lm, topic, plan.tokens, plan.seed + 1 + place) for place, topic in enumerate(topics)]
    losses = torch.ones(len(topics), PROMPTS + 1)  # (N, m + 1)
    losses[torch.arange(len(topics)), torch.tensor(topics)] = 0.0
    return Calibration(inputs, losses)


def static_selector(lm: LanguageModel, bank: PromptBank, index: int) -> Selector:
    """The selector that always chooses one prompt."""
    losses = torch.ones(1, len(bank) + 1)
    losses[0, index] = 0.0
    return StaticSelector().fit(bank, lm, Calibration([[0]], losses))


def compiled(model: DynamicPromptModel, indices: Sequence[int]) -> DynamicPromptModel:
    """Compile prompts beforehand, as a server does when it starts."""
    for index in indices:
        _ = model.store[index], model.store.length(index)
    return model


class Subjects:
    """The model in all its guises, and the calls they are given.

    Args:
        lm: the model.
        plan: sizes.
        selector: what chooses, a name with options; has to be fitted on losses.
    """

    def __init__(self, lm: LanguageModel, plan: Plan, selector: str = "router") -> None:
        self.lm, self.plan, self.chooser = lm, plan, selector
        self.bank = PromptBank([random_prompt(lm, length, plan.seed) for length in plan.lengths])
        self.selector = get_selector(selector, seed=plan.seed).fit(self.bank, lm, calibration(lm, plan))
        self.router = compiled(DynamicPromptModel(lm, self.bank, self.selector), range(PROMPTS))
        self.singles = [self.call([topic]) for topic in spaced(PROMPTS, plan.singles)]
        self.batch = self.call([place % PROMPTS for place in range(plan.batch)])
        self._statics: dict[int, DynamicPromptModel] = {}

    def call(self, topics: Sequence[int]) -> Call:
        """Make one call with a request about each topic; the first is the longest.

        Raises:
            SelectorError: the router chooses one prompt for different topics, so nothing would be measured.
        """
        shortest = self.plan.tokens * 3 // 4
        widths = random.Random(self.plan.seed).choices(range(shortest, self.plan.tokens + 1), k=len(topics) - 1)
        lengths = [self.plan.tokens, *widths]
        rows = [request(self.lm, *pair, self.plan.seed) for pair in zip(topics, lengths, strict=True)]
        choices = tuple(choice.index for choice in self.selector.select_batch(rows))
        if len(set(choices)) < len(set(topics)) or -1 in choices:
            raise SelectorError(f"the router chose {choices} for the topics {tuple(topics)}; try another --seed.")
        ids, mask = pad_left(rows, self.lm.pad_token_id)
        return Call(ids.to(self.lm.device), mask.to(self.lm.device), choices)

    def static(self, index: int) -> DynamicPromptModel:
        """The model that always uses one prompt of the bank."""
        if index not in self._statics:
            selector = static_selector(self.lm, self.bank, index)
            self._statics[index] = compiled(DynamicPromptModel(self.lm, self.bank, selector), [index])
        return self._statics[index]

    def static_of_length(self, length: int) -> DynamicPromptModel:
        """The model that always uses a prompt of a length which no prompt of the bank need have."""
        bank = PromptBank([random_prompt(self.lm, length, self.plan.seed)])
        return compiled(DynamicPromptModel(self.lm, bank, static_selector(self.lm, bank, 0)), [0])

    def longest(self, call: Call) -> int:
        """The longest of the prompts chosen in a call, to whose length the others are padded."""
        return max(call.choices, key=lambda choice: self.plan.lengths[choice])

    @cached_property
    def lora(self) -> Any:
        """A copy of the model with adapters that are not merged, without the wrappers around the whole."""
        from peft import LoraConfig, get_peft_model

        # Adapters that are zero at first would do for the time; random ones make sure that nothing is skipped.
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=PROJECTIONS, init_lora_weights=False)
        adapted = get_peft_model(copy.deepcopy(self.lm.model), config, autocast_adapter_dtype=False)
        return adapted.eval().requires_grad_(False).get_base_model()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Arguments of `generate`: greedy, and always as many tokens."""
        new = self.plan.new_tokens
        fixed = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        return {**fixed, "pad_token_id": self.lm.pad_token_id, **changes}

    def run(self, models: Sequence[Any], calls: Sequence[Call]) -> Callable[[], None]:
        """Generate for each call with the model beside it."""

        def go() -> None:
            with torch.no_grad():
                for model, call in zip(models, calls, strict=True):
                    model.generate(call.ids, attention_mask=call.mask, **self.settings())

        return go

    def prepare(self, calls: Sequence[Call]) -> Callable[[], None]:
        """Only what a call has beside the model's own work: choose for every row, and lay the prompts side by side."""
        batches = [[row.ids[0].tolist() for row in call.alone()] for call in calls]

        def go() -> None:
            with torch.no_grad():
                for rows in batches:
                    chosen = [choice.index for choice in self.selector.select_batch(rows)]
                    assemble(self.router.store.prefixes(chosen))

        return go

    def first_logits(self, model: Any, call: Call) -> Tensor:
        """Logits `(B, V)` that the first new token is read off."""
        once = self.settings(max_new_tokens=1, min_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        logits: Tensor = model.generate(call.ids, attention_mask=call.mask, **once).logits[0]
        return logits.float()


def spaced(count: int, wanted: int) -> list[int]:
    """Spread numbers evenly over `0 .. count - 1`, both ends among them.

    Example:
        >>> spaced(8, 4)
        [0, 2, 5, 7]
    """
    return [round(place * (count - 1) / (wanted - 1)) for place in range(wanted)]
