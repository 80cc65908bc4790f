#!/bin/sh
# Makes what tests/peers/rucio/server.py starts, once: a venv with the Rucio server, one with Rucio's own client programs, and a
# PostgreSQL directory in which Rucio's tables are. Prints the directory. Debian; needs PostgreSQL, and root or a user that may run it.
# A stamp is written last: what was half made, or whose Python or PostgreSQL has gone, is made again. Another recipe, that is, another
# version of this file, has a place of its own, so that nobody is disturbed; places that are not used any more may be deleted.
set -eu
VERSION=41.5.1
cache=${PACBALL_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pacball-tests}
recipe=$(sha256sum < "$0" | cut -c -12)
place=$cache/rucio-$VERSION-$recipe
mkdir -p "$cache"
exec 9> "$place.lock"
flock 9
if [ -e "$place/complete" ] && [ -x "$place/server/bin/python" ] && [ -x "$place/client/bin/python" ] && [ -x "$(cat "$place/postgres")/postgres" ]; then
    echo "$place"
    exit 0
fi
echo "rucio/install.sh: installing Rucio $VERSION in $place (once; about two minutes)" >&2
rm -rf "$place"
mkdir -p "$place/home/etc"
said() { "$@" > "$place/$1.log" 2>&1 || { cat "$place/$1.log" >&2; exit 1; }; }

server() {
    "${PYTHON:-python3}" -m venv "$place/server"
    "$place/server/bin/pip" install -q --disable-pip-version-check "rucio==$VERSION" 'gunicorn>=23,<27' 'psycopg[binary]>=3.2,<4'
}
client() {
    "${PYTHON:-python3}" -m venv "$place/client"
    "$place/client/bin/pip" install -q --disable-pip-version-check "rucio-clients==$VERSION"
}
said client &
said server
wait $!

# PostgreSQL refuses to run as root, and its user cannot enter root's directories: the database is made below /tmp.
postgres=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
work=$(mktemp -d /tmp/pacball-rucio-install-XXXXXX)
as=
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$work"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups --"
fi
in_postgres() { (cd "$work" && $as "$postgres/$@"); }
trap 'in_postgres pg_ctl -D "$work/data" -m immediate stop > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
database() {
    in_postgres initdb -D "$work/data" -A trust -U rucio -E UTF8 --no-locale --no-sync
    in_postgres pg_ctl -D "$work/data" -l "$work/log" -w -o "-k $work -c listen_addresses= -c fsync=off" start
    in_postgres createdb -h "$work" -U rucio rucio
}
said database
url="postgresql+psycopg://rucio@/rucio?host=$work"
packages=$(ls -d "$place"/server/lib/python3.*/site-packages)
cat > "$place/home/etc/rucio.cfg" <<C
[common]
logdir = $work
loglevel = WARNING
mailtemplatedir = $place/server/rucio/etc/mail_templates
[database]
default = $url
[alembic]
cfg = $place/home/etc/alembic.ini
[bootstrap]
userpass_identity = ddmlab
userpass_pwd = secret
userpass_email = ddmlab@localhost
[policy]
permission = generic
schema = generic
C
sed -e "s#^script_location.*#script_location = $packages/rucio/db/sqla/migrate_repo/#" -e "s#^sqlalchemy.url=.*#sqlalchemy.url=$url#" \
    -e '/^version_table_schema/d' -e '/^default = /d' "$place/server/rucio/etc/alembic.ini.template" > "$place/home/etc/alembic.ini"
bootstrap() { RUCIO_HOME="$place/home" "$place/server/bin/python" "$place/server/rucio/tools/bootstrap.py"; }
said bootstrap
in_postgres pg_ctl -D "$work/data" -m fast -w stop > /dev/null
cp -R "$work/data" "$place/database"
echo "$postgres" > "$place/postgres"
touch "$place/complete"
echo "$place"
