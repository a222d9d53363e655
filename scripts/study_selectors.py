"""What can be known of the best prompt before, and after, running them all: held-out tuning questions, five folds.

Every way of choosing is fitted on four fifths of the questions and chooses for the last fifth. The share of the
distance from the static prompt to each question's best arm tells what features and models of choice are worth. Some
rows know what no selector can that runs nothing: what the model says under every prompt.

    python scripts/study_selectors.py --model reference --out runs/study-selectors

Losses are kept in the folder. No evaluation item is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from idp.bank.bank import PromptBank
from idp.cli.errors import guarded
from idp.cli.quiet import hush
from idp.errors import BankError
from idp.evaluate.regret import Choices, Outcomes, regrets
from idp.files import atomic_write_text, json_text
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.model.view import num_layers, shallow
from idp.run.next_tokens import next_tokens
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.select.base import Cost
from idp.select.calibration import Calibration
from idp.select.features import mean_embeddings
from idp.select.linear import Linear, fit_costs, minimised, unit_losses
from idp.select.probabilities import certainty
from idp.select.sentences import SentenceEncoder, texts_of
from idp.select.states import shallow_states
from idp.select.training import Lesson, Training
from idp.tune.atlas import atlas_data
from idp.tune.examples import Example
from idp.tune.losses import kept_losses

FOLDS = 5
L2 = 1e-2
PRICE = 2e-3
COST = Cost(0.0, 0, True, False)


class Study(NamedTuple):
    """Held-out questions, what every arm costs on each, and what may be known of them.

    Attributes:
        losses: `(N, m + 1)`.
        features: name -> `(N, f)`.
        folds: `(N,)`.
        lessons: name -> `(N, m + 1)`, what may be learned from in place of the losses.
    """

    losses: Tensor
    features: dict[str, Tensor]
    folds: Tensor
    lessons: dict[str, Tensor]


Fit = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Features and losses of some questions, features of others; to arms for the others."""


def expected(features: Tensor, losses: Tensor, others: Tensor) -> Tensor:
    """The linear map of the router, from zero."""
    return (
        fit_costs(Linear.zero(features, losses.shape[1]), features, unit_losses(losses), L2)
        .logits(others)
        .argmax(dim=1)
    )


def ridge(features: Tensor, losses: Tensor, others: Tensor) -> Tensor:
    """Regression of every arm's loss, less the mean of all arms."""
    start = Linear.zero(features, 1)
    x, y = start.standard(features), losses - losses.mean(dim=1, keepdim=True)
    penalty = len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - y.mean(dim=0)))
    return (start.standard(others) @ weights + y.mean(dim=0)).argmin(dim=1)


def trained(training: Training) -> Fit:
    """The router's own training, with a hidden layer or another objective."""

    def fit(features: Tensor, losses: Tensor, others: Tensor) -> Tensor:
        lesson = Lesson(features, unit_losses(losses), torch.arange(len(losses)) % FOLDS)
        return training.run(lesson).map.logits(others).argmax(dim=1)

    return fit


def trunk(features: Tensor, losses: Tensor, others: Tensor) -> Tensor:
    """Losses of all arms from one hidden layer that they share."""
    start = Linear.zero(features, 1)
    x, y = start.standard(features).float(), unit_losses(losses).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
        net = torch.nn.Sequential(torch.nn.Dropout(0.2), *layers, torch.nn.Linear(64, y.shape[1]))
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
        for _ in range(30):
            order = torch.randperm(len(x))
            for begin in range(0, len(x), 64):
                rows = order[begin : begin + 64]
                optimizer.zero_grad()
                torch.autograd.backward((net(x[rows]).softmax(dim=1) * y[rows]).sum(dim=1).mean())
                optimizer.step()
    with torch.no_grad():
        chosen: Tensor = net.eval()(start.standard(others).float()).argmax(dim=1)
    return chosen


