#!/usr/bin/env bash
# A stand-in for debian:bookworm-slim where no registry answers: docker/base-image.sh [TAG]
#
# Pulls TAG; if that fails, makes it with debootstrap from the mirror that apt on this machine uses (root only). Does
# nothing when TAG is there. The settings that apt needs to reach its mirror, a proxy and its password included, get
# into the image: never push an image that is built on the stand-in.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/packages.sh

tag=${1:-debian:bookworm-slim}
suite=bookworm

# Debian's own sources as apt sees them, one "deb URI SUITE COMPONENT" a line; third-party ones are left out.
debian_sources() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
    sed -n 's/^Debian|//p' | sort -u
}

# make_tree DIRECTORY: a minimal system.
make_tree() {
  local tree=$1 sources mirror http='' https=''
  sources=$(debian_sources)
  if [ -z "$sources" ]; then
    apt-get update -qq
    sources=$(debian_sources)
  fi
  mirror=$(awk -v suite="$suite" '$3 == suite { print $2; exit }' <<< "$sources")
  if [ -z "$mirror" ]; then
    echo "apt on this machine has no source for Debian $suite, so $tag cannot be made here." >&2
    return 1
  fi
  eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
  case $http in '' | DIRECT) ;; *) export http_proxy=$http ;; esac
  case $https in '' | DIRECT) ;; *) export https_proxy=$https ;; esac

  debootstrap --variant=minbase "$suite" "$tree" "$mirror" > "$tree.log" 2>&1 || {
    tail -n 20 "$tree.log" >&2
    return 1
  }
  printf '%s\n' "$sources" > "$tree/etc/apt/sources.list"
  apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv[46])' \
    > "$tree/etc/apt/apt.conf.d/99host" || true
  echo 'Acquire::Languages "none";' > "$tree/etc/apt/apt.conf.d/docker-no-languages"
  cp -a /etc/apt/trusted.gpg.d/. "$tree/etc/apt/trusted.gpg.d/"
  if grep -q '^deb https' <<< "$sources"; then
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
  fi
}

# make_slim DIRECTORY: leaves out what the image of the registry leaves out, and starts no services.
make_slim() {
  local tree=$1
  printf 'path-exclude /usr/share/%s/*\n' doc man locale info > "$tree/etc/dpkg/dpkg.cfg.d/docker-slim"
  echo 'path-include /usr/share/doc/*/copyright' >> "$tree/etc/dpkg/dpkg.cfg.d/docker-slim"
  printf '#!/bin/sh\nexit 101\n' > "$tree/usr/sbin/policy-rc.d"
  chmod 755 "$tree/usr/sbin/policy-rc.d"
  find "$tree/usr/share/doc" -type f ! -name copyright -delete
  rm -rf "$tree"/usr/share/{man,locale,info}/* "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/* "$tree"/var/log/*.log
  rm -f "$tree/etc/resolv.conf" "$tree/etc/hostname"
}

if docker image inspect "$tag" > /dev/null 2>&1; then exit 0; fi
echo "Pulling $tag"
if timeout 60 docker pull -q "$tag" > /dev/null 2>&1; then exit 0; fi

echo "No registry answers; making a stand-in for $tag with debootstrap. Do not push images built on it."
if [ "$(id -u)" -ne 0 ]; then
  echo 'debootstrap needs root: run docker/base-image.sh once as root, then this again.' >&2
  exit 1
fi
require_packages debootstrap
tree=$(mktemp -d /var/tmp/attnreg-base.XXXXXX)
trap 'rm -rf --one-file-system "$tree" "$tree.log"' EXIT
make_tree "$tree"
make_slim "$tree"
tar -C "$tree" --numeric-owner -c . | docker import -c 'CMD ["bash"]' \
  -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$tag" > /dev/null
