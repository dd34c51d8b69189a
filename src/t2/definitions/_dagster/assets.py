"""Assets, ops and checks, declared without what 2,000 of them do not need."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_checks_definition import AssetChecksDefinition
from dagster._core.definitions.definition_config_schema import convert_user_facing_definition_config_schema
from dagster._core.definitions.input import InputDefinition
from dagster._core.definitions.output import OutputDefinition
from dagster._record import replace
from dagster._utils.warnings import BetaWarning, PreviewWarning

Compute = Callable[[Any, Any], Iterator[Any]]


ANY_CONFIG = convert_user_facing_definition_config_schema(None)


class SharedOut(dg.Out):
    """An optional output of type Nothing whose definition is made once a name, not once an op."""

    def to_definition(self, annotation_type: Any, name: Any, *rest: Any, **more: Any) -> OutputDefinition:
        """Return the one definition with this name."""
        return _output(name)


@cache
def _output(name: str) -> OutputDefinition:
    return OutputDefinition(dg.Nothing, name, is_required=False)


@cache
def _input(name: str) -> Any:
    return InputDefinition(name, dg.Nothing)


def without_inputs(run: Callable[[dg.OpExecutionContext], Iterator[Any]]) -> Compute:
    """Return the compute function of an op that takes no values; `run` is given its OpExecutionContext.

    Without an annotation, Dagster gives it the context that fits, for ops with an asset and without.
    """

    def compute(context, inputs):  # type: ignore[no-untyped-def]
        yield from run(context.op_execution_context)

    return compute


class TableAssets(dg.AssetsDefinition):
    """An asset whose checks are made by its own op, and that needs no resources."""

    def with_resources(self, resource_defs: Any) -> dg.AssetsDefinition:
        """Return the asset itself: a repository would copy each, 2,000 times, to attach resources."""
        return self

    @property
    def check_specs(self) -> Iterable[dg.AssetCheckSpec]:
        """The checks as they are declared."""
        return self._check_specs_by_output_name.values()

    @cached_property
    def check_specs_by_output_name(self) -> Mapping[str, dg.AssetCheckSpec]:
        """The checks as none of them were blocking, which is where a job looks for what readers wait for.

        A failed blocking check fails the op itself, so what reads the table is skipped. Edges from each check
        to each reader would say no more and double the size of the job and its snapshot.
        """
        return {
            name: replace(spec, blocking=False) if spec.blocking else spec
            for name, spec in self._check_specs_by_output_name.items()
        }


class SourceChecks(AssetChecksDefinition):
    """The checks of a source; they need no resources either."""

    def with_resources(self, resource_defs: Any) -> dg.AssetChecksDefinition:
        """Return the checks themselves."""
        return self


OUT = SharedOut(dg.Nothing, is_required=False)


@contextmanager
def quiet_preview_warnings() -> Iterator[None]:
    """Silence the warnings that partitioned check specs are a preview: one a check is 12,000 of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreviewWarning)
        warnings.simplefilter("ignore", BetaWarning)
        yield


def assets_definition(
    *,
    name: str,
    compute: Compute,
    spec: dg.AssetSpec | None,
    checks: Sequence[dg.AssetCheckSpec],
    backfill_policy: dg.BackfillPolicy | None = None,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Make the asset and the checks of one op; without `spec`, the checks alone."""
    outputs = {f"check_{number}": check for number, check in enumerate(checks)}
    own = spec.key if spec else None
    upstreams = [dep.asset_key for dep in spec.deps] if spec else [checks[0].asset_key]
    inputs = {key.to_python_identifier(): key for key in upstreams}
    op = dg.OpDefinition(
        compute_fn=compute,
        name=name,
        ins={input_name: _input(input_name) for input_name in inputs},
        outs=dict.fromkeys([*(["result"] if spec else []), *outputs], OUT),
        config_schema=ANY_CONFIG,
        pool=pool,
    )
    kind = TableAssets if spec else SourceChecks
    return kind(
        keys_by_input_name=inputs,
        keys_by_output_name={"result": own} if own else {},
        node_def=op,
        can_subset=True,
        backfill_policy=backfill_policy,
        check_specs_by_output_name=outputs,
        specs=[spec] if spec else [],
    )
