"""Which images are held out: a seeded choice that keeps equal pictures, and pairs by name, on one side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAIRED_SHARE = 0.9
"""Of all names of two domains, how many have to be in both for the domains to be taken as paired by name."""


@dataclass(frozen=True)
class Member:
    """One image that can be held out."""

    domain: str
    name: str
    """Without its suffix; where most names of two domains are the same, equal ones are pairs."""
    digest: bytes | None = None
    """Of its pixels; equal ones make a group. ``None``: unknown, and the name stands in for it."""


def hold_out(members: Sequence[Member], quotas: Mapping[str, int], seed: int) -> list[bool]:
    """Choose images to hold out.

    Groups of images that belong together, by their pixels or as pairs, are taken in the order of a hash of their
    content and the seed, so that neither file order nor the names of files decide. A group that would exceed a domain's
    quota is passed over.

    Args:
        members: Images of all domains.
        quotas: Domain -> how many to hold out.
        seed: Another seed, another choice.

    Returns:
        For each member whether it is held out; at most ``quotas`` of them, fewer only where groups do not fit.
    """
    groups = list(_groups(members))
    keys = [min(_key(members[i]) for i in group) for group in groups]
    order = sorted(range(len(groups)), key=lambda g: hashlib.sha256(b"%d:" % seed + keys[g]).digest())
    left = dict(quotas)
    held = [False] * len(members)
    for number in order:
        sizes = Counter(members[i].domain for i in groups[number])
        if all(left.get(domain, 0) >= size for domain, size in sizes.items()):
            for i in groups[number]:
                held[i] = True
            for domain, size in sizes.items():
                left[domain] -= size
    return held


def _key(member: Member) -> bytes:
    return member.digest if member.digest is not None else member.name.encode("utf-8", "surrogateescape")


def _groups(members: Sequence[Member]) -> list[list[int]]:
    """Positions of members that share a picture or, in domains that are paired, a name, directly or through others."""
    paired = _paired_domains(members)
    parent = list(range(len(members)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[object, int] = {}
    for i, member in enumerate(members):
        for key in ((paired[member.domain], member.name), member.digest):
            if key is not None:
                parent[root(i)] = root(first.setdefault(key, i))
    found: dict[int, list[int]] = {}
    for i in range(len(members)):
        found.setdefault(root(i), []).append(i)
    return list(found.values())


def _paired_domains(members: Sequence[Member]) -> dict[str, str]:
    """Domain -> the first of the domains that hold nearly the same names, itself where there is no other.

    Names that are shared here and there, as numbers are, make no pairs.
    """
    names: dict[str, set[str]] = {}
    for member in members:
        names.setdefault(member.domain, set()).add(member.name)
    found: dict[str, str] = {}
    for domain in sorted(names):
        alike = (
            other
            for other in found
            if len(names[domain] & names[other]) >= PAIRED_SHARE * len(names[domain] | names[other])
        )
        other = next(alike, None)
        found[domain] = domain if other is None else found[other]
    return found
