#!/bin/sh
# A software release as one self-installing file: a pacball, stub 1. In an empty directory, run:  sh FILE
# It needs a shell, tar, and sha256sum or openssl; no network. What it can do:  sh FILE --help
release='@RELEASE@'
tree='@TREE@'
sha256='@SHA256@'
stub_bytes=@STUB_BYTES@
payload_bytes=@PAYLOAD_BYTES@
whole_bytes=@WHOLE_BYTES@
whole_mib=@WHOLE_MIB@
files=@FILES@
disk_mb=@DISK_MB@

usage() {
    cat <<EOF
$release, $files files, $payload_bytes bytes

usage: sh FILE [--prefix DIR] [PART]...     install all of it, or only the PARTs
       sh FILE --verify [--prefix DIR]      compare what is installed with this file
       sh FILE --list                       name what is inside
       sh FILE --check                      only see whether this file is undamaged
       sh FILE --info                       name, tree digest, sizes

It installs into the current directory, or into DIR, which is made if need be. There must be nothing in it but this
file. A PART is a top-level directory, a path, or a pattern such as 'lib/*.so'. Everything is compared with the
digest in this file before it is moved to its place. What was interrupted leaves nothing behind: run it again.
Exit codes: 0 done, 1 --verify found differences, 2 usage, 3 no such PART, 4 this file is damaged,
6 the disk or a tool failed, 7 refused, 130 interrupted.
EOF
}

say() { printf '%s\n' "$*" >&2; }

fail() {
    failed=$1
    shift
    say "pacball: $*"
    leave "$failed"
}

# Whatever happens, what was begun is removed. Removing $work is also how the reader is told to stop.
leave() {
    trap '' INT TERM HUP
    [ -z "$work" ] || rm -rf "$work"
    [ -z "$hasher" ] || kill "$hasher" 2>/dev/null
    wait
    [ -z "$stage" ] || rm -rf "$stage"
    exit "$1"
}

sum() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum
    elif command -v openssl >/dev/null 2>&1; then
        openssl dgst -sha256 -r
    else
        shasum -a 256
    fi
}

show() {
    [ -t 2 ] && [ -z "$quiet" ] || return 0
    now=$(date +%s)
    seconds=$((now - began))
    [ "$seconds" -gt 0 ] || seconds=1
    rate=$((done_mib / seconds))
    left=
    [ "$rate" -eq 0 ] || left=", $(((whole_mib - done_mib) / rate)) s left"
    printf '\r%3d %%  %d of %d MiB, %d MiB/s%s    ' $((done_mib * 100 / whole_mib)) "$done_mib" "$whole_mib" "$rate" "$left" >&2
}

# The payload. It is read by many short dd, each from where the one before it ended, so that progress can be shown.
feed() {
    exec 5<"$self" || exit 1
    dd bs="$stub_bytes" count=1 <&5 >/dev/null 2>&1
    step=$((whole_mib / 100 + 1))
    done_mib=0
    began=$(date +%s)
    while [ "$done_mib" -lt "$whole_mib" ]; do
        [ -d "$work" ] || exit 1
        dd bs=1048576 count="$step" <&5 2>/dev/null || { say "cannot read $self"; exit 1; }
        done_mib=$((done_mib + step))
        [ "$done_mib" -le "$whole_mib" ] || done_mib=$whole_mib
        show
    done
    [ ! -t 2 ] || [ -n "$quiet" ] || printf '\r%78s\r' '' >&2
}

# through COMMAND...: the payload through a command, while its digest is taken; the command's exit code is in $code.
through() {
    rm -f "$work/pipe"
    mkfifo "$work/pipe" || fail 6 "cannot make a pipe in $work: set TMPDIR to a local directory"
    sum <"$work/pipe" >"$work/sum" &
    hasher=$!
    # In the background, so that a signal is heard at once and not only when tar has ended. What tar leaves unread is read.
    { feed | tee "$work/pipe" | {
        "$@"
        code=$?
        cat >/dev/null
        exit "$code"
    }; } &
    wait $!
    code=$?
    wait "$hasher"
    hasher=
    read -r found rest <"$work/sum" || found=
    [ "$found" = "$sha256" ] || fail 4 "$self is damaged: SHA-256 of its payload is $found, and must be $sha256: fetch it again"
}

