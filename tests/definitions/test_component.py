from __future__ import annotations

import dagster as dg
import pytest
from dagster.components.core.package_entry import discover_entry_point_package_objects
from dagster.components.testing.utils import create_defs_folder_sandbox

from t2.project.model import Project

NAMES = ["t2.T2ProjectComponent", "t2.definitions.component.T2ProjectComponent"]


@pytest.mark.parametrize("name", NAMES)
def test_a_defs_yaml_with_the_component_loads_the_project(project: Project, name: str) -> None:
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "warehouse"
        folder.mkdir()
        text = f"type: {name}\nattributes: {{project: {project.root!r}, target: dev}}\n"
        (folder / "defs.yaml").write_text(text)
        with sandbox.build_all_defs() as defs:
            graph = defs.resolve_asset_graph()
            assert dg.AssetKey(["main", "orders_daily"]) in graph.materializable_asset_keys
            assert defs.executor is not None


def test_dagsters_tools_find_the_component_in_their_registry() -> None:
    found = {key.to_typename() for key in discover_entry_point_package_objects()}
    assert "t2.definitions.component.T2ProjectComponent" in found
