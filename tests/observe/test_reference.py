from pathlib import Path

from proxy.observe.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_reference_of_metrics_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == markdown(), "run: python -m proxy.observe.reference > docs/metrics.md"


def test_every_metric_of_the_reference_says_what_it_means() -> None:
    metrics, api, _ = markdown().partition("\n## What only the API says")
    assert api
    for part in metrics.split("\n## ")[1:]:
        name, _, rest = part.partition("\n\n")
        assert name.startswith("penstock_")
        assert len(rest.splitlines()[0]) > 30
