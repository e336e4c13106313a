#!/usr/bin/env bash
# Debian packages of the committed sources: packaging/build-debian.sh leaves attnreg_*.deb, libattnreg-dev_*.deb and
# python3-attnreg_*.deb in build/debian. The packages are for one's own machines: they are not signed.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/packages.sh
require_packages "${build_packages[@]}" "${python_packages[@]}" python3-numpy "${debian_packages[@]}" git

version=$(sed -n 's/^  VERSION \([0-9.]*\)$/\1/p' CMakeLists.txt)
revision=$(git rev-parse --short=12 HEAD)
sign=+ # after the release; ~: before
if grep -q "^## \[$version\] - unreleased" CHANGELOG.md; then sign='~'; fi
tree=build/debian/attnreg-$version
rm -rf build/debian
mkdir -p "$tree"
git archive HEAD | tar -x -C "$tree"
cp -r "$tree/packaging/debian" "$tree/debian"
cat > "$tree/debian/changelog" <<CHANGELOG
attnreg ($version${sign}git$(git log -1 --format=%cd --date=format:%Y%m%d).$revision) unstable; urgency=medium

  * Built from revision $revision; CHANGELOG.md has the changes.

 -- attnreg contributors <attnreg@localhost>  $(git log -1 --format=%cD)
CHANGELOG

echo "Building packages of $version, revision $revision, in build/debian; build/debian/build.log"
(cd "$tree" && DEB_BUILD_OPTIONS="parallel=$(nproc)" dpkg-buildpackage -b -us -uc > ../build.log 2>&1) || {
  tail -n 40 build/debian/build.log >&2
  exit 1
}
rm -rf "$tree"
ls build/debian/*.deb
