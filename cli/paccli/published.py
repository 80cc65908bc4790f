"""Saying what a publish has done, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paccli.output import Output, fields, size

if TYPE_CHECKING:
    from pacstore.publish import Published


def print_published(
    output: Output, done: Published, seconds: float, digests: dict[str, object], *, keep_stream: bool
) -> None:
    """What was published, where to find its pacball (`digests`), and what it waits for; all of it, too, for programs."""
    for key in done.created_keys:
        output.note(f"pacball: made the key {key}")
    if done.existed:
        output.text(f"{done.release} was published before, with this very tree {done.tree_digest}")
        _print_waiting(output, done)
    else:
        output.text(f"published {done.release}: {done.files} files, {size(done.bytes_total)}, tree {done.tree_digest}")
        rewritten = f", {size(done.bytes_rewritten)} stored again" if done.bytes_rewritten else ""
        _print_waiting(output, done)
        sent = getattr(done, "bytes_sent", None)
        if sent is not None:
            output.text(f"  {size(sent)} sent")
        output.text(f"  {size(done.bytes_new)} new{rewritten}; {size(done.bytes_stored)} in new packs; {seconds:.1f} s")
        _print_original(output, done, keep_stream=keep_stream)
    if digests:
        output.text(f"  pacball: {digests['pacball']}")
        output.text(f"  sha256 {digests['sha256']}, md5 {digests['md5']}, adler32 {digests['adler32']}")
    output.result({**fields(done), **digests, "seconds": round(seconds, 3)})


def _print_waiting(output: Output, done: Published) -> None:
    if not done.waiting:
        return
    if hasattr(done, "bytes_sent"):
        # Only who has the store there sees what waits; nothing is left to do here.
        output.text("  it waits there for signatures, or to be committed: until then nobody can install it")
        output.text("  its operator sees for whom: pacball trust status --store STORE")
    else:
        output.text("  it waits for signatures, or for the origin: pacball trust status --store STORE")


def _print_original(output: Output, done: Published, *, keep_stream: bool) -> None:
    if not done.original:
        return
    output.text(f"  {done.original} is given back by: pacball fetch {done.release} --original")
    if done.opaque_bytes:
        why = "as asked for" if keep_stream else "nothing was found that makes it again"
        output.text(f"  its stream is kept as it is, {size(done.opaque_bytes)}: {why}")
        return
    made = f"; its stream is made again by {done.recompression}" if done.recompression else ""
    output.text(f"  beside its files it has {size(done.original_bytes)}, {size(done.original_new)} of them new{made}")
