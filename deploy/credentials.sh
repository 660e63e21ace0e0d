#!/usr/bin/env bash
# Make what a deployment's processes show each other, and renew what expires within 30 days:
#
#   credentials.sh FOLDER [SEEN_AT]
#
# FOLDER/ca.pem, ca-key.pem              a certificate authority of this deployment alone, 10 years
# FOLDER/{scheduler,worker,client}.pem   certificates with keys NAME-key.pem, 1 year
# FOLDER/tls.env                         where Dask finds them: under SEEN_AT, FOLDER unless given
# FOLDER/prefect-server.env, prefect-client.env, prefect-password   the login of user tomoseg
#
# Whoever holds a certificate of this authority may run code on scheduler and workers: Dask looks at
# the authority, not at names. Keep ca-key.pem where no worker runs. What is there and lasts is left
# as it is, so run it monthly; restart the processes of a certificate that it renewed.
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "usage: $0 FOLDER [SEEN_AT]" >&2
  exit 2
fi
umask 077
mkdir -p "$1"
folder=$(cd "$1" && pwd)
seen_at=${2:-$folder}
keep_days=30
chmod 700 "$folder"

lasts() {
  [ -s "$folder/$1.pem" ] && [ -s "$folder/$1-key.pem" ] &&
    openssl x509 -in "$folder/$1.pem" -noout -checkend $((keep_days * 86400)) >/dev/null
}

key() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

authority() {
  key "$folder/ca-key.pem"
  openssl req -x509 -new -key "$folder/ca-key.pem" -out "$folder/ca.pem" -days 3650 \
    -subj "/CN=tomoseg $(openssl rand -hex 4)" \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign
  # Certificates of another authority would be refused.
  rm -f "$folder"/{scheduler,worker,client}.pem
  echo "new authority: give its ca.pem and new certificates to every process"
}

# A new certificate is complete before it takes its place.
certificate() {
  key "$folder/$1-key.new"
  openssl req -new -key "$folder/$1-key.new" -subj "/CN=$1" |
    openssl x509 -req -days 365 -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" \
      -set_serial "0x$(openssl rand -hex 16)" -out "$folder/$1.new" 2>/dev/null \
      -extfile <(echo "extendedKeyUsage=serverAuth,clientAuth")
  mv "$folder/$1-key.new" "$folder/$1-key.pem"
  mv "$folder/$1.new" "$folder/$1.pem"
  echo "new certificate: $1; restart what uses it"
}

lasts ca || authority
for name in scheduler worker client; do
  lasts "$name" || certificate "$name"
done
for name in ca scheduler worker client; do
  echo "$name.pem lasts until $(openssl x509 -in "$folder/$name.pem" -noout -enddate | cut -d= -f2)"
done

{
  echo "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true"
  echo "DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$seen_at/ca.pem"
  for name in scheduler worker client; do
    echo "DASK_DISTRIBUTED__COMM__TLS__${name^^}__CERT=$seen_at/$name.pem"
    echo "DASK_DISTRIBUTED__COMM__TLS__${name^^}__KEY=$seen_at/$name-key.pem"
  done
} >"$folder/tls.env"

if [ ! -s "$folder/prefect-password" ]; then
  printf %s "$(openssl rand -hex 24)" >"$folder/prefect-password"
fi
login="tomoseg:$(cat "$folder/prefect-password")"
echo "PREFECT_SERVER_API_AUTH_STRING=$login" >"$folder/prefect-server.env"
echo "PREFECT_API_AUTH_STRING=$login" >"$folder/prefect-client.env"

# What root renews is its reader's, but for the authority's key.
if [ "$(id -u)" = 0 ]; then
  for file in "$folder"/*; do
    [ "$file" = "$folder/ca-key.pem" ] || chown --reference="$folder" "$file"
  done
fi
