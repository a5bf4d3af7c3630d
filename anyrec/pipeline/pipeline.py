"""One request through all stages: filter, retrieve candidates, rank them, apply rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from anyrec.core.config import TWO_TOWER, Component, PipelineConfig
from anyrec.core.errors import AnyrecError, ConfigError, Fault, InputError
from anyrec.core.registry import Registry
from anyrec.core.time_limit import OutOfTime, check_time
from anyrec.core.types import JsonObject
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.model.request_reader import Users
from anyrec.model.result_tables import with_index
from anyrec.pipeline.answer import Answer, Clock, as_table, drawn_items, empty_table
from anyrec.pipeline.candidate_lists import (
    Candidates,
    best_of,
    checked,
    checked_mask,
    empty_lists,
    is_listable,
    keep,
    listable_items,
    merge,
)
from anyrec.pipeline.contracts import Lists, Request, Rule, Source
from anyrec.pipeline.model_order import fill_up, in_model_order, is_short, model_best
from anyrec.pipeline.ranking.ranker import Ranker
from anyrec.pipeline.requests import make_requests
from anyrec.pipeline.trace import Trace

SOURCES, RULES = "/pipeline/retrieve/sources", "/pipeline/rerank/rules"
T = TypeVar("T")


class Pipeline:
    """The stages that `pipeline` in the config names, with what they learned. It keeps no state of a request.

    Args:
        config: The `pipeline` section of the config.
        registry: The known components.

    Attributes:
        sources: The sources, in the order of the config.
        rules: The rules, in the order of the config.
        ranker: The trained ranker; None without one.
        measured: NDCG of the model's order (`model`) and of the ranker (`ranker`), and the number of validation users.
        source_names: A distinct name of each source.
        rule_names: A distinct name of each rule.

    Raises:
        ConfigError: With every unknown name and invalid option.
    """

    def __init__(self, config: PipelineConfig, registry: Registry):
        self.config = config
        faults: list[Fault] = []
        sources = _components(registry, "source", config.retrieve.sources, SOURCES, faults)
        rules = _components(registry, "rule", config.rerank.rules, RULES, faults)
        if config.rank is not None:
            try:
                registry.params("interaction", config.rank.type, config.rank.options(), "/pipeline/rank")
            except ConfigError as error:
                faults.extend(error.faults)
        faults += [
            Fault(f"{RULES}/{n}/on_error", "a filter that fails cannot be skipped.", "Remove this option.")
            for n, rule in rules.items()
            if not reorders(rule) and rule.on_error == "skip"
        ]
        if faults:
            raise ConfigError(faults)
        self.sources: list[Source] = list(sources.values())
        self.rules: list[Rule] = list(rules.values())
        self.ranker: Ranker | None = None
        self.measured: dict[str, float] = {}
        self.source_names = _names(self.sources)
        self.rule_names = _names(self.rules)

    def with_filter(self, rule: Component, registry: Registry) -> Pipeline:
        """Return this pipeline, with what its stages learned, and a further rule before its own.

        Args:
            rule: The rule.
            registry: The known components.

        Raises:
            ConfigError: With every invalid option of the rule.
        """
        rerank = self.config.rerank.model_copy(update={"rules": [rule, *self.config.rerank.rules]})
        wider = Pipeline(self.config.model_copy(update={"rerank": rerank}), registry)
        wider.sources, wider.rules[1:], wider.ranker = self.sources, self.rules, self.ranker
        wider.measured = self.measured
        return wider

    @property
    def steady(self) -> int:
        """How many first items of a list do not depend on its length, as long as it is no longer than this."""
        config, rules = self.config, [rule for rule in self.rules if reorders(rule)]
        most = config.retrieve.k
        whole = any(one.is_complete and (one.params.k or most) >= most for one in self.sources)
        decided = [rule.k_decides() for rule in rules]
        if not whole or "start" in decided or "end" in decided[:-1]:
            return 0  # sources that end early are completed for the length of the list
        widths = [most]
        if rules and self.ranker is not None and config.rank is not None:
            widths.append(config.rank.k)
        if rules and config.rerank.k is not None:
            widths.append(config.rerank.k)
        return min(widths)

    def with_rules(self, rules: Sequence[Rule]) -> Pipeline:
        """Return this pipeline, with what its stages learned, and rules instead of its own."""
        other = copy(self)
        other.rules, other.rule_names = list(rules), _names(rules)
        return other

    def check(self, model: ModelData) -> None:
        """Check the options of all components against the data.

        Raises:
            ConfigError: With the faults of all components.
        """
        faults = []
        for folder, components in ((SOURCES, self.sources), (RULES, self.rules)):
            for n, component in enumerate(components):
                try:
                    component.check(model)
                except ConfigError as error:
                    faults += [replace(fault, where=f"{folder}/{n}{fault.where}") for fault in error.faults]
        if self.config.rank is not None and model.config.model.type != TWO_TOWER:
            what = f"a ranker reads feature vectors, and '{model.config.model.type}' has none."
            faults.append(Fault("/pipeline/rank", what, "Remove the ranker, or train a two_tower."))
        if faults:
            raise ConfigError(list(dict.fromkeys(faults)))

    def notes(self, model: ModelData) -> list[str]:
        """Return the notes of the rules, each with its rule."""
        rules = zip(self.rule_names, self.rules, strict=True)
        return [f"The rule '{name}': {note}" for name, rule in rules for note in rule.notes(model)]

    def answer(
        self,
        model: FittedModel,
        users: Users = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: np.ndarray | None = None,
        context: JsonObject | None = None,
        now: int | None = None,
        trace: bool = False,
    ) -> Answer:
        """Return the lists of some users.

        Args:
            model: The model that the pipeline belongs to.
            users: Users as `Recommender.recommend` takes them; None for all known users.
            k: Items for each user.
            exclude_seen: Exclude the items that each user has interacted with.
            candidates: (items,) bool, the only items that may be listed; None for all.
            context: Values of the moment by name.
            now: Time of the request in microseconds since 1970; by default the current time.
            trace: Record what each stage did.

        Raises:
            AnyrecError: A filter failed, or another stage that may not be skipped.
        """
        clock, tables, warnings = Clock(), [], []
        drawn: list[pa.Table] = []
        recorder = Trace(self.source_names) if trace else None
        blocks = self.blocks(
            model,
            users,
            k,
            clock,
            exclude_seen=exclude_seen,
            candidates=candidates,
            context=context,
            now=now,
            trace=recorder,
        )
        for request, lists in blocks:
            tables.append(as_table(request, lists))
            drawn += drawn_items(request, lists)
            warnings += request.warnings
        index = self.index(model)
        return Answer(
            with_index(pa.concat_tables(tables) if tables else empty_table(model), index),
            clock.milliseconds(),
            list(dict.fromkeys(warnings)),
            None if recorder is None else recorder.table(model),
            index,
            pa.concat_tables(drawn) if drawn else None,
        )

    def index(self, model: FittedModel) -> JsonObject | None:
        """Return the type and options of the index that a source searches for the model; None if none does."""
        return next((found for source in self.sources if (found := source.index(model)) is not None), None)

    def blocks(
        self,
        model: FittedModel,
        users: Users,
        k: int,
        clock: Clock,
        *,
        exclude_seen: bool = True,
        candidates: np.ndarray | None = None,
        context: JsonObject | None = None,
        now: int | None = None,
        trace: Trace | None = None,
        before: int = 0,
    ) -> Iterator[tuple[Request, Lists]]:
        """Yield each block of users with its lists.

        Arguments as of `answer` and `make_requests`; clock, trace: what records the stages.
        """
        ranked, moment = self.ranker is not None, {"context": context, "now": now}
        requests = make_requests(model, users, exclude_seen=exclude_seen, tokens=ranked, before=before, **moment)
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
        """Return the k best items of each user of one request.

        Args:
            request: The request; its `allowed` and `warnings` are set.
            k: Items for each user.
            candidates: (items,) bool, the only items that may be listed; None for all.
            clock: Records the time of each stage.
            trace: Records the events of the items.
        """
        clock = clock or Clock()
        with clock.of("filter"):
            self._filter(request, candidates, trace, k)
            listable = listable_items(request, request.allowed)
        with clock.of("retrieve"):
            found = self._retrieve(request, k, listable, trace)
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
            lists = self._rerank(request, lists, k, listable, trace)
        lists = Lists(lists.items[:, :k], lists.scores[:, :k])
        if trace is not None:
            trace.finish(request, lists)
        return lists

    def rerank(self, request: Request, lists: Lists, k: int) -> Lists:
        """Return the first k items of each list after the filters and rules, without the stages before them.

        Args:
            request: The request; its `allowed` and `warnings` are set.
            lists: (users, length) items, best first.
            k: Items for each user.

        Raises:
            AnyrecError: A filter failed, or a rule that may not be skipped.
        """
        self._filter(request, None, None, k)
        listable = listable_items(request, request.allowed)
        lists = keep(lists, is_listable(lists.items, listable), lists.items.shape[1])
        lists = self._rerank(request, lists, k, listable, None)
        return Lists(lists.items[:, :k], lists.scores[:, :k])

    def candidates(self, request: Request, rankable: np.ndarray | None) -> Candidates:
        """Return the first stage's candidates without the rules' filters. rankable: (items,) bool, or None."""
        request.allowed = rankable
        return self._retrieve(request, 1, listable_items(request, rankable), None)

    def _filter(self, request: Request, candidates: np.ndarray | None, trace: Trace | None, k: int) -> None:
        """Set `request.allowed` to the items that `candidates` and all filters allow.

        Raises:
            AnyrecError: A filter failed. A filter is never skipped, because that would list the items it must exclude.
        """
        masks = [] if candidates is None else [("candidates", candidates)]
        for name, rule in zip(self.rule_names, self.rules, strict=True):
            mask = self._attempt(request, f"filter '{name}'", None, partial(checked_mask, rule, request), refuse=True)
            if mask is not None:
                masks.append((name, mask))
        for _, mask in masks:
            request.allowed = mask if request.allowed is None else request.allowed & mask
        if trace is not None:
            trace.begin(request, masks, model_best(request, k, None))

    def _retrieve(self, request: Request, k: int, listable: np.ndarray | None, trace: Trace | None) -> Candidates:
        """Merge the sources' lists, complete those with fewer than k items, and sort by the model's score."""
        width, users = max(self.config.retrieve.k, k), len(request.rows)
        retrieved = []
        for name, source in zip(self.source_names, self.sources, strict=True):
            count = min(source.params.k or width, width)

            def retrieve(source: Source = source, count: int = count) -> Lists:
                return checked(source.retrieve(request, count, request.allowed), request, listable)

            retrieved.append(self._attempt(request, f"source '{name}'", empty_lists(users), retrieve))
        merged = merge(retrieved, width, len(request.items))
        short = is_short(merged.items, listable, k, len(request.items))
        if short.any():
            merged = fill_up(merged, model_best(request, k, listable, short), width, len(request.items))
        if len(retrieved) == 1 and self.sources[0].in_model_order(request) and not short.any():
            found = Candidates(Lists(merged.items, retrieved[0].scores[:, :width]), merged.places, merged.scores)
        else:
            found = in_model_order(request, merged)
        if trace is not None:
            trace.retrieved(found)
        return found

    def _rerank(
        self, request: Request, lists: Lists, k: int, listable: np.ndarray | None, trace: Trace | None
    ) -> Lists:
        """Apply the reordering rules one after another to the first `rerank.k` candidates."""
        width = lists.items.shape[1] if self.config.rerank.k is None else max(self.config.rerank.k, k)
        lists = Lists(lists.items[:, :width], lists.scores[:, :width])
        for name, rule in zip(self.rule_names, self.rules, strict=True):
            if not reorders(rule):
                continue
            before = lists

            def apply(rule: Rule = rule, lists: Lists = before) -> Lists:
                return checked(rule.apply(request, lists, k), request, listable)

            lists = self._attempt(request, f"rule '{name}'", before, apply, refuse=rule.on_error == "refuse")
            if trace is not None and lists is not before:
                trace.ruled(name, before, lists, k)
        return lists

    def _attempt(
        self, request: Request, stage: str, otherwise: T, program: Callable[[], T], *, refuse: bool = False
    ) -> T:
        """Return the result of `program`; if it fails, return `otherwise` and add a warning.

        Raises:
            AnyrecError: `program` failed, and `refuse` or the pipeline's `strict` is set.
        """
        check_time()
        try:
            return program()
        except OutOfTime:
            raise
        except Exception as error:
            if self.config.strict or refuse:
                raise _refusal(stage, error) from error
            request.warnings.append(f"The {stage} was skipped because it failed ({type(error).__name__}: {error}).")
            return otherwise


def _components(
    registry: Registry, kind: str, components: Sequence[Component], folder: str, faults: list[Fault]
) -> dict[int, Any]:
    """Return components by their number in the config; the faults of those that cannot be made are appended."""
    made = {}
    for n, component in enumerate(components):
        where = f"{folder}/{n}"
        try:
            params = registry.params(kind, component.type, component.options(), where)
            made[n] = registry.get(kind, component.type, where)(params)
        except ConfigError as error:
            faults.extend(error.faults)
    return made


def _names(components: Sequence[Source] | Sequence[Rule]) -> list[str]:
    """Return the type of each component; the second and later ones of a type are numbered."""
    types = [component.type for component in components]
    return [kind if kind not in types[:n] else f"{kind} {types[: n + 1].count(kind)}" for n, kind in enumerate(types)]


def reorders(rule: Rule) -> bool:
    """Return False for a rule that only filters."""
    return type(rule).apply is not Rule.apply


def _refusal(stage: str, error: Exception) -> AnyrecError:
    """Return the error of a request that is refused because a stage failed; its text names the stage."""
    if isinstance(error, InputError):
        faults = [replace(fault, where=f"{stage}: {fault.where}") for fault in error.faults]
        return type(error)(faults, error.counts)
    if isinstance(error, AnyrecError):
        return type(error)(f"the pipeline's {stage}: {error}") if type(error) is AnyrecError else error
    return AnyrecError(f"the pipeline's {stage} failed ({type(error).__name__}: {error}); nothing is listed.")
