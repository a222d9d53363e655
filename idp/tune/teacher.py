"""What the dense model would have said: its most likely tokens, kept on disk so that it is run once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.errors import ModelError, TaskError
from idp.run.batching import BatchSize, run_batches
from idp.run.guard import broken_numbers
from idp.run.packing import Request, lay_out
from idp.run.passes import Job
from idp.run.readout import readout
from idp.run.store import PrefixStore
from idp.run.ways import PASSES, reach, way_of
from idp.tune.checkpoint import load_tensors, save_tensors

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Lesson", "Teacher", "require_same_tokenizer", "teach"]

_LOG = logging.getLogger(__name__)

_SHARD = 2048  # requests of a file, which is what an interruption costs
_NOTHING = 1e-6  # mass of the tail below which it is rounding


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the teacher said to one batch.

    Attributes:
        likelihoods: log-likelihood of each option, `(options,)`, at temperature 1.
        ids: for each token to be predicted the teacher's `k` most likely tokens, `(N, k)`.
        log_probs: their log-probabilities at the temperature, `(N, k)`.
        temperature: what logits are divided by.
    """

    likelihoods: Tensor
    ids: Tensor
    log_probs: Tensor
    temperature: float

    def divergences(self, logits: Tensor) -> Tensor:
        """Compute how far a student is from the teacher at each token.

        `temperature^2 KL(teacher | student)` over the `k` tokens and, as one outcome, all others together: never more
        than the divergence over the whole vocabulary.

        Args:
            logits: the student's, `(N, V)`.

        Returns:
            `(N,)`.

        Source: arXiv 1503.02531, sections 2 and 2.1.
        """
        ids, known = self.ids.to(logits.device), self.log_probs.to(logits.device)  # (N, k)
        scaled = logits if self.temperature == 1 else logits / self.temperature
        norms = scaled.logsumexp(-1, keepdim=True)  # (N, 1)
        top = (known.exp() * (known - (scaled.gather(1, ids) - norms))).sum(-1)  # (N,)
        rest = 1 - known.exp().sum(-1)  # (N,) the teacher's mass elsewhere
        if ids.shape[1] < logits.shape[1]:
            others = scaled.scatter(1, ids, -torch.inf).logsumexp(-1) - norms[:, 0]  # (N,)
            tail = rest.clamp_min(_NOTHING) * (rest.clamp_min(_NOTHING).log() - others)
            top = top + torch.where(rest > _NOTHING, tail, 0.0)
        return top * self.temperature**2


@dataclass(frozen=True, eq=False)
class Teacher:
    """What the dense model said to a set of requests.

    Attributes:
        name: of the dense model.
        temperature: what its logits were divided by.
        lessons: what it said to each.
        identity: what its answers depend on beside the requests: model, type, tokens kept, temperature.
    """

    name: str
    temperature: float
    lessons: dict[Request, Lesson]
    identity: str

    def lesson(self, requests: Sequence[Request]) -> Lesson:
        """What it said to a batch.

        Raises:
            TaskError: it was not asked about one of them.
        """
        try:
            said = [self.lessons[request] for request in requests]
        except KeyError:
            raise TaskError(f"the teacher {self.name} was not run on an example it is asked about.") from None
        return _concatenated(said, self.temperature)


