"""Storage elements, read by Rucio's own programs: made as docs/rucio.md says; over TLS and plain http, broken off, damaged.

`rucio download` ends with 0 also when it has downloaded nothing: what counts is what is there then.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shutil
import signal
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.site import free_port, wait_until
from tests.mirror.authority import Authority
from tests.peers.web import PLAIN, example, nginx

pytestmark = pytest.mark.peers
GUIDE = Path(__file__).parents[3] / "docs/rucio.md"
WEBDAV = "rucio.rse.protocols.webdav.Default"
OURS = "pacmirror.delivery.rucio.protocol"
PROXYING = "server { listen 8080; location / { proxy_pass http://127.0.0.1:8081; proxy_buffering off; } }"
_numbers = itertools.count()


@dataclass(frozen=True)
class Dataset:
    """A dataset of all packs and manifests of a store: what each file must be, by name."""

    did: str
    files: dict[str, bytes]

    def assert_whole(self, directory: Path) -> None:
        found = {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        assert found.keys() == self.files.keys()
        assert found == self.files

    def fields(self, name: str) -> dict:
        data = self.files[name]
        sums = {"adler32": f"{zlib.adler32(data):08x}", "md5": hashlib.md5(data).hexdigest()}
        return {"scope": "sw", "name": name, "bytes": len(data), **sums}


def add_element(rucio, url: str, *, impl: str, prefix: str = "/rucio/", priority: int = 1) -> str:
    """A storage element at a URL, which may only be read; its name."""
    name = f"ELEMENT-{next(_numbers)}"
    scheme, host, port = re.fullmatch(r"(https?)://(.*):(.*)", url).groups()
    client = rucio.client()
    client.add_rse(name, deterministic=True)
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    domains = {domain: {"read": priority, "write": 0, "delete": 0} for domain in ("lan", "wan")}
    where = {"scheme": scheme, "hostname": host, "port": int(port), "prefix": prefix, "impl": impl}
    client.add_protocol(name, {**where, "domains": domains, "extended_attributes": None})
    return name


def register(rucio, rses, store: Path, *, packs: int = 2) -> Dataset:
    """The manifests of a store and its smallest packs as replicas at each of `rses`, and a closed dataset of them."""
    public = store / "public"
    chosen = sorted(public.glob("packs/*/*"), key=lambda path: path.stat().st_size)[:packs]
    files = {f"{path.name}.pack": path.read_bytes() for path in chosen}
    files |= {f"{path.name}.manifest": path.read_bytes() for path in public.glob("manifests/*/*")}
    dataset = Dataset(f"sw:sw.Elements-{next(_numbers)}", files)
    client, name = rucio.client(), dataset.did[3:]
    with contextlib.suppress(Exception):  # another test has added it
        client.add_scope("root", "sw")
    for rse in rses:
        client.add_replicas(rse, [dataset.fields(one) for one in files])
    client.add_dataset("sw", name)
    client.add_files_to_dataset("sw", name, [{"scope": "sw", "name": one} for one in files])
    client.close("sw", name)
    return dataset


def download(rucio, dataset: Dataset, rses: str, where: Path, **environment: str) -> str:
    """What `rucio download` says."""
    where.mkdir()
    words = ("download", "--dir", where, "--rses", rses, dataset.did)
    done = rucio.run("rucio", *words, check=False, **environment)
    return done.stdout + done.stderr


@contextlib.contextmanager
def over_tls(tmp_path: Path, config: str, changes: dict[str, str]):
    """nginx with `config`, also over TLS: that URL, and the file of its certificate and key."""
    Authority(tmp_path / "tls").serve("127.0.0.1")
    pem, port = next((tmp_path / "tls").glob("127*.pem")), free_port()
    listen = f"listen 8080; listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
    with nginx(tmp_path / "nginx", config.replace("listen 8080;", listen), changes):
        yield f"https://127.0.0.1:{port}", pem


def documented(heading: str) -> list[str]:
    """The commands of the first code block below a heading of the guide."""
    below = GUIDE.read_text().split(f"\n{heading}\n")[1]
    block = below.split("```sh\n")[1].split("```")[0]
    return block.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("front", ["nginx before the daemon", "nginx alone"])
def test_elements_made_as_documented_need_nothing_of_ours_at_rucio(rucio, origin, tmp_path, front):
    """Made with Rucio's commands, read by its WebDAV class over TLS, destination of a rule, and read from there, too."""
    with contextlib.ExitStack() as stack:
        if front == "nginx alone":
            config, changes = example("pacball.conf"), {"/srv/store/public": str(origin.store / "public")}
        else:
            config = example("pacball-origin.conf")
            changes = {"http://127.0.0.1:8081": stack.enter_context(origin.site.serving(origin.store))}
        url, pem = stack.enter_context(over_tls(tmp_path, config, changes))
        host, _, port = url.removeprefix("https://").partition(":")
        origin_rse, site_rse = add_element(rucio, url, impl=WEBDAV), f"SITE-{next(_numbers)}"
        for command in documented("### An element for each store"):
            here = command.replace("SITE-B", site_rse).replace("sw.site-b.example", host).replace("443", port)
            subprocess.run(["sh", "-euc", here], env=rucio.environment(), check=True, timeout=60, capture_output=True)
        dataset = register(rucio, [origin_rse], origin.store)
        client, name = rucio.client(), dataset.did[3:]
        (rule,) = client.add_replication_rule([{"scope": "sw", "name": name}], 1, site_rse)
        assert client.get_replication_rule(rule)["state"] == "REPLICATING"
        client.update_replicas_states(site_rse, [{"scope": "sw", "name": one, "state": "A"} for one in dataset.files])
        assert client.get_replication_rule(rule)["state"] == "OK"
        for rse in (origin_rse, site_rse):
            said = download(rucio, dataset, rse, tmp_path / rse, X509_USER_PROXY=str(pem))
            dataset.assert_whole(tmp_path / rse)
            assert f"{url}/rucio/sw/" in said


