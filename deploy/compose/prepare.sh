#!/usr/bin/env bash
# Make what compose.yaml reads in local/ beside it, or in a folder: secrets, and the watch's file for
# you to change. What is there is kept. As root, because the containers' user 10001 must read the
# certificates, and nobody else.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place=${1:-$here/local}
umask 077
mkdir -p "$place"

"$here/../credentials.sh" "$place/credentials" /run/credentials
# The authority's key stays outside of all containers.
mkdir -p "$place/seen"
cp "$place"/credentials/{ca,scheduler,worker,client}.pem \
  "$place"/credentials/{scheduler,worker,client}-key.pem "$place/seen"
# Where Prometheus finds the parts from within its container.
sed -e 's/127\.0\.0\.1:8787/scheduler:8787/' -e 's/127\.0\.0\.1:9108/watch:9108/' \
  "$here/../monitoring/prometheus.yml" >"$place/prometheus.yml"
chmod 644 "$place/prometheus.yml"

once() {
  [ -s "$place/$1" ] || cat >"$place/$1"
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
once watch.yaml <<'EOF'
sessions: s3://sessions/*
output: s3://results/{session}
EOF
chmod 644 "$place/watch.yaml"
if [ "$(id -u)" = 0 ]; then
  chown -R 10001:10001 "$place/seen"
else
  echo "run once as root: chown -R 10001:10001 $place/seen"
fi
