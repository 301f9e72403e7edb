#!/bin/bash
# The steps of `baton env create omnigibson`; each may be given again. By hand, in an activated Python 3.10 environment:
#   export PYTHON=$(which python) ENVIRONMENT=$VIRTUAL_ENV DEFINITION=configs/envs/omnigibson
#   for step in sources wheels setup libraries data; do bash $DEFINITION/install.sh $step; done
set -euo pipefail

: "${PYTHON:?}" "${ENVIRONMENT:?}" "${DEFINITION:?}"
SOURCES=$ENVIRONMENT/src/BEHAVIOR-1K
WHEELS=${ISAAC_SIM_WHEEL_PATH:-$ENVIRONMENT/wheels}
REPOSITORY=${BEHAVIOR_REPOSITORY:-https://github.com/RLinf/BEHAVIOR-1K.git}
BRANCH=${BEHAVIOR_BRANCH:-RLinf/v3.7.2}
INDEX=${ISAAC_SIM_INDEX:-https://pypi.nvidia.com}
TAG=cp310-none-manylinux_2_34_x86_64

sources() {
    if [ ! -d "$SOURCES/OmniGibson" ]; then
        rm -rf "$SOURCES"
        git clone --depth 1 --branch "$BRANCH" "$REPOSITORY" "$SOURCES"
    fi
    git -C "$SOURCES" log -1 --format='sources: %H of %cd'
}

wheels() {
    mkdir -p "$WHEELS"
    while read -r package; do
        file=$package-$TAG.whl
        # setup.sh may have renamed those that it installed.
        if ls "$WHEELS/$package"-cp310-none-manylinux_2_3?_x86_64.whl >/dev/null 2>&1; then
            continue
        fi
        name=${package%-*}
        echo "$package"
        curl --fail --location --retry 5 --continue-at - --silent --show-error \
            --output "$WHEELS/$file.part" "$INDEX/${name//_/-}/$file"
        mv "$WHEELS/$file.part" "$WHEELS/$file"
    done < "$DEFINITION/isaac_wheels.txt"
}

setup() {
    # setup.sh looks for the names with 2_34, and renames them where glibc is older.
    for renamed in "$WHEELS"/*manylinux_2_31_x86_64.whl; do
        if [ -e "$renamed" ]; then mv "$renamed" "${renamed/manylinux_2_31/manylinux_2_34}"; fi
    done
    "$PYTHON" -m pip install "numpy<2" "setuptools<=79" wheel
    cd "$SOURCES"
    env -u EXP_PATH -u CARB_APP_PATH -u ISAAC_PATH ISAAC_SIM_WHEEL_PATH="$WHEELS" \
        bash setup.sh --omnigibson --bddl --joylo --confirm-no-conda --accept-nvidia-eula </dev/null
}

libraries() {
    # Last, because what setup.sh installs asks for other versions of some.
    "$PYTHON" -m pip install --requirement "$DEFINITION/requirements.txt"
}

data() {
    if [ -d "$OMNIGIBSON_DATA_PATH/2025-challenge-task-instances" ]; then
        echo "the data are in $OMNIGIBSON_DATA_PATH already"
        return
    fi
    OMNI_KIT_ACCEPT_EULA=YES "$PYTHON" - <<'PYTHON_END'
from omnigibson.utils import asset_utils

asset_utils.download_omnigibson_robot_assets()
asset_utils.download_behavior_1k_assets(accept_license=True)
asset_utils.download_2025_challenge_task_instances()
PYTHON_END
}

"$1"
