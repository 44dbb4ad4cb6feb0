# Installing what a script needs, for the scripts that source this file: only what is missing, only on Debian and its kin,
# and with a clear word where it cannot be done.

say() { printf '%s\n' "$*" >&2; }

# as_root COMMAND...: runs a command as root, through sudo if need be. Fails when neither is possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# missing PACKAGE...: prints those that are not installed.
missing() {
    for package in "$@"; do
        state=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || printf '%s\n' "$package"
    done
}

# need_packages WHY PACKAGE...: installs what is missing. Services that come with a package are not left running: the
# tests start their own, on ports of their own.
need_packages() {
    why=$1
    shift
    if ! command -v dpkg-query >/dev/null; then
        say "This is no Debian or Ubuntu, so nothing is installed here. $why needs what these packages provide:"
        say "  $*"
        return 0
    fi
    wanted=$(missing "$@")
    [ -n "$wanted" ] || return 0
    wanted=$(printf '%s' "$wanted" | tr '\n' ' ')
    say "$why needs packages that are not installed: $wanted"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        say "Neither root nor sudo here. As root, run: apt-get install --no-install-recommends $wanted"
        return 1
    fi
    hold_services
    status=1
    # The first try goes without an update, which a machine with fresh lists does not need; a mirror may fail once.
    for try in 1 2 3 4; do
        # shellcheck disable=SC2086 # a list of names
        if as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
            install --yes --no-install-recommends $wanted >&2; then
            status=0
            break
        fi
        say "apt-get could not install (try $try); updating its lists"
        [ "$try" = 1 ] || sleep $((try * 3))
        as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || true
    done
    release_services "$wanted"
    [ "$status" = 0 ] || say "These packages could not be installed: $wanted"
    return "$status"
}

POLICY=/usr/sbin/policy-rc.d

# While packages are installed, Debian asks this file whether their services may start: no.
hold_services() {
    held=no
    if [ ! -e "$POLICY" ]; then
        held=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
}

# Nor shall what was installed here start with the next boot.
release_services() {
    if [ "$held" = yes ]; then
        as_root rm -f "$POLICY"
    fi
    command -v systemctl >/dev/null || return 0
    for service in mosquitto docker-registry; do
        case " $1 " in
            *" $service "*) as_root systemctl disable --now "$service" >/dev/null 2>&1 || true ;;
        esac
    done
}

# need_rust: the toolchain named in rust-toolchain.toml must be there; it is never installed from here.
need_rust() {
    if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then
        # shellcheck disable=SC1091
        . "$HOME/.cargo/env"
    fi
    if ! command -v cargo >/dev/null; then
        say "Rust is missing: cargo is not in PATH. Install the toolchain that rust-toolchain.toml names."
        return 1
    fi
}
