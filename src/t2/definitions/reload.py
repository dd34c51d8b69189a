"""`python -m t2.definitions.reload`: have the running code location load its definitions again.

Prints one line that says what came of it. Exit code 1: what is new cannot be loaded, and what was loaded
before goes on; 2: the code location itself has an error now.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from t2.errors import T2Error


def main() -> int:
    """Parse the project first, so that a mistake in it takes nothing down, then reload."""
    parser = argparse.ArgumentParser(prog="python -m t2.definitions.reload", description=main.__doc__)
    parser.add_argument("--socket", required=True, help="socket of the code server")
    parser.add_argument("--project-dir", type=Path, help="dbt project that must be in order first")
    parser.add_argument("--profiles-dir", type=Path)
    parser.add_argument("--target")
    options = parser.parse_args()
    started = time.monotonic()
    tables = ""
    if options.project_dir:
        from t2.runtime.parsing import load_project

        try:
            project = load_project(
                options.project_dir, profiles_dir=options.profiles_dir, target=options.target
            )
        except T2Error as error:
            print(f"the project was edited and cannot be loaded; what was loaded before goes on\n{error}")
            return 1
        tables = f": {len(project.tables)} tables"
    from t2.definitions._dagster.code_servers import reload_code_server

    if broken := reload_code_server(options.socket):
        print(f"the code location cannot be loaded any more\n{broken}")
        return 2
    print(f"the project was edited; loaded again after {time.monotonic() - started:.1f} s{tables}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
