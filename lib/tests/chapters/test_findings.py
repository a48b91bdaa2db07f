"""Findings are recomputed from the file of a run with NumPy and SciPy, without the statistics of the library."""

import dataclasses
import re

import netCDF4
import numpy as np
import pytest
import xarray as xr
from scipy import stats
from test_chapters import results_of

from token_geometry.base import project
from token_geometry.chapters import findings
from token_geometry.chapters.results import RunResults
from token_geometry.runs import declaration

SHIPPED = project.root() / "data" / "published" / "families" / "observables.nc"
"""Observables of the run `families`, where they are shipped."""

BOOTSTRAP = 0.1  # by which the ends of two bootstrap intervals may differ
FEWEST = 8


class Recomputed:
    """Numbers of a run and of the published arrays, from their files."""

    def __init__(self, path):
        self.file = netCDF4.Dataset(path)
        self.models, self.n_tokens = [str(name) for name in self.file["model"][:]], int(self.file.n_tokens)
        self.scales = self.file["scale"][:].tolist()
        self.n_blocks = np.isfinite(self.read("relative_depth")).sum(1) - 1
        self.loss = self.read("loss")
        both = np.isfinite(self.loss[:, [0, -1]]).all((0, 1))
        self.dimension = self.read("intrinsic_dimension")
        self.scale = 64 if np.isfinite(self.dimension[..., self.scales.index(64)]).any() else self.scales[-1]
        self.change = self.summary(self.dimension[:, -1, both] - self.dimension[:, 0, both])
        self.others = [
            self.summary(np.diff(self.read(name)[:, [0, -1]][:, :, both], axis=1)[:, 0]) for name in ("ess", "tle")
        ]

    def read(self, name):
        """A variable, with the mean over the permutations in their place."""
        variable = self.file[name]
        values = np.ma.filled(np.ma.asarray(variable[:], dtype=float), np.nan)
        if "permutation" in variable.dimensions:
            axis = variable.dimensions.index("permutation")
            known = np.isfinite(values).sum(axis)
            values = np.where(known > 0, np.nansum(values, axis) / np.maximum(known, 1), np.nan)
        return values

    def summary(self, values):
        """Mean over layers a third to two thirds of the depth down, of shape (model, prompt, layer, ...)."""
        thirds = ((-(-n // 3), 2 * n // 3) for n in self.n_blocks)
        return np.stack(
            [one[:, first : last + 1].mean(1) for one, (first, last) in zip(values, thirds, strict=True)]
        )

    def effect(self, values):
        """Means, intervals, and the mean over models, of values of shape (model, prompt)."""
        k, n = values.shape
        means, found = values.mean(1), {}
        for model, one in zip(self.models, values, strict=True):
            ends = stats.t.interval(0.95, n - 1, one.mean(), stats.sem(one)) if n >= FEWEST else (np.nan, np.nan)
            found |= {f"mean {model}": one.mean(), f"low {model}": ends[0], f"high {model}": ends[1]}
            found[f"n_prompts {model}"] = n
        found |= {"mean": np.nan, "low": np.nan, "high": np.nan, "n_prompts": n}
        if k >= 3:
            # random effects by the mean squares of models, prompts and the rest
            rest = values - means[:, None] - values.mean(0) + values.mean()
            of_rest = (rest**2).sum() / ((k - 1) * (n - 1))
            of_prompts = max(k * values.mean(0).var(ddof=1) - of_rest, 0) / (k * n)
            of_models = means.var(ddof=1) / k
            freedom = (of_models + of_prompts) ** 2 / (of_models**2 / (k - 1) + of_prompts**2 / (n - 1))
            ends = stats.t.interval(0.95, freedom, means.mean(), np.sqrt(of_models + of_prompts))
            found |= {"mean": means.mean(), "low": ends[0], "high": ends[1]}
        return found

    def all(self):
        """Values of each finding, in their order."""
        at = {scale: self.change[..., self.scales.index(scale)] for scale in (2, 16, self.scale)}
        with netCDF4.Dataset(project.root() / "data" / "published" / "geometry-of-tokens.nc") as file:
            given = file["intrinsic_dimension_mean"][:, [0, -1], 11:22].filled(np.nan)
        for scale in (2, self.scale):
            means = (given[:, 1] - given[:, 0]).mean(1)[:, [2, 4, 8, 16, 32, 64].index(scale)]
            yield self.effect(at[scale]) | {f"published {n}": value for n, value in enumerate(means)}
        yield self.effect(at[self.scale] - at[2])
        signs = np.sign([change.mean(1) for change in (at[16], *self.others)])
        told = zip(("ESS", "TLE"), map(self.effect, self.others), strict=True)
        agree = {"n_agree": (signs == signs[0]).all(0).sum()}
        yield {f"{name} {key}": value for name, found in told for key, value in found.items()} | agree
        yield self.peaks()
        yield self.correlations()
        random = [str(name) for name in self.file["subset"][:]].index("random")
        half = self.file["n_subset"][:].tolist().index(self.n_tokens // 2)
        some = self.read("subset_dimension")[:, 0, :, :, random, half]
        ratio = self.summary(some) / self.summary(self.dimension[:, 0]) - 1
        yield self.effect(ratio[..., self.scales.index(self.scale)])

    def peaks(self):
        found = {}
        for model, blocks, one in zip(self.models, self.n_blocks, self.dimension, strict=True):
            curves = one[0, :, 1 : blocks + 1, self.scales.index(self.scale)]
            layer = curves.mean(0).argmax() + 1
            drawn = np.random.default_rng(0).integers(0, len(curves), (1000, len(curves)))
            layers = curves[drawn].mean(1).argmax(1) + 1
            inside = 1 < layer < blocks
            ends = np.quantile(layers, [0.025, 0.975]) / blocks if inside else (np.nan, np.nan)
            found |= {f"mean {model}": layer / blocks if inside else np.nan}
            found |= {f"low {model}": ends[0], f"high {model}": ends[1], f"n_prompts {model}": len(curves)}
        return found

    def correlations(self):
        found, structured = {}, self.summary(self.dimension[:, 0])[..., self.scales.index(4)]
        for model, x, y in zip(self.models, structured, self.loss[:, 0], strict=True):
            options = {"paired": True, "vectorized": False, "n_resamples": 2000, "rng": np.random.default_rng(3)}
            drawn = stats.bootstrap((x, y), lambda a, b: stats.pearsonr(a, b)[0], **options).confidence_interval
            ends = {
                f"low {model}": pytest.approx(drawn.low, abs=BOOTSTRAP),
                f"high {model}": pytest.approx(drawn.high, abs=BOOTSTRAP),
            }
            found |= {f"mean {model}": stats.pearsonr(x, y).statistic, f"n_prompts {model}": len(x)} | ends
        return found


def check(results, path):
    """Hold every finding of a run to what its file gives."""
    made, recomputed = findings.of_run(results), [*Recomputed(path).all()]
    assert len(made) == len(recomputed) == 7
    for finding, expected in zip(made, recomputed, strict=True):
        assert finding.values.keys() == expected.keys(), finding.figure
        for name, value in expected.items():
            exact = type(value).__name__ != "ApproxScalar"
            assert finding.values[name] == (
                pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True) if exact else value
            ), name
        spec = {"fig-comparison-id": ".0%", "fig-loss-id": ".2f", "fig-estimators-number": "+.0%"}.get(
            finding.figure, "+.2f"
        )
        # the numbers of the sentence are those values: that over all models, if there is one, else each
        known = {name: value for name, value in finding.values.items() if np.isfinite(value)}
        pooled = "mean" in known or "ESS mean" in known
        shown = [
            name for name in known if re.fullmatch("((ESS|TLE) )?(mean|low|high)" + " .*" * (not pooled), name)
        ]
        assert len(shown) >= 3
        for name in shown:
            assert f"{known[name]:{spec}}".replace("-", "−") in finding.sentence, (name, finding.sentence)
        n_prompts = int(max(value for name, value in known.items() if "n_prompts" in name))
        assert f"({results.observables.sizes['model']} models, {n_prompts} prompts)" in finding.sentence


def run_of(models, n_prompts, tmp_path):
    """A run of these models whose ID follows loss and order, and peaks inside; its file has three permutations."""
    results, random = results_of(models, n_prompts=n_prompts, n_shuffled=n_prompts - 4), np.random.default_rng(4)
    dataset = results.observables.assign_coords(n_subset=[16, 32])
    for name in ("intrinsic_dimension", "ess", "tle", "subset_dimension"):
        values = dataset[name]
        curve = 8 + 6 * dataset["relative_depth"] * (1 - dataset["relative_depth"])
        noise = values.copy(data=random.normal(0, 0.4, values.shape))
        slope = dataset["scale"] / 64 if "scale" in values.dims else 1
        changed = curve + noise + 2 * dataset["loss"] - slope * dataset["shuffle_level"]
        dataset[name] = changed.transpose(*values.dims).where(values.notnull())
    repeated = dataset.expand_dims(permutation=[0, 1, 2]).copy(deep=True)
    for name in ("intrinsic_dimension", "ess", "tle"):
        noise = repeated[name].copy(data=random.normal(0, 0.2, repeated[name].shape))
        changed = repeated[name] + noise * (repeated["shuffle_level"] > 0)
        changed = changed.where((repeated["shuffle_level"] > 0) | (repeated["permutation"] == 0))
        repeated[name] = changed.transpose(*repeated[name].dims)
    order = ("model", "shuffle_level", "prompt", "permutation", ...)
    repeated = repeated.transpose(*order).drop_vars("layer_overlap")
    repeated.to_netcdf(tmp_path / "observables.nc")
    return dataclasses.replace(
        results, observables=repeated.mean("permutation", keep_attrs=True)
    ), tmp_path / "observables.nc"


@pytest.mark.slow
@pytest.mark.parametrize("n_models", [2, 4])
def test_every_finding_is_what_its_file_gives(n_models, tmp_path):
    models = dict(list({"one": 12, "two": 9, "three": 6, "four": 10}.items())[:n_models])
    results, path = run_of(models, 16, tmp_path)
    check(results, path)
    said = findings.text(results).data
    assert (n_models == 4) == ("on average" in said)
    assert re.findall(r"@(fig-\w+-\w+)", said) == [finding.figure for finding in findings.of_run(results)]


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED.exists(), reason="the results of the run `families` are not here")
def test_every_finding_of_the_shipped_run_is_what_its_file_gives():
    with xr.open_dataset(SHIPPED, engine="netcdf4") as dataset:
        observables = dataset.load().mean("permutation", keep_attrs=True)
    check(RunResults(declaration.load("families"), observables), SHIPPED)


def test_a_small_run_says_smaller_findings_and_leaves_their_signs_open():
    said = findings.text(results_of(n_prompts=3)).data
    assert (
        "open in Model one, Model two" in said
        and "with no intervals below 8 prompts" in said
        and "raised" not in said
    )
    alone = findings.text(results_of(levels=(0,))).data
    assert "Full shuffling" not in alone and "r$ =" in alone


def test_a_chapter_that_the_book_lacks_is_not_linked(monkeypatch, tmp_path):
    finding = findings.Finding("It is so", {}, "fig-effects-ratio")
    assert finding.linked() == "It is so (@fig-effects-ratio)."
    (tmp_path / "_quarto.yml").write_text("book: {chapters: [index.qmd, notebooks/loss.ipynb]}")
    monkeypatch.setattr(findings.project, "root", lambda: tmp_path)
    assert finding.linked() == "It is so."
    assert findings.Finding("So", {}, "fig-loss-id").linked() == "So (@fig-loss-id)."
