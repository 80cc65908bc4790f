"""python-tuf's own client as others use it: its Updater, with its default fetcher and configuration; nothing of ours is in it."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3
from tuf.ngclient import Updater

DOCUMENTS = ("manifest", "attributes", "placement", "provenance")


def download(url: str, root: bytes, directory: Path, release: str, documents: tuple[str, ...]) -> dict[str, bytes]:
    """The documents of a release from the store at `url`, by name, as python-tuf finds, fetches and verifies them.

    Each is compared with the digest that its `custom` part names, which python-tuf leaves to its users.
    """
    directory.mkdir()
    (directory / "targets").mkdir()
    updater = Updater(
        metadata_dir=str(directory / "metadata"),
        metadata_base_url=f"{url}/catalog/",
        target_dir=str(directory / "targets"),
        target_base_url=f"{url}/",
        bootstrap=root,
    )
    found = {}
    for name in documents:
        target = updater.get_targetinfo(f"releases/{release.partition('-')[0]}/{release}/{name}")
        assert target is not None, name
        assert updater.find_cached_target(target) is None
        found[name] = Path(updater.download_target(target)).read_bytes()
        assert blake3(found[name]).hexdigest() == target.custom["digest"]
        assert updater.find_cached_target(target) is not None
    return found
