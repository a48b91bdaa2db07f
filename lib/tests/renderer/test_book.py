"""The fallback renderer, on a little book of two texts and one notebook."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from token_geometry.renderer import book, cells

ASSETS = Path(__file__).parents[3] / "book" / "assets"
CHART = '<div class="vega-chart" id="v1"></div><script>draw("#v1", {"a_b": "*x* $y$ <b>"});</script>'

CONFIG = """
project:
  type: book
  output-dir: _book
  pre-render: book/prepare.py
  resources: [book/assets/*.js]
profile: {default: small}
filters: [book/assets/typography.lua]
bibliography: refs.bib
book:
  title: A little book
  subtitle: With a notebook
  author: [Ada Example]
  date: 2020-02-02
  chapters:
    - index.qmd
    - text/methods.qmd
    - part: Results
      chapters: [notebooks/results.ipynb]
    - references.qmd
format:
  html:
    code-fold: true
    include-in-header:
      - text: |
          <script src="/book/assets/draw.js"></script>
"""

PREPARE = """
import os, pathlib
text = "function draw(id, spec) {}  // " + os.environ["QUARTO_PROFILE"]
pathlib.Path("book/assets/draw.js").write_text(text)
"""

INDEX = """# Preface {.unnumbered}

See @sec-methods, @sec-methods-measure and @fig-dots with @tbl-words.

```{python}
#| echo: false
#| output: asis
print("Printed by a *cell*.")
```

[The notebook](notebooks/results.ipynb#sec-results)
"""

METHODS = r"""# Methods of *measuring* {#sec-methods}

## First {#sec-methods-first}

## Measure {#sec-methods-measure}

A distance [@doe2020; @roe2021] of $x$, as by @doe2020:

$$
d = \sqrt{x^2}
$$ {#eq-distance}
and
$$ y $$ {#eq-second}

![Two squares, after @doe2020.](squares.svg){#fig-squares fig-alt="Two grey squares"}

| word | count |
|------|------:|
| the  |     3 |

: Words and $n$. {#tbl-words}

::: {.callout-note}
## Mind
@fig-squares, [-@fig-squares], [@fig-squares; @fig-dots], [Eq. @eq-distance], @eq-second.
:::

It took 5 s, 20 MB ± 3 and 2 × 10⁻⁷ nats, a change of -1.5 at scale 64, k = 2; page 5 says so.

| what is counted here, which is long | how many of it there were, in words that are long |
|:--|:--|
| a | b |

{{< include _more.md >}}
"""


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def project(root: Path) -> Path:
    """Write the sources of the little book."""
    shutil.copytree(ASSETS, root / "book" / "assets", ignore=shutil.ignore_patterns("*.js"))
    code = nbformat.v4.new_code_cell
    cells = [
        nbformat.v4.new_markdown_cell("# Results {#sec-results}\n\nBy @sec-methods."),
        code("word = 'parameter'", metadata={"tags": ["parameters"]}),
        code(
            "#| label: fig-dots\n#| fig-cap: Dots of *@doe2020*, see @eq-distance.\n"
            '#| fig-alt: "Dots on a \\"line\\""\n#| code-summary: The chart\n'
            "from IPython.display import Markdown\n"
            f"Markdown('''{CHART}''')"
        ),
        code(
            "#| label: tbl-dots\n#| tbl-cap: Dots.\n#| echo: false\nMarkdown('| a | b |\\n|---|---|\\n| 1 | 2 |')"
        ),
        code(
            "import os, sys\nprint(word, os.environ['QUARTO_PROFILE'], os.getcwd())\n"
            "print('noise', file=sys.stderr)"
        ),
        code("#| eval: false\nraise RuntimeError('not evaluated')"),
        code("#| include: false\nprint('unseen')"),
        code(
            "#| echo: false\nfrom IPython.display import SVG\n"
            'SVG(\'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>\')'
        ),
    ]
    write(
        root,
        **{
            "_quarto.yml": CONFIG,
            "_quarto-small.yml": "book: {description: 'A \\*small\\* run of \\<b\\>.'}\n",
            "book/prepare.py": PREPARE,
            "index.qmd": INDEX,
            "text/methods.qmd": METHODS,
            "text/_more.md": "Included text.\n",
            "text/squares.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
            "references.qmd": "---\ntitle: References\nnumber-sections: false\n---\n\n::: {#refs}\n:::\n",
            "refs.bib": "@book{doe2020, author={Doe, Jane}, title={On squares}, year={2020}}\n"
            "@book{roe2021, author={Roe, Rik}, title={On dots}, year={2021}}\n"
            "@book{moe2022, author={Moe, Mia}, title={On nothing}, year={2022}}\n",
        },
    )
    (root / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / "results.ipynb")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The little book, rendered once by the command."""
    root = project(tmp_path_factory.mktemp("project"))
    lib = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": lib, "QUARTO_PROFILE": ""}
    command = [sys.executable, "-m", "token_geometry.renderer.book"]
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(root / "_book" / "index.html")
    return root / "_book"


def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(), "html.parser")


def words(elem) -> str:
    return " ".join(elem.get_text().replace("\u00a0", " ").split())


@pytest.fixture
def methods(built):
    return soup(built / "text" / "methods.html").main


@pytest.fixture
def results(built):
    return soup(built / "notebooks" / "results.html").main


def test_chapters_sections_and_floats_are_numbered_by_chapter(methods, results):
    assert words(methods.h1) == "1 Methods of measuring"
    assert [words(h) for h in methods.find_all("h2")] == ["1.1 First", "1.2 Measure"]
    assert words(results.h1) == "2 Results"
    captions = [words(caption) for caption in methods.find_all("figcaption")]
    assert captions[0] == "Figure 1.1: Two squares, after Doe (2020)."
    assert captions[1].startswith("Table 1.1: Words and")
    assert [words(n) for n in methods.select(".equation > .number")] == ["(1.1)", "(1.2)"]
    assert "{#" not in words(methods)


def test_references_read_as_in_quarto_and_lead_to_other_pages(built, methods):
    links = [(words(a), a["href"]) for a in soup(built / "index.html").main.select("a.xref")]
    assert links == [
        ("Chapter 1", "text/methods.html#sec-methods"),
        ("Section 1.2", "text/methods.html#sec-methods-measure"),
        ("Figure 2.1", "notebooks/results.html#fig-dots"),
        ("Table 1.1", "text/methods.html#tbl-words"),
    ]
    note = methods.select_one(".callout-note")
    assert words(note) == "Mind Figure 1.1, 1.1, Figure 1.1, Figure 2.1, Eq. 1.1, Equation 1.2."


def test_citations_of_all_chapters_lead_to_one_list(built, methods):
    cites = [a["href"] for a in methods.select(".citation a")]
    assert set(cites) == {"../references.html#ref-doe2020", "../references.html#ref-roe2021"}
    assert "On Squares" in methods.select_one(".citation a[href$=doe2020]")["data-entry"].title()
    entries = [entry["id"] for entry in soup(built / "references.html").select(".csl-entry")]
    assert sorted(entries) == ["ref-doe2020", "ref-roe2021"]


def test_mathematics_is_mathml(methods):
    assert methods.select("span#eq-distance > math msqrt")
    assert methods.select("figcaption math")


def test_numbers_stay_with_their_units_and_columns_are_as_wide_as_their_contents(methods):
    text = methods.get_text()
    for kept in (
        "5\u00a0s",
        "20\u00a0MB",
        "±\u00a03",
        "2\u00a0×\u00a010⁻⁷\u00a0nats",
        "of −1.5 at scale\u00a064",
        "k\u00a0=\u00a02",
        "page 5 says",
    ):
        assert kept in text
    assert not methods.select("col[style], table[style]")


def test_code_is_folded_and_cell_options_are_kept(built, results):
    summaries = [words(fold.summary) for fold in results.select("details.code-fold")]
    assert summaries == ["Code", "The chart", "Code", "Code"]
    assert not results.select("details[open]")
    text = words(results)
    assert f"parameter small {built.parent}" in text
    assert "unseen" not in text
    assert not any("noise" in words(out) for out in results.select(".cell-output"))
    assert "raise RuntimeError" in text
    preface = soup(built / "index.html").main
    assert "Printed by a cell." in words(preface) and preface.em and not preface.pre


def test_figures_have_alternative_texts_and_charts_their_script(methods, results):
    assert methods.select_one("figure#fig-squares img")["alt"] == "Two grey squares"
    chart = results.select_one("figure#fig-dots [role=img]")
    assert chart["aria-label"] == 'Dots on a "line"'
    assert chart.select_one("div.vega-chart#v1")
    assert chart.script.string == CHART.split("<script>")[1].removesuffix("</script>")
    caption = words(results.select_one("#fig-dots figcaption"))
    assert caption == "Figure 2.1: Dots of Doe (2020), see Equation 1.1."
    assert words(results.select_one("#tbl-dots figcaption")) == "Table 2.1: Dots."


def test_paths_are_relative_to_the_page(built):
    page = soup(built / "notebooks" / "results.html")
    assert page.head.select_one("script[src]")["src"] == "../book/assets/draw.js"
    assert page.head.link["href"] == "../book/assets/page.css"
    assert (built / "book/assets/draw.js").read_text().endswith("small")
    image = page.select_one("main img[src]")["src"]
    assert (built / "notebooks" / image).is_file()
    assert (built / "text" / "squares.svg").is_file()


def test_every_page_has_navigation(built):
    page = soup(built / "text" / "methods.html")
    assert page.html["lang"] == "en"
    assert words(page.select_one("[aria-current=page]")) == "1 Methods of measuring"
    assert [words(part) for part in page.select(".chapters .part")] == ["Results"]
    assert [a["href"] for a in page.select(".turn a")] == ["../index.html", "../notebooks/results.html"]
    ends = [soup(built / name).select(".turn a") for name in ("index.html", "references.html")]
    assert [[a["rel"] for a in links] for links in ends] == [[["next"]], [["prev"]]]
    assert [words(a) for a in page.select(".toc a")] == ["1.1 First", "1.2 Measure"]
    cover = soup(built / "index.html").select_one("header.cover")
    assert words(cover) == "A little book With a notebook Ada Example 2020-02-02 A *small* run of <b>."


def test_the_page_check_passes_and_finds_planted_faults(built, tmp_path, capsys, monkeypatch):
    import check_pages

    monkeypatch.setattr(check_pages.browser, "find", lambda: None)
    config = str(built.parent / "_quarto.yml")
    assert check_pages.main([str(built), "--expect-chapters", config]) == 2
    copy = Path(shutil.copytree(built, tmp_path / "_book"))
    page = copy / "text" / "methods.html"
    planted = '<p>?@fig-gone</p><a href="gone.html">x</a><script src="https://example.org/x.js"></script>'
    planted += '<figure id="tbl-drawn"><svg></svg><figcaption>A.</figcaption></figure>'
    planted += '<figure id="tbl-said"><p>None.</p><figcaption>A.</figcaption></figure>'
    alike = "Chart. What stands at the end of every description alike."
    planted += 3 * f'<figure><img alt="A"><div aria-label="{alike}"></div><figcaption>A.</figcaption></figure>'
    page.write_text(page.read_text() + planted)
    (copy / "references.html").unlink()
    assert check_pages.main([str(copy), "--expect-chapters", config]) == 1
    out = capsys.readouterr().out
    faults = ["references.html: missing", "?@fig-gone", "dead link: gone.html", "needs the network"]
    for fault in [*faults, "tbl-drawn: no alternative text", "3 figures are described as 'What stands"]:
        assert fault in out
    assert "tbl-said" not in out


# --- refusals ---------------------------------------------------------------------------


def small(root: Path, text: str, config: str = "") -> Path:
    """A book of one page that executes nothing, with an older rendering beside it."""
    shutil.copytree(ASSETS, root / "book" / "assets", ignore=shutil.ignore_patterns("*.js"))
    files = {"_quarto.yml": f"project: {{type: book}}\nbook: {{chapters: [index.qmd]}}\n{config}"}
    write(root, **files, **{"index.qmd": f"# Title\n\n{text}\n", "_book/index.html": "before"})
    return root


REFUSED = {
    "shortcode": ("{{< video x.mp4 >}}", "shortcode"),
    "include": ("{{< include gone.md >}}", "no such file"),
    "reference": ("See @fig-gone.", "@fig-gone"),
    "citation": ("See @doe2020.", "@doe2020"),
    "label": ("## A {#sec-a}\n\n## B {#sec-a}", "sec-a"),
    "title": ("# Second title", "one title"),
    "image": ("![A](gone.png)", "gone.png"),
    "network": ("![A](https://example.org/a.png)", "https://example.org/a.png"),
    "language": ("```{r}\n1\n```", "```{r}"),
    "inline code": ("So `{python} 1`.", "inline code"),
    "div": ("::: {.panel-tabset}\nA\n:::", "panel-tabset"),
    "fence": ("A\n\n:::\n", ":::"),
    "mathematics": (r"$\nosuchmacro{x}$", "nosuchmacro"),
    "latex": (r"\ref{x}", "LaTeX"),
    "equation": ("Not displayed {#eq-x}", "{#eq-x}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_content_that_cannot_be_rendered_is_refused(name, tmp_path):
    text, message = REFUSED[name]
    with pytest.raises(book.BookError) as caught:
        book.render(small(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "_book" / "index.html").read_text() == "before"


@pytest.mark.parametrize(
    "config, message",
    [
        ("format: {html: {include-in-header: {text: <script src='/gone.js'>}}}", "gone.js"),
        ("format: {html: {include-in-header: [head.html]}}", "'head.html'"),
        ("execute: {echo: false}\nbibliography: gone.bib", "gone.bib"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(config, message, tmp_path):
    with pytest.raises(book.BookError, match=message):
        book.render(small(tmp_path, "Text.", config))


LACKING = """
metadata-files: [_pages.yml]
filters: [book/assets/lacking.lua]
"""


def test_what_a_script_before_rendering_says_is_lacking_is_left_out_and_not_counted(tmp_path):
    text = (
        'See @sec-b and <span class="if-truth">@sec-a, </span>too.\n\n::: {.if-truth}\nGone.\n:::\n\n'
        "::: {.if-truth .if-genres}\nHere.\n:::\n"
    )
    root = small(tmp_path, text, LACKING)
    script = "open('_pages.yml', 'w').write('book: {chapters: [index.qmd, b.qmd]}\\nlacks: truth controls\\n')"
    second = "# B {#sec-b}\n\n## Gone {#sec-gone .if-controls}\n\nGone.\n\n### Gone, too\n\n"
    second += "## Stays {#sec-stays .if-genres}"
    write(root, **{"pre.py": script, "b.qmd": second, "_quarto-ci.yml": "project: {pre-render: pre.py}"})
    book.render(root, profile="ci")
    first, second = (soup(root / "_book" / f"{name}.html") for name in ("index", "b"))
    assert words(first.main).startswith("1 Title See Chapter 2 and too. Here.")
    assert [words(heading) for heading in second.main.select("h1, h2, h3")] == ["2 B", "2.1 Stays"]
    assert "Gone" not in first.get_text() + second.get_text()


@pytest.mark.slow
def test_a_failing_cell_stops_the_book_and_leaves_the_old_one(tmp_path, capsys, monkeypatch):
    root = small(tmp_path, "```{python}\n1 / 0\n```")
    monkeypatch.chdir(root)
    assert book.main([]) == 1
    assert capsys.readouterr().err == "error: index.qmd, code cell 1: ZeroDivisionError: division by zero\n"
    assert (root / "_book" / "index.html").read_text() == "before"
    assert sorted(p.name for p in root.iterdir()) == ["_book", "_quarto.yml", "book", "index.qmd"]


@pytest.mark.slow
def test_a_cell_that_fails_while_others_run_is_one_line(tmp_path):
    root = small(tmp_path, "```{python}\nimport time; time.sleep(5); 1 / 0\n```")
    write(
        root,
        **{
            "_quarto.yml": "project: {type: book}\nbook: {chapters: [index.qmd, other.qmd]}",
            "other.qmd": "# Other\n\n```{python}\nimport time; time.sleep(1000)\n```",
        },
    )
    command = [sys.executable, "-m", "token_geometry.renderer.book"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == "error: index.qmd, code cell 1: ZeroDivisionError: division by zero\n"


@pytest.mark.slow
def test_a_book_that_a_killed_process_had_taken_away_is_put_back(tmp_path):
    """It was killed between taking the old book away and putting the new one into its place."""
    root = small(tmp_path, "```{python}\n1 / 0\n```")
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = root / f"._book-{dead.pid}-x"
    left.mkdir()
    (root / "_book").rename(left / "before")
    with pytest.raises(book.BookError, match="ZeroDivisionError"):
        book.render(root)
    assert (root / "_book" / "index.html").read_text() == "before" and not left.exists()


def test_a_failing_pre_render_gives_its_exit_code(tmp_path, capsys, monkeypatch):
    root = small(tmp_path, "Text.")
    write(root, **{"_quarto-bad.yml": "project: {pre-render: stop.py}", "stop.py": "raise SystemExit(7)"})
    monkeypatch.chdir(root)
    assert book.main(["--profile", "bad"]) == 7
    assert "stop.py ended with exit code 7" in capsys.readouterr().err


def test_an_unknown_type_of_output_is_refused():
    output = nbformat.v4.new_output(
        "display_data", {"application/vnd.vegalite.v5+json": {}, "text/plain": "Chart"}
    )
    with pytest.raises(book.BookError, match="cell 2: output of type application/vnd.vegalite"):
        cells.output_markdown(output, "a.ipynb, code cell 2", asis=False, save=None)
