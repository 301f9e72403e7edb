"""Goals in BDDL as instructions in English: what has to hold becomes what is to be done."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from pipeline.behavior.nouns import NUMBERS, ORDINALS, WITHOUT_PLURAL, noun, plural, with_article

# What makes a predicate of one object hold, and what makes it not hold.
STATES = {
    "toggled_on": ("switch on", "switch off"),
    "open": ("open", "close"),
    "cooked": ("cook", "do not cook"),
    "frozen": ("freeze", "thaw"),
    "on_fire": ("set fire to", "extinguish"),
    "real": ("make", "use up"),
}
# Of two: the verb and the word before the second object.
RELATIONS = {
    "inside": (("put", "into"), ("take", "out of")),
    "ontop": (("put", "on"), ("take", "off")),
    "under": (("put", "under"), ("take", "from under")),
    "nextto": (("put", "next to"), ("move", "away from")),
    "touching": (("put", "against"), ("keep", "off")),
    "attached": (("attach", "to"), ("detach", "from")),
    "covered": (("cover", "with"), ("clean", "of")),
    "contains": (("fill", "with"), ("keep", "free of")),
    "filled": (("fill", "with"), ("keep", "free of")),
}
SUBSTANCE_SECOND = ("covered", "contains", "filled")


@dataclasses.dataclass(frozen=True)
class Clause:
    """A thing to do: `put` the cup `on` the table.

    Attributes:
        verb: what is done.
        objects: to what.
        joint: the word before `target`, if there is one.
        target: where or with what.
        about: tells apart conditions that are each about one object of a kind; it is not spoken.
    """

    verb: str
    objects: tuple[str, ...]
    joint: str = ""
    target: str = ""
    about: str = ""

    def replaced(self, spoken: str, otherwise: str) -> Clause:
        """With an object spoken of otherwise."""
        objects = tuple(otherwise if each == spoken else each for each in self.objects)
        return dataclasses.replace(self, objects=objects, target=otherwise if self.target == spoken else self.target)

    def __str__(self) -> str:
        """In words."""
        return " ".join(filter(None, (self.verb, listed(self.objects), self.joint, self.target)))


class Speaker:
    """Puts the goal of one activity into words.

    Args:
        objects: synset -> names of its instances, as the activity declares them.
        rooms: instance -> the room it is in, where that is declared.
    """

    def __init__(self, objects: dict[str, Sequence[str]], rooms: dict[str, str]) -> None:
        self._objects, self._rooms = objects, rooms

    def instruct(self, activity: str, goal: Sequence[Any]) -> str:
        """An instruction.

        Args:
            activity: its name, e.g. "turning_on_radio".
            goal: conditions that must all hold, as `bddl` parses them.

        Returns:
            One sentence: what the activity is, then all that is to be done.
        """
        clauses = [clause for condition in goal for clause in self._clauses(condition, {})]
        title = activity.replace("_", " ").replace("childrens", "children's")
        return f"{title[0].upper()}{title[1:]}: {listed([str(clause) for clause in merged(clauses)], '; ')}."

    def _clauses(self, condition: Sequence[Any], bound: dict[str, str]) -> list[Clause]:
        """What makes a condition hold; `bound` says how variables are spoken of."""
        head, *rest = condition
        if head == "and":
            return [clause for part in rest for clause in self._clauses(part, bound)]
        if head == "or":
            return [_either([merged(self._clauses(part, bound)) for part in rest])]
        if head in ("forall", "exists", "forn", "forpairs"):
            return self._quantified(head, rest, bound)
        if head == "not":
            return [self._literal(rest[0], bound, holds=False)]
        return [self._literal(condition, bound, holds=True)]

    def _quantified(self, head: str, rest: list[Any], bound: dict[str, str]) -> list[Clause]:
        if head == "forpairs":
            *pair, body = rest
            moved = body[1]
            paired = {variable: f"{'one' if variable == moved else 'each'} {noun(of)}" for variable, _, of in pair}
            return self._clauses(body, bound | paired)
        count = int(rest.pop(0)[0]) if head == "forn" else 0
        (variable, _, synset), body = rest
        name = noun(synset)
        there = len(self._objects.get(synset, ()))
        if head == "forn":
            spoken = f"{NUMBERS[count]} {name if count == 1 else plural(name)}"
        elif head == "exists" and not _shared(body):
            spoken = with_article(name)
        elif head == "exists":
            return self._about_one(variable, name, body, bound)
        elif body[0] == "forn":
            spoken = f"each {name}"
        elif name in WITHOUT_PLURAL or there == 1 and not _wildcard(self._objects[synset]):
            spoken = f"{'all the' if name in WITHOUT_PLURAL else 'the'} {name}"
        else:
            spoken = f"{'both' if there == 2 and not _wildcard(self._objects[synset]) else 'all'} {plural(name)}"
        return self._clauses(body, bound | {variable: spoken})

    def _about_one(self, variable: str, name: str, body: Sequence[Any], bound: dict[str, str]) -> list[Clause]:
        """Several things said of one object, which others of its kind need not fulfil."""
        first, *others = merged(self._clauses(body, bound | {variable: f"one {name}"}))
        again = [other.replaced(f"one {name}", f"that {name}") for other in others]
        # Other conditions about one of its kind may mean another one.
        return [dataclasses.replace(clause, about=str(body)) for clause in (first, *again)]

    def _literal(self, condition: Sequence[Any], bound: dict[str, str], holds: bool) -> Clause:
        predicate, *names = condition
        if predicate in STATES:
            verb = STATES[predicate][not holds]
            spoken = self._made(names[0]) if predicate == "real" and holds else self._spoken(names[0], bound)
            return Clause(verb, (spoken,))
        verb, joint = RELATIONS[predicate][not holds]
        if predicate in SUBSTANCE_SECOND:
            return Clause(verb, (self._spoken(names[0], bound),), joint, noun(names[1].lstrip("?")))
        return Clause(verb, (self._spoken(names[0], bound),), joint, self._spoken(names[1], bound))

    def _made(self, instance: str) -> str:
        """Something that is not there at first."""
        name = noun(instance.lstrip("?"))
        whole = not name.startswith(("cooked", "diced"))
        return with_article(name) if whole else name

    def _spoken(self, name: str, bound: dict[str, str]) -> str:
        """An object as people would name it, so that it is told from others of its kind."""
        if name in bound:
            return bound[name]
        instance = name.lstrip("?")
        synset, _, number = instance.rpartition("_")
        others = [each for each in self._objects.get(synset, ()) if not each.endswith("*")]
        room = self._rooms.get(instance)
        if len(others) > 1 and room and [self._rooms.get(other) for other in others].count(room) == 1:
            return f"the {noun(synset)} in the {re.sub(r'_[0-9]+$', '', room).replace('_', ' ')}"
        if len(others) > 1 and number.isdigit():
            return f"the {ORDINALS[int(number) - 1]} {noun(synset)}"
        return f"the {noun(synset)}"


def merged(clauses: Sequence[Clause]) -> list[Clause]:
    """The same done to several things is said once."""
    alike: dict[Clause, list[str]] = {}
    for clause in clauses:
        alike.setdefault(dataclasses.replace(clause, objects=()), []).extend(clause.objects)
    return [dataclasses.replace(clause, objects=_counted(objects)) for clause, objects in alike.items()]


def listed(parts: Sequence[str], comma: str = ", ") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{comma.join(parts[:-1])}{comma.rstrip() if comma != ', ' else ''} and {parts[-1]}"


def _counted(objects: Sequence[str]) -> tuple[str, ...]:
    """`a half log` eight times is eight half logs; the first and the second of a kind are named together."""
    counted = []
    for spoken in dict.fromkeys(objects):
        times = objects.count(spoken)
        article, _, name = spoken.partition(" ")
        counted.append(f"{NUMBERS[times]} {plural(name)}" if times > 1 and article in ("a", "an") else spoken)
    return tuple(counted)


def _either(choices: Sequence[Sequence[Clause]]) -> Clause:
    """One of several things to do; if they differ only in where, that alone is said twice."""
    first = choices[0][0]
    same = all(len(choice) == 1 for choice in choices)
    if same and all(
        (c[0].verb, c[0].objects, c[0].target) == (first.verb, first.objects, first.target) for c in choices
    ):
        return dataclasses.replace(first, joint=" or ".join(choice[0].joint for choice in choices))
    return Clause("either " + ", or ".join(listed([str(clause) for clause in choice]) for choice in choices), ())


def _shared(body: Sequence[Any]) -> bool:
    """Whether something is said of several objects, so that one and the same is meant."""
    return body[0] in ("forall", "and", "forn")


def _wildcard(instances: Sequence[str]) -> bool:
    return any(instance.endswith("*") for instance in instances)
