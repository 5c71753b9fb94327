"""What users have chosen, one choice after the other, whatever file it was read from."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from r1ranker_ir.adapters.problems import Problems


class Interaction(NamedTuple):
    """One choice, by the ids of user and item; the lower its time the earlier. `where` is such as `ratings.dat:7`."""

    user: str
    item: str
    time: float
    where: str


@dataclass(frozen=True)
class UserHistory:
    """A user's choices, oldest first, and what the user chose next, where the source keeps it apart."""

    user: str
    choices: tuple[str, ...]
    next_item: str | None = None
    where: str = ""

    @property
    def target(self) -> str:
        """The item that is to be guessed: the next one, or the last where the source keeps none apart."""
        return self.choices[-1] if self.next_item is None else self.next_item

    @property
    def known(self) -> tuple[str, ...]:
        """The choices before the target."""
        return self.choices[:-1] if self.next_item is None else self.choices


@dataclass(frozen=True)
class Interactions:
    """A source of recommendation data.

    Args:
        histories: one per user, in the source's order.
        titles: item id to title; every item that a history names has one.
        domain: what the items are, as far as the format tells; see `RECOMMENDATION_DOMAINS`.
    """

    source: str
    histories: tuple[UserHistory, ...]
    titles: Mapping[str, str]
    domain: str = "product"


def clean_title(text: str) -> str:
    """Makes a title one line of text, with HTML entities (`&amp;`) resolved."""
    return " ".join(html.unescape(text).split())


def read_titles(rows: Iterable[tuple[str, str, str]], problems: Problems) -> dict[str, str]:
    """Collects the items of a source, given where they stand, their ids and titles: item id to clean title."""
    titles: dict[str, str] = {}
    for where, item, text in rows:
        title = clean_title(text)
        if not item:
            problems.add(where, "blank item id", "give each item an id of its own")
        elif not title:
            problems.add(where, "blank title", f"item {item!r} needs a title, since that is what the model reads")
        elif item in titles:
            problems.add(where, "item id occurs twice", f"{item!r} is {titles[item]!r} already")
        else:
            titles[item] = title
    return titles


def histories_of(
    interactions: Iterable[Interaction], titles: Mapping[str, str], problems: Problems
) -> tuple[UserHistory, ...]:
    """Each user's choices in the order of time, then as they come; users in order of first appearance."""
    of_users: dict[str, list[tuple[float, str]]] = {}
    for user, item, time, where in interactions:
        if not user:
            problems.add(where, "blank user id", "give each choice the user's id")
        elif item not in titles:
            unknown_item(problems, where, item)
        else:
            of_users.setdefault(user, []).append((time, item))
    return tuple(
        UserHistory(user, tuple(item for _, item in sorted(choices, key=itemgetter(0))), where=f"user {user!r}")
        for user, choices in of_users.items()
    )


def unknown_item(problems: Problems, where: str, item: str) -> None:
    """Reports an item that no title is known of."""
    problems.add(where, "unknown item id", f"{item!r} has no title: add it to the items")
