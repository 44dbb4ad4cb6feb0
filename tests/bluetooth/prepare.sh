#!/usr/bin/env bash
# Prepares, below the folder given, what the Bluetooth machine needs: qemu, a kernel with Bluetooth, bluetoothd and
# dbus-daemon, unpacked from Debian's packages. Nothing is installed, and the system's lists of packages stay as they are.
#
# Leaves: qemu.sh (runs the emulator), vmlinuz, initrd.base (a cpio archive without the program under test).
set -euo pipefail
cd "$(dirname "$0")/../.."
. targets/setup.sh

mkdir -p "${1:?the folder to use}"
folder=$(cd "$1" && pwd)
command -v apt-get >/dev/null || { say "The Bluetooth machine is made of Debian's packages, and there is no apt here"; exit 1; }
need_packages "The Bluetooth machine" cpio xz-utils

# Lists of our own, and a system on which nothing is installed: so the answer does not depend on what this one has.
lists=$folder/apt
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
: >"$lists/status"
apt=(-qq -o Dir::State::lists="$lists/lists" -o Dir::State::status="$lists/status" -o Dir::Cache="$lists/cache"
    -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Languages=none -o Acquire::Retries=3)
for try in 1 2 3; do
    apt-get "${apt[@]}" update >&2 && break
    [ "$try" != 3 ] || { say "apt-get could not fetch its lists"; exit 1; }
    sleep $((try * 5))
done

closure() {
    apt-get "${apt[@]}" --simulate --no-install-recommends install "$@" | awk '$1 == "Inst" { print $2 }'
}

# unpack INTO PACKAGE...
unpack() {
    into=$1
    shift
    rm -rf "$folder/debs" "$into"
    mkdir -p "$folder/debs" "$into"
    for try in 1 2 3; do
        (cd "$folder/debs" && apt-get "${apt[@]}" download "$@" >&2) && break
        [ "$try" != 3 ] || { say "apt-get could not download: $*"; exit 1; }
        sleep $((try * 5))
    done
    for package in "$folder"/debs/*.deb; do
        dpkg-deb --extract "$package" "$into"
    done
    rm -rf "$folder/debs"
}

# The emulator, without what only other machines than this one need.
mapfile -t emulator < <(closure qemu-system-x86 | grep -vE '^(adduser|debconf|dpkg|perl.*|python.*|coreutils|tar|init-system.*|passwd)$')
unpack "$folder/qemu" "${emulator[@]}"
cat >"$folder/qemu.sh" <<SCRIPT
#!/bin/sh
root="$folder/qemu"
libs="\$root/usr/lib/x86_64-linux-gnu:\$root/lib/x86_64-linux-gnu"
export QEMU_MODULE_DIR="\$root/usr/lib/x86_64-linux-gnu/qemu"
exec "\$root/lib64/ld-linux-x86-64.so.2" --library-path "\$libs:\$root/usr/lib/x86_64-linux-gnu/pulseaudio" \\
    "\$root/usr/bin/qemu-system-x86_64" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
SCRIPT
chmod 755 "$folder/qemu.sh"
"$folder/qemu.sh" --version >&2

# The machine: the newest ordinary kernel (the cloud one has no Bluetooth), bluetoothd and what it needs.
kernel=$(closure linux-image-amd64 | grep '^linux-image-[0-9]' | head -1)
mapfile -t guest < <(closure bluez dbus-daemon busybox-static | grep -E '^(bluez|dbus-daemon|busybox-static|lib.*|zlib.*)$')
unpack "$folder/guest" "${guest[@]}"
unpack "$folder/kernel" "$kernel"
cp "$folder"/kernel/boot/vmlinuz-* "$folder/vmlinuz"

tree=$folder/tree
rm -rf "$tree"
mkdir -p "$tree"/{bin,dev,proc,sys,run,tmp,var/lib/bluetooth,etc/dbus-1,lib/modules,lib64,usr/bin}
ln -s ../lib64 "$tree/lib/x86_64-linux-gnu"
guest=$folder/guest
cp "$guest/bin/busybox" "$tree/bin/busybox"
cp "$guest/usr/libexec/bluetooth/bluetoothd" "$guest/usr/bin/btattach" "$guest/usr/bin/btmgmt" "$guest/usr/bin/dbus-daemon" "$tree/bin/"
cp "$guest"/lib64/ld-linux-x86-64.so.2 "$tree/lib64/"
libs="$guest/lib/x86_64-linux-gnu $guest/usr/lib/x86_64-linux-gnu"
# shellcheck disable=SC2086 # two folders
needed() { objdump -p "$@" 2>/dev/null | awk '$1 == "NEEDED" { print $2 }' | sort -u; }
todo=$(needed "$tree"/bin/bluetoothd "$tree"/bin/btattach "$tree"/bin/btmgmt "$tree"/bin/dbus-daemon)
while [ -n "$todo" ]; do
    next=
    for lib in $todo; do
        [ ! -e "$tree/lib64/$lib" ] || continue
        # shellcheck disable=SC2086 # two folders
        found=$(find $libs -name "$lib" | head -1)
        [ -n "$found" ] || { say "no $lib for the machine"; exit 1; }
        cp -L "$found" "$tree/lib64/$lib"
        next="$next $(needed "$tree/lib64/$lib" | tr '\n' ' ')"
    done
    todo=$(printf '%s' "$next" | tr ' ' '\n' | sort -u | sed '/^$/d')
done

# Modules in the order they are loaded.
modules=$(echo "$folder"/kernel/lib/modules/*)
order=
want() {
    name=$1
    case " $order " in *" $name "*) return 0 ;; esac
    file=$(find "$modules" -name "$name.ko*" -o -name "$(printf '%s' "$name" | tr _ -).ko*" | head -1)
    [ -n "$file" ] || return 0
    cp "$file" "$tree/lib/modules/$name.ko.in"
    case "$file" in
        *.xz) xz -dc "$file" >"$tree/lib/modules/$name.ko"; rm "$tree/lib/modules/$name.ko.in" ;;
        *) mv "$tree/lib/modules/$name.ko.in" "$tree/lib/modules/$name.ko" ;;
    esac
    for dependency in $(strings -a "$tree/lib/modules/$name.ko" | sed -n 's/^depends=//p' | tr ',-' ' _'); do
        want "$dependency"
        name=$1
    done
    order="$order $name"
}
for module in sha512_generic sha256_generic hmac ctr ccm cmac ecb aes_generic jitterentropy_rng drbg ecdh_generic \
    rfkill bluetooth hci_uart algif_skcipher algif_hash uhid; do
    want "$module"
done
printf '%s\n' $order >"$tree/lib/modules/order"

cat >"$tree/etc/dbus-1/system.conf" <<'CONF'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
CONF
printf 'root:x:0:0:root:/:/bin/sh\n' >"$tree/etc/passwd"
printf 'root:x:0:\n' >"$tree/etc/group"
cp "$PWD/tests/bluetooth/init" "$tree/init"
chmod 755 "$tree/init"
(cd "$tree" && find . | cpio --quiet --create --format=newc) | gzip -1 >"$folder/initrd.base"
rm -rf "$lists" "$folder/guest" "$folder/kernel" "$tree"
