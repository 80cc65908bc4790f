"""What the cache tells the ledger, a moment after it happened."""

from __future__ import annotations

from pacmirror.cache.recording import Recording
from pacmirror.config import Config
from pacmirror.sync.bookkeeping import Bookkeeping
from pacstore.ledger import packs
from pacstore.ledger.packs import PackState
from pacstore.store import Store
from tests.mirror.mirrors import filling_store, run
from tests.mirror.test_syncing import View
from tests.store.packs import noise_pack
from tests.store.releases import NOW, write

PACK = noise_pack(3, 40_000, seed="recorded")


def test_a_pack_that_was_found_damaged_meanwhile_is_not_taken_for_whole_again(tmp_path):
    """cvmfs#3878: a replica trusted an object because its name existed."""

    async def work():
        with Store.create(tmp_path / "store") as store:
            write(store.public / PACK.path, PACK.data)
            async with filling_store(store, ["http://127.0.0.1:9"]) as filler:
                books = Bookkeeping(Config(store.path), View(), clock=lambda: NOW)
                await books.start()
                recording = Recording(books, filler, clock=lambda: NOW)

                async def told():
                    filler.changes.completed.add(PACK.id)
                    await recording.write()
                    with store.ledger.reading() as connection:
                        return packs.find(connection, PACK.id)

                with store.ledger.writing() as connection:
                    packs.set_state(connection, PACK.id, PackState.DAMAGED)
                assert (await told()).state is PackState.DAMAGED
                with store.ledger.writing() as connection:
                    packs.set_state(connection, PACK.id, PackState.PARTIAL)
                row = await told()
                assert (row.state, row.length, row.held_bytes) == (PackState.WHOLE, len(PACK.data), len(PACK.data))
                await books.end()

    run(work)
