"""The demo: two successive releases of a real software stack, published, served, installed, updated and verified.

The stack is wheels from the package index that pip uses; where it cannot be reached, this machine's own Python installation
in two states. Everything happens below one directory, on the loopback interface, and with keys made for the occasion.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SAME = ("pyarrow==17.0.0", "polars==1.9.0", "llvmlite==0.43.0", "pillow==10.4.0", "sympy==1.13.1")
STACKS = {
    "1.0": (*SAME, "scipy==1.14.0", "numpy==2.1.0", "opencv-python-headless==4.10.0.82", "pandas==2.2.2",
            "duckdb==1.1.0", "onnxruntime==1.19.0", "scikit-learn==1.5.1", "matplotlib==3.9.1"),
    "1.1": (*SAME, "scipy==1.14.1", "numpy==2.1.1", "opencv-python-headless==4.10.0.84", "pandas==2.2.3",
            "duckdb==1.1.1", "onnxruntime==1.19.2", "scikit-learn==1.5.2", "matplotlib==3.9.2"),
}  # fmt: skip
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64", "any")
PLATFORM = "x86_64-manylinux"
PACBALL = Path(sys.executable).with_name("pacball")


def main() -> None:
    """Run the demo below the directory given with --work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".demo"))
    work = parser.parse_args().work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CONFIG_HOME"] = str(work / "config")
    os.environ["XDG_STATE_HOME"] = str(work / "state")
    for used in ("store", "site", "config", "state"):
        remove(work / used)
    trees = make_trees(work)
    demonstrate(work, trees)


def demonstrate(work: Path, trees: dict[str, Path]) -> None:
    """Publish, serve, install, update, verify; print what moved."""
    store, site = work / "store", work / "site"
    names = {version: f"DemoStack-{version}-{PLATFORM}" for version in trees}
    old, new = names.values()
    for version, tree in trees.items():
        step(f"publish {names[version]} at the origin")
        done = pacball("publish", tree, names[version], "--to", store)
        print(f"   {mb(done['bytes_total'])} in {done['files']} files; {mb(done['bytes_new'])} new, "
              f"stored as {mb(done['bytes_stored'])}, in {done['seconds']:.1f} s")  # fmt: skip
    root_keys = next((work / "config").rglob("root.json"))
    step("who signs what: keys were made at the first publish")
    for role in pacball("trust", "status", "--store", store)["roles"]:
        until = time.strftime("%Y-%m-%d", time.gmtime(role["expires"]))
        print(f"   {role['role']}: version {role['version']}, expires {until}, key {role['keyids'][0][:16]}")
    with served(store, root_keys.parent) as url:
        source = ("--from", url, "--root-keys", root_keys)
        step("verify the catalog as a site does, from the pinned root")
        done = pacball("trust", "verify", *source)
        print(f"   version {done['version']}, {done['releases']} releases, valid until {done['expires']}")
        for name in (old, new):
            step(f"install {name} at a site, from {url}")
            done = pacball("install", name, *source, "--root", site)
            saved = 1 - done["bytes_downloaded"] / done["bytes_total"]
            print(f"   {mb(done['bytes_total'])} installed: {mb(done['bytes_downloaded'])} moved in {done['requests']} requests "
                  f"({saved:.0%} saved), {mb(done['bytes_reused'])} reused, in {done['seconds']:.1f} s")  # fmt: skip
        repair(new, site, source)
        step(f"what changed from {old} to {new}")
        found = pacball("diff", old, new, *source)
        print(f"   {len(found['added'])} entries added, {len(found['removed'])} removed, {len(found['changed'])} changed; "
              f"{mb(found['bytes_new'])} of new content")  # fmt: skip
    step("verify everything at the site, without a network")
    done = pacball("verify", "--root", site)
    print(f"   intact: {done['intact']}, in {done['seconds']:.1f} s")
    step("go back to the release before, and forward again, without a network")
    for words in ((), ("--to", new)):
        done = pacball("rollback", "DemoStack", "--root", site, *words)
        print(f"   {done['release']} is current, in {done['seconds']:.1f} s")
    step("check the store")
    done = pacball("store", "check", "--store", store)
    print(
        f"   intact: {done['intact']}: {done['packs']} packs, {mb(done['bytes_read'])} read back, in {done['seconds']:.1f} s"
    )
    current = site / "current" / "DemoStack" / PLATFORM
    print(f"\n{current} -> {os.readlink(current)}\nThe store, the site and the keys are in {work}.")


