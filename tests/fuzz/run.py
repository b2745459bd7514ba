"""Feeds one target under atheris, which follows the coverage: ``python run.py TARGET SECONDS FOLDER``.

``FOLDER`` takes the corpus, and the input that broke something, by which it ends with an error. A compiled
Penstock shows no coverage: run it on the sources.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["proxy"]):
    from fuzz.targets import TARGETS, seeds


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz until the time is over; a single input may take ten seconds and 500 MB."""
    corpus = Path(folder) / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=700", "-max_len=8192"]
    atheris.Setup([name, *limits, f"-artifact_prefix={folder}/{name}-", str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
