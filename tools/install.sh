# Makes the environment .venv where there is none, and installs into it with pip.
# usage: sh tools/install.sh PYTHON PIP-ARGUMENT...
# TORCH in the environment names one of PyTorch's own builds (cpu, cu126, …), taken instead of PyPI's.

python=$1
shift

fail() {
    printf '\n%s\n' "$1" >&2
    exit 1
}

[ ! -x .venv/bin/python ] || python=.venv/bin/python

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "'$python' does not run: install Python 3.10 or newer, or name another: make lab PYTHON=/path/to/python3."

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "The course needs Python 3.10 or newer, and '$python' is Python $version: name another: make lab PYTHON=/path/to/python3."

if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "'$python' has no venv module: install it (Debian and Ubuntu: apt install python3-venv), then run make again."
    echo "Making the environment .venv with Python $version."
    "$python" -m venv .venv ||
        fail "The environment .venv could not be made (the reason is above): remove the folder .venv, then run make again."
fi

.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip ||
    fail "The environment .venv has no pip: remove the folder .venv, then run make again."

if [ -n "${TORCH:-}" ]; then
    export PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:-} https://download.pytorch.org/whl/$TORCH"
fi

echo "Installing into .venv: pip install $*"
echo "(The first time this takes some minutes, and some gigabytes where PyTorch comes with CUDA: TORCH=cpu leaves CUDA out.)"
PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install "$@" ||
    fail "pip could not install the packages (its message is above): check the network and the free disk space, then run make again."