def test_the_reaper_leaves_an_element_alone_that_was_made_as_documented(rucio):
    """Otherwise what no rule keeps is marked as being deleted there for ever, and new rules for it fail."""
    name = f"SITE-{next(_numbers)}"
    for command in documented("### An element for each store"):
        subprocess.run(["sh", "-euc", command.replace("SITE-B", name)], env=rucio.environment(), check=True, timeout=60)
    client, file = rucio.client(), {"scope": "sw", "name": f"{next(_numbers):064x}.pack"}
    client.add_replicas(name, [{**file, "bytes": 1, "adler32": "0" * 8, "md5": "0" * 32}])
    client.set_tombstone([{**file, "rse": name}])
    rucio.daemon("rucio-reaper", "--rses", name, "--greedy", "--delay-seconds", 0)
    assert [one["states"] for one in client.list_replicas([file], all_states=True)] == [{name: "AVAILABLE"}]


def test_our_class_reads_from_a_daemon_over_plain_http(rucio, origin, tmp_path):
    with origin.site.serving(origin.store) as url:
        rse = add_element(rucio, url, impl=f"{OURS}.Default")
        dataset = register(rucio, [rse], origin.store)
        said = download(rucio, dataset, rse, tmp_path / "got")
    dataset.assert_whole(tmp_path / "got")
    assert f"{url}/rucio/sw/" in said


def test_any_web_server_over_a_docroot_is_an_element(rucio, origin, tmp_path):
    with nginx(tmp_path / "nginx", PLAIN, {"/srv/store/public": str(origin.store / "public")}) as server:
        rse = add_element(rucio, server.url, impl=f"{OURS}.Docroot", prefix="/")
        dataset = register(rucio, [rse], origin.store)
        said = download(rucio, dataset, rse, tmp_path / "got")
    dataset.assert_whole(tmp_path / "got")
    assert f"{server.url}/packs/" in said


def test_rucio_does_not_resume_inside_a_file_but_our_class_does_while_the_daemon_is_killed_and_started(
    rucio, origin, tmp_path
):
    port = free_port()
    words = ("serve", "--store", origin.store, "--listen", f"127.0.0.1:{port}")
    changes = {"http://127.0.0.1:8081": f"http://127.0.0.1:{port}"}
    size = min(path.stat().st_size for path in (origin.store / "public/packs").glob("*/*"))
    slow = PROXYING.replace("location", f"limit_rate {size // 3}; location")
    with nginx(tmp_path / "nginx", slow, changes) as server, contextlib.ExitStack() as stack:
        daemon = stack.enter_context(origin.site.start(*words))
        stack.callback(daemon.kill)
        daemon.stdout.readline()
        rse = add_element(rucio, server.url, impl=f"{OURS}.Default")
        dataset = register(rucio, [rse], origin.store, packs=1)
        argv = [rucio.place / "client/bin/rucio", "download", "--dir", tmp_path / "got", "--rses", rse, dataset.did]
        client = stack.enter_context(
            subprocess.Popen(argv, env=rucio.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        stack.callback(client.kill)

        def sizes():
            with contextlib.suppress(FileNotFoundError):  # it is whole, and has its name
                return [path.stat().st_size for path in (tmp_path / "got").rglob("*.incoming")]
            return []

        wait_until(lambda: any(here > size / 4 for here in sizes()), seconds=30)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(20)
        wait_until(lambda: any(line.startswith("502 ") for line in server.told()), seconds=30)
        again = stack.enter_context(origin.site.start(*words))
        stack.callback(again.kill)
        assert client.wait(80) == 0
        told = server.told()
    dataset.assert_whole(tmp_path / "got")
    assert any(line.startswith("206 GET /rucio/sw/") for line in told), told


def test_a_damaged_source_is_left_for_another(rucio, origin, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(origin.store / "public", damaged / "public")
    victim = min((damaged / "public/packs").glob("*/*"), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    with (
        origin.site.serving(origin.store) as good_url,
        nginx(tmp_path / "nginx", PLAIN, {"/srv/store/public": str(damaged / "public")}) as server,
    ):
        bad = add_element(rucio, server.url, impl=f"{OURS}.Docroot", prefix="/")
        good = add_element(rucio, good_url, impl=f"{OURS}.Default", priority=2)
        dataset = register(rucio, [bad, good], origin.store)
        download(rucio, dataset, bad, tmp_path / "bad")
        assert not list((tmp_path / "bad").rglob(f"{victim.name}.pack*"))
        said = download(rucio, dataset, f"{bad}|{good}", tmp_path / "got")
    dataset.assert_whole(tmp_path / "got")
    assert "Checksum validation failed" in said


def test_the_file_of_the_class_is_enough_by_itself(rucio, tmp_path):
    shutil.copy(GUIDE.parents[1] / "mirror/pacmirror/delivery/rucio/protocol.py", tmp_path / "pacball_rse.py")
    program = "import sys, pacball_rse; print([one for one in sys.modules if 'pac' in one], pacball_rse.Default)"
    done = rucio.run("python", "-c", program, PYTHONPATH=str(tmp_path))
    assert "pacmirror" not in done.stdout
    assert "Default" in done.stdout
