"""Bounds of the daemon and of the client: what a stranger can make long, many or slow."""

from __future__ import annotations

from dataclasses import dataclass, field

from pacstore.limits import KIB, MIB


@dataclass(frozen=True)
class SyncLimits:
    """How releases are mirrored whole.

    `packs`: fetched at once, of all releases together. `look_seconds`: between looks at the ledger, where commands may have
    changed the subscriptions; `roster_seconds`: between looks at all releases, if nothing has changed. A release that failed is
    tried again after about `backoff_seconds`, twice as long after each further failure, at most `backoff_max_seconds`;
    `passing_backoff_max_seconds` where what failed was the way to it; then failures count anew once packs have come. `jitter`:
    the share by which that varies. After `stuck_attempts` failures somebody should look after it. `listed`: how many releases and
    subscriptions the status shows; `page`: how many releases one answer has, at most.
    """

    packs: int = 4
    look_seconds: float = 2.0
    roster_seconds: float = 60.0
    backoff_seconds: float = 15.0
    backoff_max_seconds: float = 3600.0
    passing_backoff_max_seconds: float = 60.0
    jitter: float = 0.25
    stuck_attempts: int = 3
    listed: int = 20
    page: int = 1_000


@dataclass(frozen=True)
class ReplicationLimits:
    """How a mirror follows the catalogs of its upstreams.

    `backoff_seconds`: the pause after a look that failed; each further failure doubles it, up to the time between looks.
    `least_seconds`: between two looks, whatever upstreams or clients ask for. `jitter`: the share by which pauses differ by
    chance.
    `tidy_seconds`: between two looks for superseded files, which are kept for `grace_seconds` after nothing names them any more.
    `whole_seconds`: after which all files here are read and compared again, so that damage to them is made good.
    `listed_sources`, `listed_faults`: how many of them status shows.
    """

    backoff_seconds: float = 1.0
    least_seconds: float = 0.25
    jitter: float = 0.2
    tidy_seconds: float = 600.0
    grace_seconds: float = 6 * 3600.0
    whole_seconds: float = 6 * 3600.0
    listed_sources: int = 64
    listed_faults: int = 20


@dataclass(frozen=True)
class EventLimits:
    """Bounds of those who listen for events, and of listening to an upstream.

    `listeners`: at once; `listeners_per_address`: of one address, trusted proxies and this machine apart. `queued`: events that
    one of them may be behind; `remembered`: that one who comes back is told.
    `write_seconds`: the longest that a listener may take for what it is sent. `look_seconds`: between two looks at the catalog
    while anybody listens. `keep_alive_seconds`: after which a comment is sent if there is no event.
    `retry_seconds`: what listeners are asked to wait before they come back.
    A stream of an upstream is dead after `silence_seconds` without a byte; another one is begun after `backoff_seconds`, twice
    as long each time, up to `backoff_max_seconds`; from an upstream that has no events after `no_events_seconds`.
    `event_characters`: of one event, at most; `stream_bytes` and then `stream_bytes_per_second`: of all together.
    """

    listeners: int = 256
    listeners_per_address: int = 32
    queued: int = 64
    remembered: int = 256
    write_seconds: float = 30.0
    look_seconds: float = 0.5
    keep_alive_seconds: float = 15.0
    retry_seconds: float = 2.0
    connect_seconds: float = 10.0
    silence_seconds: float = 50.0
    backoff_seconds: float = 1.0
    backoff_max_seconds: float = 60.0
    no_events_seconds: float = 600.0
    event_characters: int = 16 * KIB
    stream_bytes: int = 256 * KIB
    stream_bytes_per_second: int = 4 * KIB


