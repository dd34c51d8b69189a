from pathlib import Path

from t2.project.reference import reference


def test_the_configuration_page_is_made_from_the_schema() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"

    assert page.read_text("utf-8") == reference(), (
        "run python -m t2.project.reference > docs/configuration.md"
    )
