import pytest

from pacstore.errors import Untrusted
from pacstore.trust.floor import Floor, Seen

KEYS = ("a",)


def seen(root=1, timestamp=1, line=1, keys=KEYS) -> Seen:
    return Seen({"root": root, "timestamp": timestamp, "line-A": line}, keys)


def test_nothing_goes_below_the_floor(tmp_path):
    def raise_to(state):
        Floor(tmp_path / "floor").raise_to(state, "mirror")

    raise_to(seen(2, 5, 3))
    raise_to(seen(2, 5, 3))
    for lower in (seen(1, 5, 3), seen(2, 4, 3), seen(2, 5, 2)):
        with pytest.raises(Untrusted, match="rolled back"):
            raise_to(lower)
    with pytest.raises(Untrusted, match="line-A, seen at version 3, is gone"):
        raise_to(Seen({"root": 2, "timestamp": 6}, KEYS))
    raise_to(seen(3, 6, 3))
    assert len(list((tmp_path / "floor").iterdir())) == 1


def test_records_of_clients_without_a_lock_are_joined(tmp_path):
    for n, state in enumerate((seen(1, 7, 1), seen(2, 6, 1))):
        Floor(tmp_path / str(n)).raise_to(state, "mirror")
        (record,) = (tmp_path / str(n)).iterdir()
        (tmp_path / "floor").mkdir(exist_ok=True)
        (tmp_path / "floor" / record.name).write_bytes(record.read_bytes())
    for lower in (seen(2, 6, 1), seen(1, 7, 1)):
        with pytest.raises(Untrusted):
            Floor(tmp_path / "floor").raise_to(lower, "mirror")
    Floor(tmp_path / "floor").raise_to(seen(2, 7, 1), "mirror")
    assert len(list((tmp_path / "floor").iterdir())) == 1


def test_new_online_keys_start_anew_but_never_an_old_root(tmp_path):
    Floor(tmp_path).raise_to(seen(1, 2**40, 9), "mirror")
    with pytest.raises(Untrusted):
        Floor(tmp_path).raise_to(seen(2, 1, 1), "mirror")
    Floor(tmp_path).raise_to(seen(2, 1, 1, keys=("b",)), "mirror")
    with pytest.raises(Untrusted, match="root"):
        Floor(tmp_path).raise_to(seen(1, 2**41, 9), "mirror")


def test_what_others_see_meanwhile_is_no_rollback_and_stays(tmp_path):
    slow = Floor(tmp_path)
    Floor(tmp_path).raise_to(seen(1, 9, 9), "mirror")
    slow.raise_to(seen(1, 8, 8), "mirror")
    with pytest.raises(Untrusted):
        Floor(tmp_path).raise_to(seen(1, 8, 8), "mirror")
