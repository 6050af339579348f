#!/bin/bash -p
# Install a lock into .venv, each package checked by its hash: requirements.lock, which makes .venv what it names, or
# another one, which adds to it. Further arguments are files that packages of .venv have lost.
set -euo pipefail
lock=$1
shift

# An environment has its folder's name in it, and its interpreter is the system's: one that was copied, or whose
# interpreter has gone, is made again.
if test "$(head -n 1 .venv/.installed 2> /dev/null)" != "$(pwd -P)" || ! .venv/bin/python -c 'import pip' 2> /dev/null; then
    echo "Making the environment .venv"
    rm -rf .venv
    "${PYTHON:-python3}" -m venv .venv
fi
# A package that has lost something does not count as installed.
for lost; do
    grep -lE "(^|/bin/)${lost##*/}[/,]" .venv/lib/python3.*/site-packages/*.dist-info/RECORD |
        while read -r record; do rm -r "${record%/*}"; done || true
done

# Where packages come from is in pip's settings or in uv's, and holds for both; the hashes decide what is
# installed. pip's other settings are kept out, such as a --target for packages to go to.
settings=$(.venv/bin/pip config list)
export PIP_CONFIG_FILE=/dev/null
shared() { # SETTING VARIABLE...: all variables get what pip's setting says, else what the first says that is set
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
# As pip does: the version that the lock names, from whichever place has it.
export UV_INDEX_STRATEGY=unsafe-best-match
options=(--require-hashes --python .venv/bin/python ${PIP_NO_INDEX:+--no-index})

if test "$lock" != requirements.lock; then
    echo "Installing the packages of $lock"
    exec uv pip install "${options[@]}" --requirement "$lock"
fi
echo "Installing the packages of requirements.lock; the first time this takes a minute"
# uv comes from the lock too, by the entry that starts with its name.
awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock > .venv/uv.lock
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.lock
cache=$(uv cache dir)
{ mkdir -p "$cache" && test -w "$cache"; } 2> /dev/null || export UV_NO_CACHE=1
# What other locks have added goes.
rm -f .venv/.{study,bench,services,ci}
uv pip sync "${options[@]}" requirements.lock
# Python compiles what it imports, and keeps that: here at once, not in the silence before the first result.
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