def distilled(study: Study, teacher: str, student: str) -> Tensor:
    """Choices by a map of cheap features that was taught what the router believes by dear ones, `(N,)`."""
    dear, cheap = study.features[teacher], study.features[student]

    def fold(inside: Tensor) -> Tensor:
        known, losses = dear[~inside], unit_losses(study.losses[~inside])
        beliefs = (3 * fit_costs(Linear.zero(known, losses.shape[1]), known, losses, L2).logits(known)).softmax(dim=1)
        start = Linear.zero(cheap[~inside], losses.shape[1])
        x = start.standard(cheap)
        weight, bias = minimised(
            lambda w, b: cross_entropy(x[~inside] @ w.T + b, beliefs) + 1e-4 * w.square().sum(),
            start.weight,
            start.bias,
        )
        return (x[inside] @ weight.T + bias).argmax(dim=1)

    return by_fold(study, fold)


def by_fold(study: Study, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """Choose for each fold in turn, `(N,)`."""
    arms = torch.zeros(len(study.losses), dtype=torch.long)
    for number in range(FOLDS):
        inside = study.folds == number
        arms[inside] = choose(inside)
    return arms


def crossed(study: Study, name: str, fit: Fit, losses: Tensor | None = None) -> Tensor:
    """Choices of a model of features, `(N,)`, that learns from the losses or from what is given in their place."""
    features, learned = study.features[name], study.losses if losses is None else losses
    return by_fold(study, lambda inside: fit(features[~inside], learned[~inside], features[inside]))


def words(contexts: list[tuple[int, ...]], vocabulary: int) -> Tensor:
    """Which tokens occur, of those that occur in twenty contexts, `(N, f)`."""
    seen = torch.zeros(len(contexts), vocabulary, dtype=torch.float64)
    for row, ids in enumerate(contexts):
        seen[row, list(set(ids))] = 1.0
    return seen[:, seen.sum(dim=0) >= 20]


def uncertainty(lm: LanguageModel, bank: PromptBank, contexts: list[tuple[int, ...]]) -> Tensor:
    """Entropy and largest probability of the first token under every arm, `(N, 2 (m + 1))`."""
    store, columns = PrefixStore(lm, bank), []
    for arm in track([*range(len(bank)), -1], "running every prompt", transient=True):
        p = next_tokens(store, contexts, [arm] * len(contexts)).double().exp()  # (N, V)
        columns.append(torch.stack([certainty(p), p.amax(dim=1).log()], dim=1))
    return torch.cat(columns, dim=1)


def own_answers(lm: LanguageModel, bank: PromptBank, examples: list[Example]) -> Tensor:
    """Losses if the right option were the one that all arms together hold most probable, `(N, m + 1)`.

    All arms are equal where there is one answer only.
    """
    store, asked = PrefixStore(lm, bank), [row for row, one in enumerate(examples) if len(one.continuations) > 1]
    requests, found = [examples[row].request for row in asked], torch.zeros(len(examples), len(bank) + 1).double()
    arms = track([*range(len(bank)), -1], "asking every prompt", transient=True)
    scored = [score(store, requests, [arm] * len(asked)) for arm in arms]
    for place, row in enumerate(asked):
        options = [[option.loglikelihood for option in column[place].scores] for column in scored]
        p = torch.tensor(options, dtype=torch.float64).softmax(dim=1)  # (m + 1, options)
        found[row] = 1 - p[:, p.mean(dim=0).argmax()]
    return found


def features_of(
    lm: LanguageModel, bank: PromptBank, examples: list[Example], sentences: str | None
) -> dict[str, Tensor]:
    """Everything that choices are made from."""
    contexts = [example.context for example in examples]
    groups = [example.group for example in examples]
    names = sorted(set(groups))
    found = {
        "task": one_hot(torch.tensor([names.index(group) for group in groups])).double(),
        "embedding": mean_embeddings(lm, contexts),
        "words": words(contexts, lm.vocab_size),
    }
    if sentences:
        found["sentence"] = SentenceEncoder.load(sentences).encode(texts_of(lm, contexts))
    for layer in range(1, num_layers(lm) + 1):
        found[f"state {layer}"] = shallow_states(lm, shallow(lm, layer), contexts)
    half, begun = half_way(lm), [ids[: (len(ids) + 1) // 2] for ids in contexts]
    found[f"{half}, half the question"] = shallow_states(lm, shallow(lm, max(1, num_layers(lm) // 2)), begun)
    found["embedding + two states"] = torch.cat(
        [found["embedding"], found[half], found[f"state {num_layers(lm)}"]], dim=1
    )
    found["uncertainty"] = uncertainty(lm, bank, contexts)
    found["state + uncertainty"] = torch.cat([found[half], found["uncertainty"]], dim=1)
    return found


def half_way(lm: LanguageModel) -> str:
    """Name of the state that the router takes as `features=state`."""
    return f"state {max(1, num_layers(lm) // 2)}"


def studied(lm: LanguageModel, bank: PromptBank, examples: list[Example], sentences: str | None, kept: Path) -> Study:
    """Measure everything; losses are kept in a folder."""
    losses = kept_losses(lm, list(bank), examples, kept)
    features = features_of(lm, bank, examples, sentences)
    store = PrefixStore(lm, bank)
    tokens = torch.tensor([*(store.length(arm) for arm in range(len(bank))), 0])  # (m + 1,)
    lessons = {
        "its own entropy": -features["uncertainty"][:, 0::2],
        "its own answers": own_answers(lm, bank, examples),
        f"{PRICE:g} more a token": losses + PRICE * tokens,
    }
    return Study(losses, features, Calibration([example.context for example in examples]).folds(FOLDS, 0), lessons)


def ways(study: Study, half: str) -> dict[str, Tensor]:
    """Choices of every way of choosing, `(N,)` each."""
    found = {"static": torch.zeros(len(study.losses), dtype=torch.long)}
    for name in study.features:
        found[f"expected loss, {name}"] = crossed(study, name, expected)
    for name in ("embedding", half):
        found[f"regression of losses, {name}"] = crossed(study, name, ridge)
        found[f"shared trunk, {name}"] = crossed(study, name, trunk)
        found[f"hidden layer, {name}"] = crossed(study, name, trained(Training(hidden=32, l2=L2, abstain=False)))
        found[f"ranking, {name}"] = crossed(study, name, trained(Training(objective="ranking", l2=L2, abstain=False)))
        for given, losses in study.lessons.items():
            found[f"{given}, {name}"] = crossed(study, name, expected, losses)
    for name in ("embedding", "words"):
        found[f"router on {half} distilled into {name}"] = distilled(study, half, name)
    found["least entropy of the first token"] = study.features["uncertainty"][:, 0::2].argmax(dim=1)
    return found


@guarded()
def main(
    model: Annotated[str, typer.Option(help="The compressed model, one that knows the embedded world.")] = "reference",
    bank: Annotated[str | None, typer.Option(help="Its bank, whose first prompt is the static one.")] = None,
    atlas: Annotated[int, typer.Option(help="Items a task, a quarter of which is held out.")] = 8000,
    sentences: Annotated[str | None, typer.Option(help="A sentence-transformers model for one more feature.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of what is measured.")] = Path("runs/study-selectors"),
) -> None:
    """Measure, fit, and print a table."""
    hush(False)
    spec = resolve(model)
    if (folder := bank or spec.bank) is None:
        raise BankError(f"no bank is known for {spec.name}: name one (--bank).")
    lm, prompts = load(spec), PromptBank.load(folder)
    prompts.require(lm.fingerprint)
    examples = [example for example in atlas_data(lm, atlas, 0).held_out if not example.is_text]
    study = studied(lm, prompts, examples, sentences, out / "losses")
    chosen = ways(study, half_way(lm))
    tasks = [example.group for example in examples]
    groups = np.array(tasks)
    tables = {str(task): study.losses.numpy()[groups == task] for task in dict.fromkeys(tasks)}
    rows = regrets(
        Outcomes((*prompts.names, "no prompt"), tables, {}),
        [
            Choices(name, {task: arms.numpy()[groups == task] for task in tables}, COST, 0.0, 0.0)
            for name, arms in chosen.items()
        ],
    )
    table = Table("way of choosing", "loss", "covered", "95 %", title=f"{spec.name}, {len(examples):,} questions")
    for row in rows:
        share = row.covered
        table.add_row(row.name, f"{row.loss:.4f}", f"{share.value:.1%}", f"[{share.low:.1%}, {share.high:.1%}]")
    atomic_write_text(out / "study.json", json_text([row.to_dict() for row in rows]))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
