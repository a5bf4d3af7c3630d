"""One request through all stages: candidates of several sources, the ranker's order of them, and what rules make of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.config import PipelineConfig
from anyrec.core.discovery import Registry
from anyrec.core.errors import AnyrecError, ConfigError, Fault, InputError
from anyrec.model.fitted import FittedModel, ModelData
from anyrec.model.scoring import CELLS_AT_A_TIME, rank_rows, score_blocks
from anyrec.pipeline.candidate_lists import (
    Merged,
    best_of,
    descending,
    empty_lists,
    is_open,
    keep,
    lists_of_ranks,
    merge,
    open_to,
)
from anyrec.pipeline.contracts import Lists, Request, Rule, Source
from anyrec.pipeline.ranking.ranker import Candidates, Ranker
from anyrec.pipeline.requests import make_requests
from anyrec.pipeline.trace import Trace

STAGES = ("represent", "filter", "retrieve", "rank", "rerank")
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What a request is given.

    table: user_id, item_id, score, rank (from 1). latency: milliseconds by stage, and `total`. warnings: sentences on what was
    skipped. trace: what befell the items, as `anyrec.pipeline.trace` has it; None unless asked for.
    """

    table: pa.Table
    latency: dict[str, float]
    warnings: list[str]
    trace: pa.Table | None = None


