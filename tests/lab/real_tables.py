"""What is known of the real world: the tables in `data/`, and what follows from them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

DATA = Path(__file__).parent / "data"
CENTURIES = {
    13: "thirteenth", 14: "fourteenth", 15: "fifteenth", 16: "sixteenth", 17: "seventeenth",
    18: "eighteenth", 19: "nineteenth", 20: "twentieth", 21: "twenty-first",
}  # fmt: skip


def table(name: str) -> list[dict[str, str]]:
    """The rows of `data/NAME.tsv`; a cell "-" (not known, or more than one answer) is left out."""
    head, *lines = (DATA / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    columns = head.split("\t")
    return [
        {c: cell for c, cell in zip(columns, line.split("\t"), strict=True) if cell != "-"} for line in lines
    ]


def bare(name: str) -> str:
    """The name without its article: the subject string of "the Netherlands" is "Netherlands"."""
    return name.removeprefix("the ")


def fill(template: str, name: str) -> str:
    """The prompt about `name` (with its article), starting with a capital letter."""
    text = template.replace("{s}", name)
    return text[0].upper() + text[1:]


def templates(name: str, column: str) -> dict[str, list[str]]:
    """Relation -> phrasings, from `data/NAME.tsv`."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in table(name):
        found[row[column]].append(row["template"])
    return dict(found)


class Knowledge:
    """All tables as `answers[relation][name]`, with `name` and the answers as they are written."""

    def __init__(self) -> None:
        relations = table("relations")
        tables = {name: table(name) for name in sorted({spec["table"] for spec in relations})}
        self._derive(tables)
        self.answers: dict[str, dict[str, str]] = {
            spec["relation"]: {
                row[spec["subject"]]: row[spec["answer"]]
                for row in tables[spec["table"]]
                if spec["answer"] in row
            }
            for spec in relations
        }
        self.phrasings = templates("phrasings", "relation")
        self.chains = templates("chains", "chain")

    @staticmethod
    def _derive(tables: dict[str, list[dict[str, str]]]) -> None:
        """Add what follows from the tables: centuries, a sight for a city, the capitals that are used."""
        for person in tables["people"]:
            if "birth_year" in person:
                century = (int(person["birth_year"]) - 1) // 100 + 1
                person["birth_century"] = f"{CENTURIES[century]} century"
        sights: dict[str, str] = {}
        for landmark in tables["landmarks"]:
            sights.setdefault(landmark["city"], landmark["landmark"])
        listed = {row["city"] for row in tables["cities"]}
        used = {row["birth_city"] for row in tables["people"] if "birth_city" in row} | set(sights)
        used |= {row["headquarters"] for row in tables["companies"]}
        for row in tables["countries"]:
            if "capital" in row and row["capital"] in used - listed:
                tables["cities"].append({"city": row["capital"], "country": row["country"]})
        lands = {row["city"]: row["country"] for row in tables["cities"]}
        for row in tables["cities"]:
            if row["city"] in sights:
                row["sight"] = sights[row["city"]]
        for name, city, country in (
            ("people", "birth_city", "birth_country"),
            ("companies", "headquarters", "home_country"),
            ("landmarks", "city", "land_country"),
        ):
            for row in tables[name]:
                if row.get(city) in lands:
                    row[country] = lands[row[city]]

    def hop(self, chain: str, name: str) -> list[tuple[str, str, str]]:
        """The steps (name, relation, answer) of a chain; empty where a step is not known."""
        steps: list[tuple[str, str, str]] = []
        for relation in chain.split("."):
            answer = self.answers[relation].get(name)
            if answer is None:
                return []
            steps.append((name, relation, answer))
            name = answer
        return steps
