#!/usr/bin/env bash
# Makes an authority and certificates for trying TLS: scripts/certs.sh FOLDER NAME[,NAME...]...
# Each further argument is one certificate, for all its names (DNS names and addresses); its files are named after the
# first. An authority that is in the folder already is used again. For production, let cert-manager or your own
# authority do it.
#
#   scripts/certs.sh certs mesh,localhost,127.0.0.1 me
#   mobula up --tls-ca certs/ca.pem --tls-client-ca certs/ca.pem --tls-cert certs/mesh.pem --tls-key certs/mesh.key
#   curl --cacert certs/ca.pem --cert certs/me.pem --key certs/me.key https://127.0.0.1:8000/-/healthz
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 64; }
folder=$1
shift
umask 077
mkdir -p "$folder"
if [ ! -e "$folder/ca.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Mobula test authority $RANDOM" \
    -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
fi
for names in "$@"; do
  first=${names%%,*}
  san=
  for name in ${names//,/ }; do
    case $name in
      *:* | *[0-9].[0-9]*.[0-9]*) san+=",IP:$name" ;;
      *) san+=",DNS:$name" ;;
    esac
  done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$first" \
    -keyout "$folder/$first.key" -out "$folder/$first.csr" 2>/dev/null
  openssl x509 -req -in "$folder/$first.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days 365 \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${san#,}") \
    -out "$folder/$first.pem" 2>/dev/null
  rm "$folder/$first.csr"
  chmod 644 "$folder/ca.pem" "$folder/$first.pem"
  echo "$folder/$first.pem for $names"
done
