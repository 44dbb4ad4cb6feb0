#!/usr/bin/env bash
# Prepares a Rust compiler with the aarch64 standard library out of Debian's packages, below the folder given, and prints
# the path of its `rustc`. For machines whose own toolchain has no `aarch64-unknown-linux-gnu` and cannot fetch it.
#
# Nothing is installed and the system's lists of packages stay as they are: the packages are unpacked into the folder, and
# their lists are kept there, too. The packages come from the sources that the system's apt is set up with.
set -euo pipefail
cd "$(dirname "$0")/.."
. targets/setup.sh

mkdir -p "${1:?the folder to use}"
folder=$(cd "$1" && pwd)
if [ -x "$folder/rustc" ] && "$folder/rustc" --version >/dev/null 2>&1; then
    printf '%s\n' "$folder/rustc"
    exit 0
fi
command -v apt-get >/dev/null || {
    say "No apt here. Add the target to your own toolchain instead: rustup target add aarch64-unknown-linux-gnu"
    exit 1
}

need_packages "The aarch64 build" gcc-aarch64-linux-gnu libc6-dev-arm64-cross
lists=$folder/apt
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
apt=(-qq -o Dir::State::lists="$lists/lists" -o Dir::Cache="$lists/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1
    -o Acquire::Languages=none -o Acquire::Retries=3
    -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64)
for try in 1 2 3; do
    apt-get "${apt[@]}" update >&2 && break
    [ "$try" != 3 ] || { say "apt-get could not fetch the arm64 lists"; exit 1; }
    sleep $((try * 5))
done

# The compiler's own libraries are those that an installation would bring; installed ones are already there.
wanted=$(apt-get "${apt[@]}" --simulate --no-install-recommends install rustc-web | awk '$1 == "Inst" { print $2 }')
[ -n "$wanted" ] || wanted="rustc-web libstd-rust-web-dev"
rm -rf "$folder/debs" "$folder/root"
mkdir -p "$folder/debs" "$folder/root"
for try in 1 2 3; do
    # shellcheck disable=SC2086 # a list of names
    (cd "$folder/debs" && apt-get "${apt[@]}" download $wanted libstd-rust-web-dev:arm64 >&2) && break
    [ "$try" != 3 ] || { say "apt-get could not download the compiler"; exit 1; }
    sleep $((try * 5))
done
for package in "$folder"/debs/*.deb; do
    dpkg-deb --extract "$package" "$folder/root"
done
rm -rf "$folder/debs" "$lists"

cat >"$folder/rustc.new" <<SCRIPT
#!/bin/sh
export LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu"
exec "$folder/root/usr/bin/rustc" --sysroot "$folder/root/usr" "\$@"
SCRIPT
chmod 755 "$folder/rustc.new"
"$folder/rustc.new" --version >&2
mv "$folder/rustc.new" "$folder/rustc"
printf '%s\n' "$folder/rustc"
