#!/usr/bin/env bash
# Make the secrets of compose.yaml in secrets/ beside it; what is there is kept. As root, because
# the containers' user 10001 must read the certificates, and nobody else.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
secrets=${1:-$here/secrets}
umask 077
mkdir -p "$secrets"

"$here/../credentials.sh" "$secrets/credentials" /run/credentials
# The authority's key stays outside of all containers.
mkdir -p "$secrets/seen"
cp "$secrets"/credentials/{ca,scheduler,worker,client}.pem \
  "$secrets"/credentials/{scheduler,worker,client}-key.pem "$secrets/seen"
# Where Prometheus finds the parts from within its container.
sed -e 's/127\.0\.0\.1:8787/scheduler:8787/' -e 's/127\.0\.0\.1:9108/watch:9108/' \
  "$here/../monitoring/prometheus.yml" >"$secrets/prometheus.yml"
chmod 644 "$secrets/prometheus.yml"

once() {
  [ -s "$secrets/$1" ] || cat >"$secrets/$1"
}
word() {
  openssl rand -hex 24
}
password=$(word)
once postgres.env <<EOF
POSTGRES_PASSWORD=$password
PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://tomoseg:$password@postgres/tomoseg
EOF
password=$(word)
once s3.env <<EOF
AWS_ACCESS_KEY_ID=tomoseg
AWS_SECRET_ACCESS_KEY=$password
MINIO_ROOT_USER=tomoseg
MINIO_ROOT_PASSWORD=$password
EOF
once grafana.env <<EOF
GF_SECURITY_ADMIN_PASSWORD=$(word)
EOF
if [ "$(id -u)" = 0 ]; then
  chown -R 10001:10001 "$secrets/seen"
else
  echo "run once as root: chown -R 10001:10001 $secrets/seen"
fi
