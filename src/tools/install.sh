#!/bin/bash -p
# Install a lock file into .venv and check each package's hash. requirements.lock replaces what .venv has; other lock
# files add to it. Further arguments are missing files of installed packages.
set -euo pipefail
lock=$1
shift

# Create the environment again after the folder was copied or moved, or if its interpreter is missing.
if test "$(head -n 1 .venv/.installed 2> /dev/null)" != "$(pwd -P)" || ! .venv/bin/python -c 'import pip' 2> /dev/null; then
    echo "Making the environment .venv"
    rm -rf .venv
    "${PYTHON:-python3}" -m venv .venv
fi
# A package with a missing file does not count as installed.
for missing; do
    grep -lE "(^|/bin/)${missing##*/}[/,]" .venv/lib/python3.*/site-packages/*.dist-info/RECORD |
        while read -r record; do rm -r "${record%/*}"; done || true
done

# The user's package sources, in the settings of pip or uv, apply to both tools. pip's other settings, such as a
# --target to install to, do not apply.
settings=$(.venv/bin/pip config list)
export PIP_CONFIG_FILE=/dev/null
shared() { # SETTING VARIABLE...: set all variables to pip's setting, else to the first of them that is set
    local setting=$1 name section value=''
    shift
    for section in :env: install global; do
        value=${value:-$(sed -nE "s/^$section\.$setting=.(.*).$/\1/p" <<< "$settings")}
    done
    for name; do value=${value:-${!name:-}}; done
    test -z "$value" || for name; do export "$name=${!name:-${value//\\n/ }}"; done
}
shared index-url PIP_INDEX_URL UV_DEFAULT_INDEX UV_INDEX_URL
shared extra-index-url PIP_EXTRA_INDEX_URL UV_INDEX UV_EXTRA_INDEX_URL
shared find-links PIP_FIND_LINKS UV_FIND_LINKS
shared no-index PIP_NO_INDEX
shared trusted-host PIP_TRUSTED_HOST UV_INSECURE_HOST
shared cert PIP_CERT SSL_CERT_FILE
shared client-cert PIP_CLIENT_CERT SSL_CLIENT_CERT
shared proxy PIP_PROXY
shared timeout PIP_TIMEOUT UV_HTTP_TIMEOUT
shared default-timeout PIP_TIMEOUT UV_HTTP_TIMEOUT
shared no-cache-dir PIP_NO_CACHE_DIR UV_NO_CACHE
if test "${PIP_PROXY-}"; then export HTTP_PROXY=$PIP_PROXY HTTPS_PROXY=$PIP_PROXY; fi
if test "${UV_FIND_LINKS-}"; then export UV_FIND_LINKS=${UV_FIND_LINKS// /,}; fi
# As in pip, any source may have the locked version.
export UV_INDEX_STRATEGY=unsafe-best-match
options=(--require-hashes --python .venv/bin/python ${PIP_NO_INDEX:+--no-index})

if test "$lock" != requirements.lock; then
    echo "Installing the packages of $lock"
    exec uv pip install "${options[@]}" --requirement "$lock"
fi
echo "Installing the packages of requirements.lock; the first time this takes a minute"
# uv itself is installed from its entry in the lock.
awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock > .venv/uv.lock
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.lock
cache=$(uv cache dir)
{ mkdir -p "$cache" && test -w "$cache"; } 2> /dev/null || export UV_NO_CACHE=1
# Packages of other lock files are removed.
rm -f .venv/.{study,bench,services,ci}
uv pip sync "${options[@]}" requirements.lock
# Python compiles modules at their first import: here rather than in silence before the first result.
printf 'Compiling what the pipeline imports'
python -c 'import safetensors, torch' & one=$!
python -c 'import dvc.cli, matplotlib.figure, mlflow, pandas, sklearn.datasets' & other=$!
while kill -0 $one 2> /dev/null || kill -0 $other 2> /dev/null; do
    printf .
    sleep 1
done
echo
wait $one
wait $other
python -c 'import vl_convert; print(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed"))' > .venv/vega.js
