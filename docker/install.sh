#!/bin/sh
# Installs skild_ray with the tested versions into a new virtual environment; run from the root of the repository.
# usage: docker/install.sh VENV [TORCH_INDEX]
# TORCH_INDEX is the package index of torch's build for CPU or CUDA; without it torch comes from pip's own index.
set -eu
venv=$1
torch_index=${2:-}
"${PYTHON:-python3}" -m venv "$venv"
# The wheel of the right device first: the same version from elsewhere satisfies everything after it.
"$venv/bin/pip" install --no-cache-dir --quiet --disable-pip-version-check --constraint constraints.txt \
    ${torch_index:+--index-url "$torch_index" --extra-index-url https://pypi.org/simple} torch
"$venv/bin/pip" install --no-cache-dir --quiet --disable-pip-version-check --constraint constraints.txt '.[office,ogbench,tune,wandb]'
# Parts of the wheels that only serve to build on them.
find "$venv" -path '*/site-packages/torch/include' -prune -exec rm -rf {} +
find "$venv" -path '*/site-packages/ray/jars' -prune -exec rm -rf {} +
"$venv/bin/skild-ray" --help > /dev/null
"$venv/bin/ray" --version