@dataclass(frozen=True)
class CacheLimits:
    """Bounds of what a mirror fetches of packs, and of what it keeps in memory of them.

    `jobs`: ranges under way at once, of which `bulk_jobs` may be for nobody who waits at the other end of a connection;
    `flight_bytes`: of all of them together, less where the line brings less in `line_seconds`, but not less than
    `least_flight_bytes`. The first range of whoever begins to wait is one frame, each further one twice as
    long as the one before, up to `job_bytes`. `openings`: packs at once of which the table is fetched, by turns of the
    addresses that ask; further ones wait, of one address at most `openings_per_address`.
    `packs`: being filled at once; `idle_packs`: kept open while nobody wants anything of them.
    `tail_bytes`: asked for from the end of an unknown pack: of most packs this is the whole table, which may have `table_bytes`.
    `absent_seconds`: how long nobody asks again for a pack that is absent; `failed_seconds`: the same for all packs when no
    upstream can be reached, doubled with each failure in a row, up to `failed_max_seconds`.
    `kept_bytes`: of a range that breaks off, whole frames of at least so many bytes are kept, and only the rest is asked for.
    `remembered`: packs of which such is known. `wrong_times`: how often a frame, or table, may come wrong until that is the
    answer. `wait_seconds`: the longest that a client waits for its next frame.
    `record_seconds`: between two entries in the ledger of what is here.
    `memory_bytes`: of frames that cannot be written to a full or failing disk; `writers`: clients that are sent one of them at
    once; `ahead_frames`: how many are fetched before they are waited for; `disk_retry_seconds`: until the disk is tried again.
    """

    jobs: int = 8
    bulk_jobs: int = 6
    flight_bytes: int = 32 * MIB
    least_flight_bytes: int = 2 * MIB
    line_seconds: float = 1.0
    job_bytes: int = 4 * MIB
    openings: int = 8
    openings_per_address: int = 256
    packs: int = 1_024
    idle_packs: int = 128
    tail_bytes: int = 64 * KIB
    table_bytes: int = 32 * MIB
    absent_seconds: float = 3.0
    failed_seconds: float = 1.0
    failed_max_seconds: float = 5.0
    remembered: int = 4_096
    kept_bytes: int = 64 * KIB
    wrong_times: int = 4
    wait_seconds: float = 120.0
    record_seconds: float = 2.0
    memory_bytes: int = 32 * MIB
    writers: int = 48
    ahead_frames: int = 4
    disk_retry_seconds: float = 5.0


@dataclass(frozen=True)
class DocumentLimits:
    """Bounds of the documents that a mirror fetches because clients ask for them.

    `parallel`: at once; `flight_bytes`: of all of them together, unless one alone has more. `document_bytes`: of one, at most.
    `unkept_bytes`: of those that cannot be written to a full or failing disk, while clients are sent them, unless one alone has
    more.
    `waiting`: documents that are waited for. `wait_seconds`: the longest that a client waits for one. `refresh_seconds`: the
    longest that a client waits for a look at the upstreams' catalogs, which is made for clients every `refresh_pause_seconds`.
    `failed_seconds`: how long a failure is not tried again. `holdings_seconds`: how long an upstream's statement about a
    release counts, of which there are at most `remembered`.
    """

    parallel: int = 4
    flight_bytes: int = 64 * MIB
    document_bytes: int = 1024 * MIB
    unkept_bytes: int = 128 * MIB
    waiting: int = 1_024
    wait_seconds: float = 120.0
    refresh_seconds: float = 3.0
    refresh_pause_seconds: float = 5.0
    failed_seconds: float = 1.0
    holdings_seconds: float = 10.0
    remembered: int = 4_096


@dataclass(frozen=True)
class SweepLimits:
    """How a daemon collects what is unused, and keeps its quota.

    `first_seconds`: from its start to the first collection; `every_seconds`: between two. `look_seconds`: between two looks at
    how much packs take. Above the share `high` of the quota, packs leave until they take the share `low`. Where the disk is full
    without that, `full_disk_bytes` are freed at once.
    """

    first_seconds: float = 300.0
    every_seconds: float = 6 * 3600.0
    look_seconds: float = 3.0
    high: float = 0.95
    low: float = 0.90
    full_disk_bytes: int = 256 * MIB


