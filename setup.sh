#!/bin/sh
# What has to be done before `make` can work. Called by the Makefile, which knows when:
#   setup.sh packages GROUP   install what is missing of that [group] of packages.txt
#   setup.sh venv             make .venv and install patchbay into it, editable, as requirements.txt pins it
#   setup.sh kernel           build a user-mode kernel with netem, minutes the first time, if this machine's has none
#   setup.sh pins             print a new requirements.txt
set -eu
cd "$(dirname "$0")"

die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

listed() {
    awk -v group="[$1]" '/^\[/ { current = $1 } current == group && /^[a-z0-9]/ { print $1 }' packages.txt
}

missing() {
    for package in $(listed "$1"); do
        # One line for each architecture that dpkg has the package for.
        # shellcheck disable=SC2016 # the ${...} is dpkg's
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

units_of() {
    case $1 in
        chrony | coturn | postgresql | redis-server) echo "$1" ;;
        nginx-light) echo nginx ;;
        openssh-server) echo ssh ;;
    esac
}

packages() {
    [ -z "${SKIP_APT-}" ] || return 0
    command -v apt-get >/dev/null || die "no apt-get here. Install what gives you these Debian packages:" \
        "  $(listed "$1" | xargs)" "then go on with: make SKIP_APT=1 ..."
    # shellcheck disable=SC2046 # one word a package
    set -- $(missing "$1")
    [ $# -gt 0 ] || return 0
    root=''
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "neither root nor sudo here. As root:" \
            "  apt-get install --no-install-recommends $*" "then call make again."
        root=sudo
    fi
    # A machine that has just booted may be upgrading itself: wait for dpkg's lock. Nothing but apt-get itself is
    # run by sudo, for whoever may run nothing else; without a terminal no package asks anything.
    export DEBIAN_FRONTEND=noninteractive
    apt="$root apt-get -q -y -o DPkg::Lock::Timeout=300"
    # A third party's broken source must not stop us; the install says what really cannot be had.
    $apt update </dev/null || true
    # Servers that tests start in their labs; Debian would start those of the machine as well.
    if [ -d /run/systemd/system ]; then
        for package; do
            for unit in $(units_of "$package"); do $root systemctl mask "$unit.service" || true; done
        done
    fi
    $apt install --no-install-recommends "$@" </dev/null
}

# Debian's python3 comes without ensurepip, and a pyenv shim may lead nowhere: ask the interpreter itself.
usable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The system's own first: tests run as another user, who can read neither pyenv's nor conda's in our home.
find_python() {
    minor=40
    candidate=/usr/bin/python3
    until usable "$candidate"; do
        [ $minor -ge 11 ] || die "no Python >= 3.11 with venv and ensurepip found." \
            "Install one (Debian, Ubuntu: python3.X and python3.X-venv) and call make again."
        candidate=python3.$minor
        minor=$((minor - 1))
    done
    echo "$candidate"
}

venv() {
    python=$(find_python)
    "$python" -m venv .venv
    # By environment and not by -c, so that the build backend's own environment is held to the pins too;
    # older pips know only the first name, newer ones want the second for that.
    PIP_CONSTRAINT=requirements.txt PIP_BUILD_CONSTRAINT=requirements.txt \
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
}

kernel() {
    .venv/bin/python -m patchbay_vm.kernel needed || return 0
    packages kernel
    .venv/bin/python -m patchbay_vm.kernel build
}

pins() {
    echo '# The versions that are tested: constraints for pip, the whole tree. Renew by: make pins'
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --dry-run --ignore-installed --report - hatchling '.[dev]' |
        .venv/bin/python -c '
import json, sys
found = [item["metadata"] for item in json.load(sys.stdin)["install"]]
print(*sorted("{name}=={version}".format_map(m).lower() for m in found if m["name"] != "patchbay"), sep="\n")'
}

"$@"
