"""Loading code locations, in a code server and beside it."""

from __future__ import annotations

from typing import Any

import dagster as dg

# How long the definitions of a very large project may take to load again.
RELOAD_SECONDS = 600


def asset_metadata(workspace: Any, key: dg.AssetKey, name: str) -> Any:
    """Return a value of an asset's metadata as the code location declared it, None if it has none."""
    graph = workspace.asset_graph
    value = graph.get(key).metadata.get(name) if graph.has(key) else None
    return getattr(value, "value", value)


def reload_code_server(socket: str) -> str | None:
    """Have a code server load its code again and wait for that; return the error if it cannot."""
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import ListRepositoriesResponse
    from dagster._serdes import deserialize_value
    from dagster_shared.error import SerializableErrorInfo

    client = DagsterGrpcClient(socket=socket)
    client.reload_code(timeout=RELOAD_SECONDS)
    answer = deserialize_value(client.list_repositories(), (ListRepositoriesResponse, SerializableErrorInfo))
    return answer.to_string() if isinstance(answer, SerializableErrorInfo) else None


def load_code_location(module: str, attribute: str | None, working_directory: str, location: str) -> None:
    """Load a code location as its code server does; every later reconstruction uses what is loaded."""
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._grpc.server import LoadedRepositories

    origin = LoadableTargetOrigin(
        module_name=module, attribute=attribute, working_directory=working_directory
    )
    loaded = LoadedRepositories(origin, None, [], None, code_location_name=location)
    repositories = {
        pointer: loaded.definitions_by_name[name]
        for name, pointer in loaded.code_pointers_by_repo_name.items()
    }
    for repository in repositories.values():
        _ = repository.asset_graph
        repository.get_all_jobs()
    reconstruct = ReconstructableRepository.get_definition

    def get_definition(recon: ReconstructableRepository) -> dg.RepositoryDefinition:
        kept = repositories.get(recon.pointer)
        return kept if kept is not None else reconstruct(recon)

    ReconstructableRepository.get_definition = get_definition  # type: ignore[method-assign,assignment]
