#!/usr/bin/env bash
# Install the programs that some tests start: a browser, and PostgreSQL with pgvector. It needs Debian's or Ubuntu's
# apt-get and root. It never fails: tests of a program that is not there are skipped and say so.
set -u
export DEBIAN_FRONTEND=noninteractive

has_browser() {
  command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable \
    || command -v chrome
} >/dev/null
has_postgresql() { command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
has_pgvector() { ls /usr/share/postgresql/*/extension/vector.control >/dev/null 2>&1; }
install() { timeout 600 apt-get install --quiet --quiet --yes --no-install-recommends "$@" >/dev/null; }

if has_browser && has_postgresql && has_pgvector; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && timeout 300 apt-get --quiet --quiet update; then
  has_browser || install chromium fonts-dejavu-core
  # The tests start servers of their own, so Debian need not make a database.
  settings=/etc/postgresql-common
  has_postgresql || [ -e $settings/createcluster.conf ] || {
    mkdir -p $settings && echo "create_main_cluster = false" >$settings/createcluster.conf
  }
  has_postgresql || install postgresql
  has_pgvector || install "postgresql-$(ls /usr/lib/postgresql | sort -n | tail -n 1)-pgvector"
fi
has_browser || echo "There is no browser: the tests of pages are skipped (apt-get install chromium)."
has_postgresql || echo "PostgreSQL is not installed: its tests are skipped (apt-get install postgresql)."
has_pgvector || echo "pgvector is not installed: its tests are skipped (apt-get install postgresql-15-pgvector)."
exit 0
