#!/usr/bin/env bash
# Install the service on this machine, under systemd; run it again to upgrade its units:
#
#   install.sh [--workers N | --gpus N] [--postgresql] [--prometheus] [--root FOLDER]
#
# tomoseg itself stands in /opt/tomoseg (deploy/README.md says how). --root stages the files in a
# folder and touches nothing else: no user, no database, no service.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

workers=1
kind=worker
postgresql=
prometheus=
root=
while [ $# -gt 0 ]; do
  case $1 in
    --workers) kind=worker workers=$2; shift 2 ;;
    --gpus) kind=gpu-worker workers=$2; shift 2 ;;
    --postgresql) postgresql=yes; shift ;;
    --prometheus) prometheus=yes; shift ;;
    --root) root=${2%/}; shift 2 ;;
    *) sed -n 's/^#   //p' "$0" >&2; exit 2 ;;
  esac
done
if ! [[ $workers =~ ^([1-9]|10)$ ]]; then
  echo "error: $workers workers: the units give ports to 1 to 10" >&2
  exit 2
fi
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
  echo "error: only root installs services; --root FOLDER shows what would be written" >&2
  exit 2
fi
if [ -z "$root" ] && [ ! -x /opt/tomoseg/bin/tomoseg ]; then
  echo "error: there is no /opt/tomoseg/bin/tomoseg: install it first, see deploy/README.md" >&2
  exit 2
fi

etc=$root/etc/tomoseg
units=$root/etc/systemd/system
install -d -m 755 "$etc" "$units/tomoseg-.service.d"
install -m 644 "$here/../common.env" "$here/workstation.env" "$etc"
install -m 644 "$here"/systemd/*.{service,target} "$units"
install -m 644 "$here/systemd/tomoseg-.service.d/every.conf" "$units/tomoseg-.service.d"
"$here/../credentials.sh" "$etc/credentials" /etc/tomoseg/credentials
if [ -n "$postgresql" ]; then
  install -m 644 "$here/database.env" "$etc"
fi
if [ -n "$prometheus" ]; then
  cp -r --no-preserve=ownership "$here/../monitoring" "$etc"
fi
if [ -n "$root" ]; then
  exit 0
fi

getent passwd tomoseg >/dev/null ||
  useradd --system --home-dir /var/lib/tomoseg --shell /usr/sbin/nologin tomoseg
chown -R tomoseg: "$etc/credentials"
# Services show certificates; only root makes new ones.
chown root: "$etc/credentials/ca-key.pem"
if [ -n "$postgresql" ]; then
  runuser -u postgres -- psql -qtAc "SELECT 1 FROM pg_roles WHERE rolname = 'tomoseg'" | grep -q 1 ||
    runuser -u postgres -- createuser tomoseg
  runuser -u postgres -- psql -qtAc "SELECT 1 FROM pg_database WHERE datname = 'tomoseg'" |
    grep -q 1 || runuser -u postgres -- createdb --owner tomoseg tomoseg
fi
systemctl daemon-reload
systemctl enable --now tomoseg.target
for number in $(seq 0 $((workers - 1))); do
  systemctl enable --now "tomoseg-$kind@$number.service"
done
if [ -n "$prometheus" ]; then
  systemctl enable --now tomoseg-prometheus.service
fi
echo "write /etc/tomoseg/watch.yaml, then: systemctl restart tomoseg-watch"
echo "http://127.0.0.1:4200, user tomoseg, password in $etc/credentials/prefect-password"
