# Installs Chromium for the browser test, where there is none and apt can do it.

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    ! command -v "$name" >/dev/null || exit 0
done
[ ! -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Chromium for the browser test."
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y chromium && exit 0
fi
echo "There is no Chromium or Chrome here: install one to run the browser test, which is skipped without it."
