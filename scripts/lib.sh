# Sourced by the other scripts.

# Succeeds once all these Debian packages are installed; as root it installs what is missing.
packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || return 1
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || return 1
    echo "installing ${missing[*]}" >&2
    # One at a time: two scripts may be running.
    (
        flock 9
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    ) 9>/var/lock/jostle-packages
}

# Ends a script whose tools are missing: under CI that is a failure, elsewhere it is said aloud.
not_run() {
    echo "NOT RUN: $*" >&2
    [ -z "${CI:-}" ]
    exit
}

# Whether rustup has this target; without rustup, Debian's compiler does the cross-building.
rustup_has() {
    command -v rustup >/dev/null && rustup target list --installed | grep -qx "$1"
}

# Debian's compiler and cargo, whatever else is on the path. RUSTC_BOOTSTRAP lets it build `core` from source.
debian_cargo() {
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$@"
}
