"""Retiring a release that somebody had pinned: it leaves a mirror unless others want it, and its bundles and packs follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.ledger import orders, pins, releases, subscriptions
from pacstore.ledger.completion import drop
from pacstore.subscription import Subscription, selected
from pacstore.trust.listing import Listing, list_releases
from pacstore.trust.replica import Replica

if TYPE_CHECKING:
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.store import Store

ORIGIN = "the origin's catalog"


@dataclass(frozen=True)
class Retired:
    """`unpinned`: there was such a pin. `dropped`: the store held it, and does not any more. `kept_for`: who else wants it."""

    unpinned: bool
    dropped: bool
    kept_for: tuple[str, ...] = ()


def retire(
    store: Store, release: Release, *, owner: str, configured: Iterable[Subscription] = (), clock: Clock
) -> Retired:
    """Take back the pin of `owner`, and let the release go from a mirror that keeps it for nobody else.

    That is: unless another has pinned it, or a subscription of the ledger or of `configured` means it. An origin keeps what its
    catalog names. What it leaves is collected after the grace, bundles too. May be repeated. Raises Unavailable.
    """
    with orders.changing(store.ledger) as connection:
        unpinned = pins.remove(connection, str(release), owner)
        is_known = releases.find(connection, release) is not None
    kept_for = wanted_by(store, release, besides=owner, configured=configured, clock=clock)
    if kept_for or not is_known:
        return Retired(unpinned, dropped=False, kept_for=kept_for)
    drop(store.ledger, store.storage, release)
    return Retired(unpinned, dropped=True)


def wanted_by(
    store: Store, release: Release, *, besides: str, configured: Iterable[Subscription] = (), clock: Clock
) -> tuple[str, ...]:
    """Who wants the release here beside the owner `besides` of a pin, in words; empty if nobody does. As `retire`."""
    with store.ledger.reading() as connection:
        found = [pin for pin in pins.listed(connection, now=clock()) if pin.release == release and pin.owner != besides]
        subscribed = [*configured, *subscriptions.listed(connection)]
    others = [] if store.is_mirror else [ORIGIN]
    others += [f"the pin of {pin.owner}" for pin in found]
    return (*others, *(f"the subscription {one}" for one in _selecting(store, release, subscribed, clock)))


def _selecting(store: Store, release: Release, subscribed: Iterable[Subscription], clock: Clock) -> list[Subscription]:
    """The subscriptions that choose the release from the catalog that is here; without one, those whose pattern it matches."""
    matching = [one for one in subscribed if one.matches(release)]
    if not matching:
        return []
    held = Replica(store.storage, pinned=None, clock=clock).load()
    if held is None:
        return matching
    named = list_releases(store.storage, held, Listing()).releases
    return [one for one in matching if release in selected([one], named.values())]
