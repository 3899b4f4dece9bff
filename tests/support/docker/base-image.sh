#!/bin/sh
# base-image.sh IMAGE [DENO_DIR]: imports this machine's deno, the libraries that it and the cached npm packages' native
# modules are linked with, and what npm has cached in DENO_DIR, as IMAGE: a stand-in for the Dockerfile's base where no
# image registry can be reached. DENO names the binary, DOCKER_HOST the daemon.
set -eu
image=$1 cache=${2:-}
deno=$(readlink -f "${DENO:-$(command -v deno)}")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root/usr/bin" "$root/etc" "$root/run" "$root/var/lib" "$root/deno-dir"
mkdir -m 1777 "$root/tmp"
cp "$deno" "$root/usr/bin/deno"
modules=
if [ -n "$cache" ]; then
  cp -a "$cache/npm" "$root/deno-dir/"
  modules=$(find "$cache/npm" -name '*.glibc.node')
fi
# Lines are "lib => /path (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)".
# shellcheck disable=SC2086
ldd "$deno" $modules | grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r lib; do
  [ -e "$lib" ] || continue
  mkdir -p "$root$(dirname "$lib")"
  cp -L "$lib" "$root$lib"
done
echo 'root:x:0:0:root:/root:/none' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
set -- -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'ENV DENO_DIR=/deno-dir/'
# Only for a build that is to fetch from npm through a proxy with its own CA: CA=/etc/ssl/certs/ca-certificates.crt
if [ -n "${CA:-}" ]; then
  mkdir -p "$root/etc/ssl"
  cp -L "$CA" "$root/etc/ssl/ca.crt"
  set -- "$@" -c 'ENV DENO_CERT=/etc/ssl/ca.crt'
fi
tar -C "$root" --owner=0 --group=0 --numeric-owner -c . | docker import "$@" - "$image"
