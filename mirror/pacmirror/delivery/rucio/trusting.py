"""Trusting: which root the catalog in a bundle must follow from. It is never one that comes with the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacstore.errors import Untrusted
from pacstore.trust.pins import fetch_root, find_pin, fingerprint
from pacstore.volumes.judging import first_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pacstore.store import Store
    from pacstore.trust.pins import Pin
    from pacstore.volumes.volume import Volume


def make_trust(root: bytes | None, pins: Sequence[Pin] = ()) -> Callable[[Volume, Store], bytes]:
    """Which root is trusted for a bundle that comes into a store: `root`, the store's own first one, or one of the `pins`.

    What is returned raises Untrusted where there is none of them.
    """

    def trust(volume: Volume, store: Store) -> bytes:
        known = root or first_root(store)
        if known is not None:
            return known
        pin = find_pin(volume, pins)
        if pin is not None:
            return pin.root
        raise Untrusted(
            f"no root is pinned for its catalog, whose first root has the fingerprint {fingerprint(fetch_root(volume))}",
            place=volume.name,
            hint="compare that with what the collaboration publishes; then give --root-keys FILE, the root.json from there (a "
            "daemon has it in trusted_root)",
        )

    return trust
