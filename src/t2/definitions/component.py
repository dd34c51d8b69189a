"""A dbt project as a Dagster component, for projects that Dagster's own tools scaffold.

In a `defs.yaml`:

    type: t2.T2ProjectComponent
    attributes:
      project: ../../dbt
"""

from dataclasses import dataclass

import dagster as dg

from t2.definitions.build import build_defs

__all__ = ["T2ProjectComponent"]


@dataclass
class T2ProjectComponent(dg.Component, dg.Resolvable):
    """Keep the tables of a dbt project up to date with T2.

    `project` is the dbt project's directory, relative to the defs.yaml; `profiles_dir` and `target` choose
    the dbt profile as dbt's options of the same names do.
    """

    project: str
    profiles_dir: str | None = None
    target: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the project's assets, checks, sensors and executor."""
        profiles_dir = context.path / self.profiles_dir if self.profiles_dir else None
        return build_defs(context.path / self.project, profiles_dir=profiles_dir, target=self.target)