find_self() {
    case $0 in
        /*) self=$0 ;;
        *) self=$PWD/$0 ;;
    esac
    [ -f "$self" ] || fail 7 "cannot find the file that it is in: save it, and run: sh FILE"
    [ -r "$self" ] || fail 6 "cannot read $self"
    [ -n "$(find -L "$self" -prune -size "${whole_bytes}c" 2>/dev/null)" ] ||
        fail 4 "$self is not whole: it must have $whole_bytes bytes: fetch it again, or go on with what is missing"
}

need_tools() {
    for tool in tar dd tee mkfifo mktemp find sed sort uniq cmp; do
        command -v "$tool" >/dev/null 2>&1 || fail 6 "needs $tool, which is not here"
    done
    command -v sha256sum >/dev/null 2>&1 || command -v openssl >/dev/null 2>&1 || command -v shasum >/dev/null 2>&1 ||
        fail 6 "needs sha256sum, openssl or shasum, and none is here"
    case $(tar --version 2>/dev/null) in
        *"GNU tar"*) gnu=1 ;;
        *) gnu= ;;
    esac
    work=$(mktemp -d "${TMPDIR:-/tmp}/pacball.XXXXXX") || fail 6 "cannot write to ${TMPDIR:-/tmp}: set TMPDIR"
}

# What stands in the target: everything but this file, and what attempts that were killed have left, which is removed.
look_at_target() {
    for path in "$target"/* "$target"/.[!.]* "$target"/..?*; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        case $path in
            "$target"/.pacball-install.*) take_over "$path" && continue ;;
        esac
        [ "$path" -ef "$self" ] && continue
        fail 7 "$target is not empty ($path): name another directory with --prefix"
    done
}

take_over() {
    who=${1##*/.pacball-install.}
    [ "${who%.*}" = "$host" ] || fail 7 "$1 is being installed from another machine, or was left by it: remove it if not"
    ! kill -0 "${who##*.}" 2>/dev/null || fail 7 "$1 is being installed by process ${who##*.}"
    rm -rf "$1"
}

check_disk() {
    set -- $(df -Pk "$target" 2>/dev/null | sed -n '$p')
    free=${4:-}
    case $free in
        '' | *[!0-9]*) return 0 ;;
    esac
    # In thousands of KiB: some shells count to 2^31 only.
    free=${free%???}
    [ "${free:-0}" -ge "$disk_mb" ] || fail 6 "not enough disk for $target: $disk_mb MB are needed, ${free:-0} MB are free"
}