def repair(name: str, site: Path, source: tuple[object, ...]) -> None:
    """Damage the largest file of an installed release, remove another one, and have both repaired."""
    step(f"flip one byte of {name} at the site, remove a file, and repair it")
    files = sorted((p for p in (site / "releases" / name).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    with files[-1].open("r+b") as file:
        file.seek(files[-1].stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    files[-2].unlink()
    done = pacball("verify", name, "--repair", *source, "--root", site)
    (mended,) = done["releases"]
    print(f"   {files[-1].name} and {files[-2].name} are whole again: {mb(mended['repaired']['bytes_downloaded'])} moved, "
          f"{mb(mended['repaired']['bytes_reused'])} from what is here, in {done['seconds']:.1f} s")  # fmt: skip


def pacball(*words: object) -> dict[str, Any]:
    """Run the command with --json; its result, with the seconds that it took."""
    command = [str(PACBALL), *map(str, words), "--json"]
    print(f"   $ pacball {' '.join(command[1:-1])}", flush=True)
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the command failed with exit code {done.returncode}")
    return {"seconds": time.monotonic() - started, **json.loads(done.stdout.splitlines()[-1])}


@contextmanager
def served(store: Path, keys: Path) -> Iterator[str]:
    """The store served by the daemon on a free port; the base URL."""
    step("serve the store; the daemon keeps its timestamp fresh")
    command = [str(PACBALL), "serve", "--store", str(store), "--listen", "127.0.0.1:0", "--json",
               "--online-keys", str(keys)]  # fmt: skip
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = daemon.stdout.readline() if daemon.stdout else ""
        if not line:
            sys.exit("the daemon did not start")
        yield json.loads(line)["url"]
    finally:
        daemon.terminate()
        daemon.wait(30)


def make_trees(work: Path) -> dict[str, Path]:
    """Two directories, one a version; made once and kept."""
    trees = {version: work / "trees" / version for version in STACKS}
    if all((work / f"{version}.complete").exists() for version in trees):
        return trees
    step("get two successive versions of a software stack with pip (once)")
    try:
        for version, requirements in STACKS.items():
            unpack(download(work / "wheels" / version, requirements), trees[version])
    except subprocess.CalledProcessError as error:
        print(f"   the wheels cannot be downloaded: {error.stderr.strip().splitlines()[-1:]}")
        print("   using this machine's Python installation instead")
        copy_python(trees)
    for version in trees:
        (work / f"{version}.complete").touch()
    return trees


def download(directory: Path, requirements: tuple[str, ...]) -> Path:
    """The wheels of `requirements`, in `directory`."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--python-version", "311", *platforms, "--dest", str(directory), *requirements],
        check=True, text=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    return directory


def unpack(wheels: Path, tree: Path) -> None:
    """All wheels of a directory, unpacked into one tree."""
    remove(tree)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree)


def copy_python(trees: dict[str, Path]) -> None:
    """The standard library as it is, and the same after compiling it: two versions that share most files."""
    library = sysconfig.get_path("stdlib")
    for number, tree in enumerate(trees.values()):
        remove(tree)
        shutil.copytree(library, tree, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        if number:
            compileall.compile_dir(tree, quiet=2)


def remove(tree: Path) -> None:
    """Remove a directory of an earlier run."""
    if tree.exists():
        shutil.rmtree(tree)


def step(text: str) -> None:
    """Announce what comes next."""
    print(f"\n== {text}", flush=True)


def mb(count: object) -> str:
    """Bytes in MB."""
    return f"{float(str(count)) / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
