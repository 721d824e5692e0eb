#!/usr/bin/env bash
# Makes this machine ready for `npm run demo` and `npm test`: root, and the system packages that both use. With the
# argument `haproxy` for the mutual-TLS pair of `npm run bench` too.
# Prints nothing when all is there; exits 2 with one line when it cannot help.
set -euo pipefail

if [ "$(id -u)" -ne 0 ]; then
  echo "synguard: needs root (it makes network namespaces and iptables rules); run it again with sudo" >&2
  exit 2
fi

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need ip iproute2
need iptables iptables
need setpriv util-linux
need sysctl procps
need gcc gcc
need modprobe kmod
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
ldconfig -p | grep -q 'libatomic\.so\.1' || missing+=(libatomic1)
if [ "${1:-}" = haproxy ]; then
  need haproxy haproxy
  need openssl openssl
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "synguard: please install: ${missing[*]}" >&2
  exit 2
fi
echo "synguard: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2

# Debian starts what it installs; nobody asked for a proxy on this machine.
case " ${missing[*]} " in *' haproxy '*) systemctl disable --now haproxy >/dev/null 2>&1 || true ;; esac