class Clock:
    """Time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def milliseconds(self) -> dict[str, float]:
        found = {stage: 1000 * self.seconds[stage] for stage in STAGES if stage in self.seconds}
        return {**found, "total": sum(found.values())}


class Pipeline:
    """The stages that `pipeline` in the config names. It keeps what they learned, and no request."""

    def __init__(self, config: PipelineConfig, registry: Registry):
        """Raises ConfigError with every unknown name and bad option."""
        self.config = config
        faults: list[Fault] = []

        def make(kind: str, component: Any, where: str) -> Any:
            try:
                params = registry.params(kind, component.type, component.options(), where)
                return registry.get(kind, component.type, where)(params)
            except ConfigError as error:
                faults.extend(error.faults)

        self.sources: list[Source] = [
            make("source", one, f"/pipeline/retrieve/sources/{n}") for n, one in enumerate(config.retrieve.sources)
        ]
        self.rules: list[Rule] = [
            make("rule", one, f"/pipeline/rerank/rules/{n}") for n, one in enumerate(config.rerank.rules)
        ]
        if config.rank is not None:
            try:
                registry.params("interaction", config.rank.type, config.rank.options(), "/pipeline/rank")
            except ConfigError as error:
                faults.extend(error.faults)
        faults += [
            Fault(f"/pipeline/rerank/rules/{n}/on_error", "a filter that fails cannot be skipped.", "Leave it out.")
            for n, rule in enumerate(self.rules)
            if rule is not None and type(rule).apply is Rule.apply and _on_error(rule) == "skip"
        ]
        if faults:
            raise ConfigError(faults)
        self.ranker: Ranker | None = None
        self.measured: dict[str, float] = {}
        self.source_names = _names(self.sources)
        self.rule_names = _names(self.rules)

    def check(self, model: ModelData) -> None:
        """Raises ConfigError where options do not fit the data, with the faults of all components."""
        faults = []
        for folder, components in (
            ("/pipeline/retrieve/sources", self.sources),
            ("/pipeline/rerank/rules", self.rules),
        ):
            for n, component in enumerate(components):
                try:
                    component.check(model)
                except ConfigError as error:
                    faults += [replace(fault, where=f"{folder}/{n}{fault.where}") for fault in error.faults]
        if self.config.rank is not None and not model.has_vectors:
            what = f"a ranker reads feature vectors, and '{model.config.model.type}' has none."
            faults.append(Fault("/pipeline/rank", what, "Leave the ranker out, or train a two_tower."))
        if faults:
            raise ConfigError(list(dict.fromkeys(faults)))

    def answer(
        self,
        model: FittedModel,
        users: Any = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: np.ndarray | None = None,
        context: dict[str, Any] | None = None,
        now: int | None = None,
        trace: bool = False,
    ) -> Answer:
        """The lists of `users`, as `FittedModel.recommend` takes them. candidates: (items,) bool, the only ones to list."""
        clock, tables, warnings = Clock(), [], []
        kept = Trace(self.source_names) if trace else None
        options = {
            "exclude_seen": exclude_seen,
            "candidates": candidates,
            "context": context,
            "now": now,
            "trace": kept,
        }
        for request, lists in self.blocks(model, users, k, clock, **options):
            tables.append(as_table(request, lists))
            warnings += request.warnings
        return Answer(
            pa.concat_tables(tables) if tables else no_table(model),
            clock.milliseconds(),
            list(dict.fromkeys(warnings)),
            None if kept is None else kept.table(model),
        )

    def blocks(
        self,
        model: FittedModel,
        users: Any,
        k: int,
        clock: Clock,
        *,
        exclude_seen: bool = True,
        candidates: np.ndarray | None = None,
        context: dict[str, Any] | None = None,
        now: int | None = None,
        trace: Trace | None = None,
    ) -> Iterator[tuple[Request, Lists]]:
        """The users block by block, each with its lists. Arguments as of `answer`."""
        options = {"exclude_seen": exclude_seen, "context": context, "now": now, "tokens": self.ranker is not None}
        requests = make_requests(model, users, **options)
        while True:
            with clock.of("represent"):
                request = next(requests, None)
            if request is None:
                return
            yield request, self.run(request, k, candidates, clock, trace)

    def run(
        self,
        request: Request,
        k: int,
        candidates: np.ndarray | None = None,
        clock: Clock | None = None,
        trace: Trace | None = None,
    ) -> Lists:
        """The k best of each user of one request. candidates: (items,) bool, the only ones to list; None for all."""
        clock = clock or Clock()
        with clock.of("filter"):
            self._filter(request, candidates, trace, k)
            shown = open_to(request, request.allowed)
        with clock.of("retrieve"):
            found = self._retrieve(request, k, shown, trace)
        lists = found.lists
        if self.ranker is not None and self.config.rank is not None:
            width = max(self.config.rank.k, k)
            with clock.of("rank"):
                ranker = self.ranker
                scores = self._attempt(request, "ranker", None, lambda: ranker.scores(request, found))
                lists = keep(lists, lists.items >= 0, width) if scores is None else best_of(lists, scores, width)
            if trace is not None and scores is not None:
                trace.stage("rank", lists)
        with clock.of("rerank"):
            lists = self._rerank(request, lists, k, shown, trace)
        lists = Lists(lists.items[:, :k], lists.scores[:, :k])
        if trace is not None:
            trace.finish(request, lists)
        return lists

    def candidates(self, request: Request, rankable: np.ndarray | None) -> Candidates:
        """What the first stage brings, whatever rules would bar. rankable: (items,) bool."""
        request.allowed = rankable
        return self._retrieve(request, 1, open_to(request, rankable), None)

    def _filter(self, request: Request, candidates: np.ndarray | None, trace: Trace | None, k: int) -> None:
        """Set `request.allowed` to what all filters and `candidates` let through.

        Raises:
            AnyrecError: a filter failed. A filter is never skipped, because skipping it lists what it should hide.
        """
        masks = [] if candidates is None else [("candidates", candidates)]
        for name, rule in zip(self.rule_names, self.rules, strict=True):
            try:
                made = rule.allowed(request)
                if made is not None:
                    made = _checked_mask(made, request)
            except Exception as error:
                raise _refusal(f"filter '{name}'", error) from error
            if made is not None:
                masks.append((name, made))
        for _, mask in masks:
            request.allowed = mask if request.allowed is None else request.allowed & mask
        if trace is not None:
            with torch.inference_mode():
                trace.begin(request, masks, _own_best(request, k, None), k)

    def _retrieve(self, request: Request, k: int, shown: np.ndarray | None, trace: Trace | None) -> Candidates:
        """The candidates in the model's order."""
        width, users = max(self.config.retrieve.k, k), len(request.rows)
        brought = []
        for name, source in zip(self.source_names, self.sources, strict=True):
            own = min(source.params.k or width, width)
            made = self._attempt(
                request,
                f"source '{name}'",
                empty_lists(users),
                lambda source=source, own=own: _checked(source.retrieve(request, own, request.allowed), request, shown),
            )
            brought.append(made)
        merged = merge(brought, width, len(request.items))
        lacking = _lacking(merged.items, shown, k, len(request.items))
        if lacking.any():
            with torch.inference_mode():
                more = _own_best(request, k, shown, lacking)
            merged = _fill_up(merged, more, width, len(request.items))
        if len(brought) == 1 and self.sources[0].in_model_order(request) and not lacking.any():
            found = Candidates(Lists(merged.items, brought[0].scores[:, :width]), merged.places, merged.scores)
        else:
            found = _in_model_order(request, merged)
        if trace is not None:
            trace.retrieved(found)
        return found

    def _rerank(self, request: Request, lists: Lists, k: int, shown: np.ndarray | None, trace: Trace | None) -> Lists:
        width = lists.items.shape[1] if self.config.rerank.k is None else max(self.config.rerank.k, k)
        lists = Lists(lists.items[:, :width], lists.scores[:, :width])
        for name, rule in zip(self.rule_names, self.rules, strict=True):
            if type(rule).apply is Rule.apply:  # only a filter
                continue
            before = lists
            lists = self._attempt(
                request,
                f"rule '{name}'",
                before,
                lambda rule=rule, lists=before: _checked(rule.apply(request, lists, k), request, shown),
                refuse=_on_error(rule) == "refuse",
            )
            if trace is not None and lists is not before:
                trace.ruled(name, before, lists, k)
        return lists

    def _attempt(
        self, request: Request, stage: str, otherwise: T, program: Callable[[], T], *, refuse: bool = False
    ) -> T:
        """Return the stage's result; if it fails, `otherwise` and a warning, or with `strict` or `refuse` raise AnyrecError."""
        try:
            return program()
        except Exception as error:
            if self.config.strict or refuse:
                raise _refusal(stage, error) from error
            request.warnings.append(f"The {stage} was skipped, since it failed ({type(error).__name__}: {error}).")
            return otherwise