def teach(
    teacher: LanguageModel,
    student: LanguageModel,
    requests: Sequence[Request],
    *,
    top_k: int = 16,
    temperature: float = 1.0,
    folder: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> Teacher:
    """Run the dense model once over all requests.

    Args:
        teacher: the dense model; it gets no prompt.
        student: the compressed model.
        requests: what is asked; each different one is run once.
        top_k: how many tokens are kept of each distribution.
        temperature: what logits are divided by.
        folder: where the answers are kept; a later call with the same arguments reads them.
        advance: called with the number of requests just done.

    Returns:
        The teacher's answers.

    Raises:
        ModelError: the two models have different tokenizers.
        TaskError: numbers that make no sense.
        OutputError: the folder cannot be written to.
    """
    if top_k < 1 or not temperature > 0:
        raise TaskError(f"cannot keep the {top_k} most likely tokens at temperature {temperature:g}.")
    require_same_tokenizer(teacher, student)
    vocabulary = min(teacher.vocab_size, student.vocab_size)
    desk = _Desk(teacher, min(top_k, vocabulary), vocabulary, temperature)
    different = list(dict.fromkeys(requests))
    lessons: dict[Request, Lesson] = {}
    for begin in range(0, len(different), _SHARD):
        shard = different[begin : begin + _SHARD]
        lessons.update(zip(shard, desk.shard(shard, folder), strict=True))
        if advance:
            advance(len(shard))
    return Teacher(teacher.name, temperature, lessons, desk.identity)


def require_same_tokenizer(teacher: LanguageModel, student: LanguageModel) -> None:
    """Check that the token ids of one model mean the same to the other.

    Raises:
        ModelError: they do not.
    """
    if teacher.fingerprint.tokenizer != student.fingerprint.tokenizer:
        raise ModelError(
            f"the teacher {teacher.name} has another tokenizer than {student.name}, so their tokens cannot be "
            "compared: name the dense model that was compressed."
        )


@dataclass(frozen=True, eq=False)
class _Desk:
    """The dense model at work."""

    lm: LanguageModel
    top_k: int
    vocabulary: int
    temperature: float

    def shard(self, requests: list[Request], folder: Path | None) -> list[Lesson]:
        """Answer requests, or read what was answered before."""
        if folder is None:
            return self.answer(requests)
        key = self.key(requests)
        path = folder / f"teacher-{key[:16]}.safetensors"
        if (kept := load_tensors(path, key)) is None:
            kept = _joined(self.answer(requests))
            save_tensors(path, kept, key)
        return self.apart(kept, requests)

    @property
    def identity(self) -> str:
        """What the answers depend on beside the requests."""
        return repr((self.lm.fingerprint, self.lm.dtype, self.top_k, self.vocabulary, self.temperature))

    def key(self, requests: list[Request]) -> str:
        """What identifies the answers to some requests."""
        return hashlib.sha256(f"{self.identity} {requests!r}".encode()).hexdigest()

    def apart(self, joined: dict[str, Tensor], requests: list[Request]) -> list[Lesson]:
        """Cut joined tensors into one lesson a request."""
        options = [len(request.continuations) for request in requests]
        tokens = [sum(map(len, request.continuations)) for request in requests]
        parts = zip(
            torch.split(joined["likelihoods"], options),
            torch.split(joined["ids"].long(), tokens),
            torch.split(joined["log_probs"], tokens),
            strict=True,
        )
        return [Lesson(*each, self.temperature) for each in parts]

    def answer(self, requests: list[Request]) -> list[Lesson]:
        """Run the model."""
        rows = [(n, row) for n, request in enumerate(requests) for row in self._rows(request)]
        order = sorted(range(len(rows)), key=lambda i: (-rows[i][1].packed_length, i))
        said: dict[int, Lesson] = {}

        def run(places: list[int]) -> list[Lesson]:
            return self._batch([rows[place][1] for place in places])

        jobs = run_batches(order, lambda place: rows[place][1].packed_length, run, BatchSize(None), self.lm)
        for batch, answers, _ in jobs:
            said.update(zip(batch, answers, strict=True))
        found: list[list[Lesson]] = [[] for _ in requests]
        for place, (number, _) in enumerate(rows):
            found[number].append(said[place])
        return [_concatenated(lessons, self.temperature) for lessons in found]

    def _rows(self, request: Request) -> list[Request]:
        """A request in one row where the model can read it so, else a row an option."""
        if way_of(self.lm) == "packed" and request.packed_length <= reach(self.lm, "packed"):
            return [request]
        return [Request(request.context, (option,)) for option in request.continuations]

    @torch.no_grad()
    def _batch(self, requests: list[Request]) -> list[Lesson]:
        layout = lay_out(requests, self.lm.pad_token_id)
        run = PASSES["packed" if way_of(self.lm) == "packed" else "plain"]
        states = run(PrefixStore(self.lm, None), [Job(i, 0, r, -1) for i, r in enumerate(requests)], layout)
        sources, targets = layout.sources, layout.targets  # (N,)
        chosen = torch.empty(len(targets))  # (N,)
        best, ids = [], []
        for part, logits in readout(self.lm).logits(states):  # (p, V)
            logits = logits[:, : self.vocabulary]
            likeliest = (logits / self.temperature).log_softmax(-1).topk(self.top_k)
            best.append(likeliest.values.cpu())
            ids.append(likeliest.indices.cpu())
            here = ((sources >= part.start) & (sources < part.stop)).nonzero()[:, 0]
            wanted = (sources[here] - part.start).to(logits.device), targets[here].to(logits.device)
            chosen[here] = logits.log_softmax(-1)[wanted].cpu()
        if bool(torch.isnan(chosen).any()):
            raise broken_numbers(self.lm, "NaN instead of probabilities")
        likelihoods = torch.zeros(layout.num_options).index_add(0, layout.owners, chosen)
        kept = {"ids": torch.cat(ids)[sources], "log_probs": torch.cat(best)[sources]}  # (N, k) each
        return self.apart({"likelihoods": likelihoods, **kept}, requests)


def _joined(lessons: list[Lesson]) -> dict[str, Tensor]:
    return {
        "likelihoods": torch.cat([lesson.likelihoods for lesson in lessons]),
        "ids": torch.cat([lesson.ids for lesson in lessons]).int(),
        "log_probs": torch.cat([lesson.log_probs for lesson in lessons]),
    }


def _concatenated(lessons: list[Lesson], temperature: float) -> Lesson:
    joined = _joined(lessons)
    return Lesson(joined["likelihoods"], joined["ids"].long(), joined["log_probs"], temperature)
