"""The colophon names what CITATION.cff names, and the version that runs."""

from token_geometry import __version__
from token_geometry.base import project
from token_geometry.chapters import markup, provenance


def test_the_colophon_says_authors_version_and_licence():
    text = markup.plain(provenance.colophon())
    assert "The token-geometry authors" in text and f"version {__version__}" in text and "MIT" in text


def test_an_address_stands_there_when_it_is_known(tmp_path, monkeypatch):
    for name in ("_quarto.yml", "data/models.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    cited = (project.root() / "CITATION.cff").read_text()
    (tmp_path / "CITATION.cff").write_text(cited + "repository-code: https://example.org/a\n")
    monkeypatch.chdir(tmp_path)
    assert provenance.colophon().data.endswith("MIT, <https://example.org/a>.")