@dataclass(frozen=True)
class ScrubLimits:
    """Bounds of the scrub.

    `first_pause_seconds`: after the daemon has started; `pause_seconds`: between the end of a pass and the next one.
    `look_seconds`: between looks at the hours of the day, and at a store that could not be read. `save_seconds`: how much of a
    pass may be read again after a kill. `retry_seconds`: when what could not be repaired is tried again, doubled while that is in
    vain up to `retry_max_seconds`. `listed`: damaged parts shown by the status.
    """

    first_pause_seconds: float = 60.0
    pause_seconds: float = 6 * 3600.0
    look_seconds: float = 30.0
    save_seconds: float = 5.0
    retry_seconds: float = 900.0
    retry_max_seconds: float = 6 * 3600.0
    listed: int = 100


@dataclass(frozen=True)
class PacballLimits:
    """Bounds of what is put together from packs while it is sent: pacballs, and files of releases.

    `assemblies`: at once; `assemblies_per_address`: of one address, this machine itself and trusted proxies apart; `decoding`:
    how many of them decode frames at the same time. Pieces are sent once they have `batch_bytes`, or are `batch_pieces`.
    `tick_seconds`: after which who waits for a reader looks whether the daemon stops.
    `opened_bytes`: of documents of releases that are kept open, unless one alone has more; `opened_seconds`: for how long after
    they were used last. `opening`: releases opened at once. `held_seconds`: how old the list of what is whole here may be.
    `look_seconds`: between looks for pacballs whose digests were not taken; `digests_wait_seconds`: how long somebody waits for
    them who asks for the beginning of a pacball; `hashed_bytes_per_second`: how fast they are guessed to be taken.
    `failed_seconds`: after which taking them is tried again. `digested_file_bytes`: the longest single file whose digests are
    taken when somebody asks for them; `file_digests`: of so many they are remembered. `listed`: entries of one page. Pages,
    metalinks and indexes of more than `unseated_bytes` are sent like what is put together, few at once.
    """

    assemblies: int = 32
    assemblies_per_address: int = 16
    decoding: int = 4
    batch_bytes: int = 1 * MIB
    batch_pieces: int = 512
    tick_seconds: float = 0.5
    opened_bytes: int = 128 * MIB
    opened_seconds: float = 300.0
    opening: int = 2
    held_seconds: float = 1.0
    look_seconds: float = 5.0
    digests_wait_seconds: float = 5.0
    hashed_bytes_per_second: int = 150_000_000
    failed_seconds: float = 300.0
    digested_file_bytes: int = 256 * MIB
    file_digests: int = 4_096
    listed: int = 10_000
    unseated_bytes: int = 64 * KIB