def _on_error(rule: Rule) -> str | None:
    return getattr(rule.params, "on_error", None)  # a plugin's own options may lack it


def _refusal(stage: str, error: Exception) -> AnyrecError:
    """The error of a request that is refused because a stage failed; it names the stage."""
    if isinstance(error, InputError):
        faults = [replace(fault, where=f"{stage}: {fault.where}") for fault in error.faults]
        return type(error)(faults, error.counts)
    if isinstance(error, AnyrecError):
        return type(error)(f"the pipeline's {stage}: {error}") if type(error) is AnyrecError else error
    return AnyrecError(f"the pipeline's {stage} failed ({type(error).__name__}: {error}); nothing is listed.")


def _checked_mask(mask: np.ndarray, request: Request) -> np.ndarray:
    """The filter's mask. Raises ValueError if it is no bool array of (items,) or (users, items)."""
    mask, items, users = np.asarray(mask), len(request.items), len(request.rows)
    if mask.dtype != bool or mask.shape not in ((items,), (users, items)):
        raise ValueError(f"its mask is {mask.dtype} {mask.shape}; expected bool ({items},) or ({users}, {items})")
    return mask


def as_table(request: Request, lists: Lists) -> pa.Table:
    """user_id, item_id, score, rank: users in their order, each list from its first."""
    rows, places = np.nonzero(lists.items >= 0)
    return pa.table(
        {
            "user_id": request.ids.take(pa.array(rows)),
            "item_id": request.model.dataset.ids("item").take(pa.array(lists.items[rows, places])),
            "score": pa.array(lists.scores[rows, places]),
            "rank": pa.array(places + 1),
        }
    )


def no_table(model: FittedModel) -> pa.Table:
    ids = {f"{side}_id": model.dataset.ids(side).slice(0, 0) for side in ("user", "item")}
    return pa.table({**ids, "score": pa.array([], pa.float32()), "rank": pa.array([], pa.int64())})


def _names(components: Sequence[Any]) -> list[str]:
    """Each by its type, and those after the first of a type numbered."""
    types = [one.type if one is not None else "" for one in components]
    return [kind if kind not in types[:n] else f"{kind} {types[: n + 1].count(kind)}" for n, kind in enumerate(types)]