# unpack OPTIONS PART...: tar with what its kind needs to take patterns; names are never quoted.
unpack() {
    options=$1
    shift
    if [ -z "$gnu" ]; then
        tar "$options" - -- "$@"
    elif [ $# -eq 0 ]; then
        tar "$options" - --quoting-style=literal
    else
        tar "$options" - --quoting-style=literal --wildcards --anchored --wildcards-match-slash -- "$@"
    fi
}

# busybox finds what a pattern means, and then says that it found nothing of that name.
extract() {
    cd "$1" || return 6
    shift
    unpack -xof "$@" 2>"$work/said"
    unpacked=$?
    sed '/: not found in archive$/d' "$work/said" >"$work/complaints"
    cat "$work/complaints" >&2
    [ -s "$work/complaints" ] || return 0
    return "$unpacked"
}

names_to() { unpack -tf | sed 's,/$,,' | sort >"$1"; }

matches() {
    name=$1
    shift
    for part do
        case $name in
            $part | $part/*) return 0 ;;
        esac
    done
    return 1
}

# Which of the PARTs is not there, before anything is written.
look_for() {
    [ $# -gt 0 ] || return 0
    through names_to "$work/names"
    for wanted do
        while IFS= read -r name; do
            ! matches "$name" "$wanted" || continue 2
        done <"$work/names"
        fail 3 "nothing in $release is named $wanted: --list tells what is inside"
    done
}

# Of this file system alone where sync can do that: another one may hang.
make_durable() { sync -f "$target" 2>/dev/null || sync; }

install_it() {
    mkdir -p "$target" || fail 6 "cannot make $target"
    target=$(cd "$target" && pwd) || fail 6 "cannot enter $target"
    host=$(uname -n)
    look_at_target
    look_for "$@"
    [ $# -gt 0 ] || check_disk
    mkdir "$target/.pacball-install.$host.$$" || fail 6 "cannot write to $target"
    stage=$target/.pacball-install.$host.$$
    through extract "$stage" "$@"
    [ "$code" -eq 0 ] || fail 6 "tar failed (see above): a full disk, or a part with a hard link to what is not in it?"
    make_durable
    trap '' INT TERM HUP
    for path in "$stage"/* "$stage"/.[!.]* "$stage"/..?*; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        mv "$path" "$target/" || fail 6 "could not move $path to $target"
    done
    make_durable
    rm -rf "$stage"
    stage=
    say "$release is in $target"
}

# Differences as GNU tar names them. Owners are the installer's; times are no part of what is verified.
compare_with_tar() {
    unpack -df "$@" 2>&1 | sed -n \
        -e '/: [UG]id differs$/d' -e '/: Mod time differs$/d' \
        -e 's/^tar: \(.*\): Warning: Cannot stat: No such file or directory$/missing: \1/p;t' \
        -e 's/^tar: \(.*\): Warning: Cannot stat: Not a directory$/missing: \1/p;t' \
        -e 's/^\(.*\): \(Contents differ\|Size differs\)$/damaged: \1/p;t' \
        -e 's/^\(.*\): Mode differs$/wrong mode: \1/p;t' \
        -e 's/^\(.*\): Symlink differs$/wrong link target: \1/p;t' \
        -e 's/^\(.*\): File type differs$/of another type: \1/p;t' \
        -e p >>"$work/differences"
}

# Where tar cannot compare: what is inside is unpacked beside, and compared file by file.
compare_with_cmp() {
    (cd "$work/tree" && find . -mindepth 1 | sed 's,^\./,,' | sort) >"$work/names"
    while IFS= read -r name; do
        is=$target/$name
        must=$work/tree/$name
        if [ ! -e "$is" ] && [ ! -L "$is" ]; then
            printf '%s\n' "missing: $name"
        elif [ -L "$must" ]; then
            [ -L "$is" ] && [ "$(readlink "$is")" = "$(readlink "$must")" ] || printf '%s\n' "wrong link target: $name"
        elif [ -L "$is" ]; then
            printf '%s\n' "of another type: $name"
        elif [ -d "$must" ]; then
            [ -d "$is" ] || printf '%s\n' "of another type: $name"
        elif [ ! -f "$is" ]; then
            printf '%s\n' "of another type: $name"
        elif ! cmp -s "$is" "$must"; then
            printf '%s\n' "damaged: $name"
        elif [ -n "$(find "$is" -perm -100)" ] && [ -z "$(find "$must" -perm -100)" ]; then
            printf '%s\n' "wrong mode: $name"
        elif [ -z "$(find "$is" -perm -100)" ] && [ -n "$(find "$must" -perm -100)" ]; then
            printf '%s\n' "wrong mode: $name"
        fi
    done <"$work/names" >>"$work/differences"
}

find_extra() {
    (cd "$target" && find . -mindepth 1 | sed 's,^\./,,' | sort) >"$work/here"
    sort "$work/names" "$work/names" "$work/here" | uniq -u | while IFS= read -r name; do
        [ "$target/$name" -ef "$self" ] || printf '%s\n' "extra: $name"
    done >>"$work/differences"
}

verify() {
    target=$(cd "$target" && pwd) || fail 3 "$target is not there"
    : >"$work/differences"
    look_for "$@"
    if [ -n "$gnu" ]; then
        cd "$target" || fail 6 "cannot enter $target"
        through compare_with_tar "$@"
        [ $# -gt 0 ] || through names_to "$work/names"
    else
        mkdir "$work/tree"
        through extract "$work/tree" "$@"
        [ "$code" -eq 0 ] || fail 6 "tar failed (see above): is $work full? Set TMPDIR to where there is room"
        compare_with_cmp
    fi
    [ $# -gt 0 ] || find_extra
    cat "$work/differences"
    [ ! -s "$work/differences" ] || { say "$target is not as $release must be"; leave 1; }
    say "$target is as $release must be"
}

list() {
    quiet=1
    look_for "$@"
    [ $# -gt 0 ] || through names_to "$work/names"
    while IFS= read -r name; do
        [ $# -gt 0 ] && ! matches "$name" "$@" || printf '%s\n' "$name"
    done <"$work/names"
}

info() {
    printf '%s\n' "release: $release" "tree digest: $tree" "files: $files" "payload: $payload_bytes bytes from byte $stub_bytes" \
        "payload sha256: $sha256" "disk: $disk_mb MB"
}

main() {
    set -u
    LC_ALL=C
    export LC_ALL
    # What could lead cd and tar elsewhere.
    unset CDPATH TAR_OPTIONS TAPE
    umask 022
    work= stage= hasher= quiet= command=install target=.
    trap 'leave 130' INT
    trap 'leave 143' TERM
    trap 'leave 129' HUP
    for argument do
        shift
        if [ "$command" = prefix ]; then
            target=$argument command=$wanted
            continue
        fi
        case $argument in
            --prefix) wanted=$command command=prefix ;;
            --prefix=*) target=${argument#--prefix=} ;;
            --verify | --list | --check | --info | --help) command=${argument#--} ;;
            -h) command=help ;;
            -*) fail 2 "$argument is not an option: see --help" ;;
            *)
                argument=${argument#./}
                set -- "$@" "${argument%/}"
                ;;
        esac
    done
    case $command in
        help) usage && exit 0 ;;
        info) info && exit 0 ;;
        prefix) fail 2 "--prefix needs a directory" ;;
    esac
    [ -n "$target" ] || fail 2 "--prefix needs a directory"
    find_self
    need_tools
    case $command in
        install) install_it "$@" ;;
        verify) verify "$@" ;;
        list) list "$@" ;;
        check)
            through cat >/dev/null
            say "$self is undamaged"
            ;;
    esac
    leave 0
}

main "$@"
exit 70