@dataclass(frozen=True)
class UploadLimits:
    """Bounds of publishing over HTTP, at the origin.

    `open`: unfinished uploads of all tokens, and `open_per_token`; `receiving`: pieces that are received at once,
    `receiving_per_token`: of one token; `verifying`: objects that are verified at once. `pack_bytes`, `document_bytes`: the
    longest pack, and manifest or attributes; `piece_bytes`: of one request; `change_bytes`: of the signed change; `asked_ids`:
    chunks in one question; `bodies_bytes`: of all bodies that are in memory, `bodies_bytes_per_token`: of one token's.
    `stall_seconds`: without a byte; a piece has as long, and its length divided by `min_bytes_per_second`. `write_bytes`: written
    at once. `wait_seconds`: how long a request waits for work that takes long, before it is answered that it goes on; `jobs`:
    such work at once, `jobs_per_token`: of one token. `lease_seconds`: how long what a client was told to be here is kept for it
    after its last request, `lease_most_seconds`: in all; `publications`: how many releases at once, and
    `publications_per_token`. `collect_seconds`: between looks for uploads that were left.
    """

    open: int = 1_024
    open_per_token: int = 64
    receiving: int = 64
    receiving_per_token: int = 16
    verifying: int = 2
    pack_bytes: int = 256 * MIB
    document_bytes: int = 2_048 * MIB
    piece_bytes: int = 64 * MIB
    change_bytes: int = 64 * MIB
    asked_ids: int = 16_384
    stall_seconds: float = 30.0
    min_bytes_per_second: int = 4 * KIB
    write_bytes: int = 1 * MIB
    wait_seconds: float = 20.0
    bodies_bytes: int = 128 * MIB
    bodies_bytes_per_token: int = 32 * MIB
    jobs: int = 16
    jobs_per_token: int = 8
    lease_seconds: float = 900.0
    lease_most_seconds: float = 86_400.0
    publications: int = 256
    publications_per_token: int = 64
    collect_seconds: float = 600.0


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the daemon.

    `connections`: open at once; further ones are told 503 and closed (a burst may pass it by `backlog`).
    `connections_per_address`: of one address, this machine itself and trusted proxies apart; further ones are told 429.
    `header_seconds`: from the opening of a connection, or the end of a request, until the next request's header is
    complete; it bounds idle connections and half-sent headers alike.
    `body_seconds`: how long the rest of an unasked-for request body is read and dropped before the connection is closed.
    `write_seconds`: the longest that a reader may take for each `write_bytes`, and that the kernel waits for a reader
    which acknowledges nothing.
    `drain_seconds`: how long requests in progress, and a refresh of the catalog, may take to end when the daemon stops.
    `catalog_pause_seconds`: the least time between two verifications of the catalog, however often it changes.
    `catalog_wait_seconds`: how long who asks for a catalog that has just changed waits for its verification, before the
    state before is the answer; `catalog_first_wait_seconds`: the same while there is no state yet.
    `catalog_retry_seconds`: when to look again at a catalog that did not verify and has not changed since.
    `watch_seconds`: the time between looks at the catalog, and at whether it is to be refreshed, if nobody asks.
    `refresh_backoff_seconds`: the pause after a refresh that failed; each further failure doubles it, up to
    `refresh_backoff_max_seconds`.
    `listed_roles`: how many roles status and metrics show, those that expire first. `sync`, `scrub`, `uploads`: see there.
    """

    connections: int = 2_000
    connections_per_address: int = 500
    backlog: int = 128
    header_seconds: float = 60.0
    body_seconds: float = 5.0
    header_line_bytes: int = 8 * KIB - 2
    header_fields: int = 100
    write_bytes: int = 1 * MIB
    write_seconds: float = 120.0
    drain_seconds: float = 30.0
    cached_digests: int = 4_096
    hashed_each_time_bytes: int = 64 * KIB
    catalog_pause_seconds: float = 1.0
    catalog_wait_seconds: float = 2.5
    catalog_first_wait_seconds: float = 30.0
    catalog_retry_seconds: float = 5.0
    watch_seconds: float = 60.0
    refresh_backoff_seconds: float = 60.0
    refresh_backoff_max_seconds: float = 3600.0
    listed_roles: int = 1_000
    events: EventLimits = field(default_factory=EventLimits)
    replication: ReplicationLimits = field(default_factory=ReplicationLimits)
    documents: DocumentLimits = field(default_factory=DocumentLimits)
    sync: SyncLimits = field(default_factory=SyncLimits)
    cache: CacheLimits = field(default_factory=CacheLimits)
    sweep: SweepLimits = field(default_factory=SweepLimits)
    scrub: ScrubLimits = field(default_factory=ScrubLimits)
    pacballs: PacballLimits = field(default_factory=PacballLimits)
    uploads: UploadLimits = field(default_factory=UploadLimits)


@dataclass(frozen=True)
class ClientLimits:
    """Bounds of `HttpSource`.

    `parallel`: ranges fetched at once by one iterator, or held in memory before the caller takes them.
    `connect_seconds`: for one connection; `stall_seconds`: without a single byte.
    `answer_seconds`: until an answer's header is there; its body then has as long again plus its length divided by
    `min_bytes_per_second`.
    `attempts`: requests for one thing before it is Unavailable, with pauses of about `backoff_seconds`, twice as long
    each time, at most `backoff_max_seconds`; a server may ask for at most `retry_after_seconds`. A request that brings at
    least `continued_bytes` before it breaks off is continued there, and not counted; also one that stalls, unless
    `continues_after_stall` is false.
    """

    parallel: int = 4
    connect_seconds: float = 15.0
    stall_seconds: float = 30.0
    answer_seconds: float = 60.0
    min_bytes_per_second: int = 64 * KIB
    attempts: int = 4
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 10.0
    retry_after_seconds: float = 60.0
    range_bytes: int = 256 * MIB
    continued_bytes: int = 64 * KIB
    continues_after_stall: bool = True
    read_buffer_bytes: int = 1 * MIB
    throttled_buffer_bytes: int = 64 * KIB


LIST_LIMITS = ClientLimits(
    connect_seconds=5.0, stall_seconds=10.0, answer_seconds=20.0, attempts=1, continues_after_stall=False
)
"""For each `HttpSource` of a list: it is asked once, since then others can be."""


@dataclass(frozen=True)
class MirrorLimits:
    """How work is spread over sources, and how a source that does it badly is treated.

    `connections`: ranges asked of one source at once. `flight_bytes`: of all ranges together that one iterator has asked
    for and its caller has not taken. A source is asked for as much at once as it brings in `line_seconds`, in ranges of
    `least_range_bytes` to `most_range_bytes`; the first, of one that was not measured yet, has `first_range_bytes`.
    `look_ahead`: ranges taken from the caller that wait for a source which has their packs.
    `attempts`: failures in a row, while nothing comes from any source, after which one is given up for what is asked now; but
    once ranges have come, not before nothing has for `patience_seconds`.
    `pause_seconds`: how long one that failed is left alone; each further failure doubles it, up to `pause_max_seconds`, but
    only `drought_pause_seconds` while nothing comes from any other. `slow_pause_seconds`, `refused_pause_seconds`,
    `wrong_pause_seconds`: the same for one that is slow, denies or redirects, or gave wrong bytes.
    `quiet_seconds`: without a byte, after which it is dropped, or another is asked too, if that has nothing to do;
    `stalled_seconds`: after which it is dropped in any case.
    A source is slow if it brings less than `slow_bytes_per_second`, or less than `slow_share` of the fastest and under
    `fair_bytes_per_second`, over `slow_after_seconds`. `copies`: of one thing, asked of several sources at once.
    """

    connections: int = 4
    flight_bytes: int = 16 * MIB
    line_seconds: float = 3.0
    least_range_bytes: int = 256 * KIB
    first_range_bytes: int = 1 * MIB
    most_range_bytes: int = 8 * MIB
    look_ahead: int = 64
    attempts: int = 4
    patience_seconds: float = 30.0
    pause_seconds: float = 0.5
    pause_max_seconds: float = 60.0
    drought_pause_seconds: float = 5.0
    slow_pause_seconds: float = 15.0
    refused_pause_seconds: float = 60.0
    wrong_pause_seconds: float = 120.0
    longest_pause_seconds: float = 1800.0
    quiet_seconds: float = 2.0
    stalled_seconds: float = 10.0
    slow_bytes_per_second: int = 16 * KIB
    slow_share: float = 1 / 32
    fair_bytes_per_second: int = 1 * MIB
    slow_after_seconds: float = 5.0
    copies: int = 3


def alone(connections: int) -> MirrorLimits:
    """The limits of a source that has no others beside it: it counts its attempts itself, and is never left alone."""
    return MirrorLimits(
        connections=connections,
        attempts=1,
        patience_seconds=0,
        pause_seconds=0,
        pause_max_seconds=0,
        drought_pause_seconds=0,
        slow_pause_seconds=0,
        refused_pause_seconds=0,
        wrong_pause_seconds=0,
    )


UPSTREAM_LIMITS = MirrorLimits(
    attempts=3, patience_seconds=10.0, drought_pause_seconds=0.5, flight_bytes=32 * MIB, connections=8
)
"""For the upstreams and peers of a mirror: its own clients wait, and do not wait for long."""