def _checked(lists: Lists, request: Request, shown: np.ndarray | None) -> Lists:
    """The lists without gaps, and without what may not be shown."""
    if lists.items.shape != lists.scores.shape or len(lists.items) != len(request.rows):
        raise ValueError(f"items are {lists.items.shape} and scores {lists.scores.shape} for {len(request.rows)} users")
    if lists.items.max(initial=-1) >= len(request.items):
        raise ValueError(f"an item row is {lists.items.max()}, and there are {len(request.items)} items")
    return keep(lists, is_open(lists.items, shown), lists.items.shape[1])


def _lacking(items: np.ndarray, shown: np.ndarray | None, k: int, num_items: int) -> np.ndarray:
    """(users,) bool: who has fewer than k candidates, though there are more that may be shown."""
    there = num_items if shown is None else shown.sum(-1)
    return (items >= 0).sum(1) < np.minimum(there, k)


def _own_best(request: Request, k: int, shown: np.ndarray | None, users: np.ndarray | None = None) -> Lists:
    """The model's k best of what may be shown, of all items scored. users: (users,) bool, those who get a list; by default all."""
    model = request.model
    wanted = np.arange(len(request.rows)) if users is None else np.flatnonzero(users)
    if shown is not None and shown.ndim == 2:
        shown = shown[wanted]
    represented = request.represented[torch.from_numpy(wanted).to(request.represented.device)]
    found = rank_rows(model.scorer, represented, model.representations("item"), k, None, shown)
    return lists_of_ranks(wanted[found[0]], *found[1:], len(request.rows))


def _fill_up(merged: Merged, more: Lists, width: int, num_items: int) -> Merged:
    """The merged candidates, and after them those of `more` that they lack."""
    first = Lists(merged.items, np.zeros(merged.items.shape, np.float32))
    wider = merge([first, more], max(width, first.items.shape[1] + more.items.shape[1]), num_items)
    place = wider.places[0]
    there, at = place >= 0, np.maximum(place, 0)
    if not merged.items.shape[1]:
        empty = np.full((len(merged.places), *place.shape), -1, np.int32)
        return Merged(wider.items, empty, np.zeros(empty.shape, np.float32))
    places = np.stack([np.where(there, np.take_along_axis(one, at, 1), -1) for one in merged.places])
    scores = np.stack([np.where(there, np.take_along_axis(one, at, 1), 0) for one in merged.scores])
    return Merged(wider.items, places, scores)


def _in_model_order(request: Request, merged: Merged) -> Candidates:
    """The candidates by the model's own score, equal ones by their best place in a source."""
    with torch.inference_mode():
        scores = np.where(merged.items >= 0, model_scores(request, merged.items), -np.inf).astype(np.float32)
    order = descending(scores)
    lists = Lists(np.take_along_axis(merged.items, order, 1), np.take_along_axis(scores, order, 1))
    places, brought = (np.take_along_axis(part, order[None], 2) for part in (merged.places, merged.scores))
    return Candidates(lists, places, brought)


def model_scores(request: Request, items: np.ndarray) -> np.ndarray:
    """(users, n) float32 the model's score of each of `items: (users, n)`; of any item where there is none.

    Where vectors make the score and the lists are a good part of the catalogue, one matrix product of all with all is less work
    than gathering a vector for each entry.
    """
    model, users = request.model, request.represented
    scorer, known = model.scorer, model.representations("item")
    wanted = torch.from_numpy(np.maximum(items, 0)).to(users.device)
    if not items.shape[1]:
        return np.empty(items.shape, np.float32)
    if model.factorised and 8 * items.shape[1] >= len(known):
        return score_blocks(scorer, users, known).gather(1, wanted).float().cpu().numpy()
    size = max(1, CELLS_AT_A_TIME // (items.shape[1] * int(np.prod(known.shape[1:]))))
    parts = zip(users.split(size), wanted.split(size), strict=True)
    return torch.cat([scorer.score(u, known[i]) for u, i in parts]).float().cpu().numpy()
